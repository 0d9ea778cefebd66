"""verify on what the agent's unit reads after a reboot, and the names that cards have then."""

from __future__ import annotations

from pathlib import Path

import pytest
from verify_spoils import Spoil, both, link, nothing, remove, replace, write
from verify_tree import DEFAULT_LINK, NETNS_TEMPLATE, VENV, amphora, check_tar

from amphora_mkimage.verify.result import Result

PASS, INFO, FAIL = Result.PASS, Result.INFO, Result.FAIL
#: Before octavia 19: two lines a card.
OLD = replace(NETNS_TEMPLATE, "ip -br link | awk", "ip link | awk \\'{getline n; print $0,n}\\' | awk")
DROP_INS = "99-default.link.d"
FILE = Path(__file__).parents[2] / "stages/files/etc/systemd/network" / DROP_INS / "50-amphora.conf"


def drop_in(text: str, directory: str = "/etc/systemd/network", name: str = "50-amphora.conf") -> Spoil:
    return write(f"{directory}/{DROP_INS}/{name}", f"[Link]\n{text}\n")


OURS = drop_in("AlternativeNamesPolicy=")


@pytest.mark.parametrize(
    ("result", "words", "spoil"),
    [
        (PASS, "database onboard", nothing),
        (FAIL, "database onboard slot path mac", OLD),
        (PASS, "none", both(OLD, OURS)),
        (PASS, "none", both(OLD, remove(DEFAULT_LINK))),
        (PASS, "none", both(OLD, link("/etc/systemd/network/99-default.link", "/dev/null"))),
        (PASS, "none", both(OLD, drop_in("AlternativeNamesPolicy =", "/usr/lib/systemd/network"))),
        # What is read later has the last word; an administrator's file hides the vendor's of the same name.
        (FAIL, "(mac)", both(OLD, OURS, drop_in("AlternativeNamesPolicy=mac", name="60-more.conf"))),
        (PASS, "none", both(OLD, OURS, drop_in("AlternativeNamesPolicy=mac", "/usr/lib/systemd/network"))),
        (FAIL, "slot path mac slot", both(OLD, drop_in("AlternativeNamesPolicy=slot"))),
        (FAIL, "database", both(OLD, drop_in("NamePolicy="))),
        (INFO, "was not found", remove(NETNS_TEMPLATE)),
        (Result.NOT_APPLICABLE, "no agent", remove(f"{VENV}/bin/python3")),
    ],
)
def test_what_the_unit_reads(result: Result, words: str, spoil: Spoil, tmp_path: Path) -> None:
    tree = amphora()
    spoil(tree)
    outcome = check_tar(tree, tmp_path / "image.tar")["agent.reboot"]
    assert outcome.result is result
    assert any(words in finding.detail for finding in outcome.findings)


def test_the_stages_file_is_enough(tmp_path: Path) -> None:
    tree = amphora()
    OLD(tree)
    tree.write("/etc/systemd/network/99-default.link.d/50-amphora.conf", FILE.read_text())
    assert check_tar(tree, tmp_path / "image.tar")["agent.reboot"].result is PASS
