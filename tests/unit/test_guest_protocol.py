"""The protocol is a subset of libguestfs' handle: same names, same parameters."""

from __future__ import annotations

import inspect

import guestfs
import pytest

from amphora_mkimage.guest.namespace import NamespaceGuest
from amphora_mkimage.guest.protocol import Guest

VERBS = sorted(name for name, value in vars(Guest).items() if inspect.isfunction(value) and not name.startswith("_"))


def test_there_are_verbs() -> None:
    assert {"write", "mkdir_p", "command", "ln_sf"} <= set(VERBS)


@pytest.mark.parametrize("handle", [guestfs.GuestFS, NamespaceGuest])
@pytest.mark.parametrize("verb", VERBS)
def test_each_handle_has_each_verb_with_the_same_parameters(handle: type, verb: str) -> None:
    asked = list(inspect.signature(getattr(Guest, verb)).parameters.values())
    given = list(inspect.signature(getattr(handle, verb)).parameters.values())
    same = given[: len(asked)]
    assert [parameter.name for parameter in asked] == [parameter.name for parameter in same]
    assert [parameter.kind for parameter in asked] == [parameter.kind for parameter in same]
    # libguestfs' optional arguments ("followsymlinks") come after and may be left out.
    assert all(parameter.default is not inspect.Parameter.empty for parameter in given[len(asked) :])
