"""A database behind a symbolic link: temporary files are created beside the file, not beside the link."""

import sys
from functools import partial
from pathlib import Path

import anyio
import pytest
from examples import slow
from shell import mpx
from support import export, held, simulator, truth

from mixpanel_export.results import BatchProgress

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")


@pytest.mark.parametrize("hops, created", [(2, True), *slow([(1, False), (1, True), (2, False)])])
def test_staged_rows_lie_beside_the_file(hops: int, created: bool, tmp_path: Path) -> None:
    """The link may be on another disk, which is small or readable by others; it stays a link in every mode."""
    beside_file, beside_link = tmp_path / "file", tmp_path / "link"
    beside_file.mkdir()
    beside_link.mkdir()
    file, link = beside_file / "events.duckdb", beside_link / "events.duckdb"
    link.symlink_to(file)
    for number in range(1, hops):
        beside_link = tmp_path / f"link{number}"
        beside_link.mkdir()
        (beside_link / "other.duckdb").symlink_to(link)
        link = beside_link / "other.duckdb"
    if created:
        file.touch()
    sim = simulator()
    seen: set[str] = set()

    def look(_: BatchProgress) -> None:
        assert list(beside_link.iterdir()) == [link]
        seen.update(path.name for path in beside_file.iterdir() if path != file)

    for mode in ("create", "replace", "append"):
        anyio.run(partial(export, sim, link, mode=mode, chunk_days=3, on_batch_complete=look))
    assert any("export-" in name for name in seen)
    assert link.is_symlink()
    assert list(beside_file.iterdir()) == [file]
    assert held(file) == truth(sim)


def test_the_doctor_looks_at_the_disk_of_the_file(tmp_path: Path) -> None:
    """Nothing is written where the link is."""
    (tmp_path / "file").mkdir()
    link = tmp_path / "events.duckdb"
    link.symlink_to(tmp_path / "file" / "events.duckdb")
    assert f"free in {tmp_path / 'file'}\n" in mpx("doctor", str(link), "--offline").stdout
