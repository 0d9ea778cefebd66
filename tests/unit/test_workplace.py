"""Snapshots of a tree, or of a part of it."""

from __future__ import annotations

import io
from pathlib import Path

from amphora_mkimage.console import Console
from amphora_mkimage.fetch.store import Store
from amphora_mkimage.workplace import Workplace


def test_a_link_of_the_tree_leads_inside(tmp_path: Path) -> None:
    """In the guest /opt may be a link to anywhere; that is never the host's anywhere."""
    warnings: list[str] = []
    store = Store(tmp_path / "cache", warnings.append)
    store.prepare()
    place = Workplace(tmp_path / "work", store, Console(io.StringIO()))
    outside, inside = tmp_path / "outside", place.tree / str(tmp_path / "outside").lstrip("/")
    for directory in (outside, inside):
        directory.mkdir(parents=True)
    (place.tree / "opt").symlink_to(outside)
    (inside / "part").mkdir()
    (inside / "part/file").write_text("ours")
    place.pack("key", "/opt", "part")
    (inside / "part/file").unlink()
    kept = store.checked_base("key")
    assert kept is not None
    place.unpack(kept, "/opt")
    assert (inside / "part/file").read_text() == "ours"
    assert list(outside.iterdir()) == []
    assert warnings == []
