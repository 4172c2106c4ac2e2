"""A disk that is nearly full: staging waits for commits instead of filling it."""

import os
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from support import export, held, simulator, truth

from mixpanel_export._export.tuning import Tuning
from mixpanel_export._writer.staging import Staging

SMALL_DISK = """
import sys
from pathlib import Path
import anyio
from support import export, held, simulator, truth

async def main():
    sim = simulator(events_per_day=15_000)
    db = Path(sys.argv[1], "events.duckdb")
    await export(sim, db, "2024-03-01", "2024-03-12", chunk_days=1, max_workers=1)
    assert held(db) == truth(sim, "2024-03-01", "2024-03-12")

anyio.run(main)
"""


@pytest.mark.anyio
async def test_staging_waits_for_commits_on_a_full_disk(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below the limit, at most one complete chunk is staged at a time, and the export is exact."""
    complete = 0
    most = 0
    end, discard = Staging.end, Staging.discard

    def ended(*arguments: object) -> object:
        nonlocal complete, most
        complete += 1
        most = max(most, complete)
        return end(*arguments)  # type: ignore[arg-type] # passed on

    def discarded(*arguments: object) -> None:
        nonlocal complete
        complete -= 1
        discard(*arguments)  # type: ignore[arg-type] # passed on

    monkeypatch.setattr(Staging, "end", ended)  # counts what no public value tells
    monkeypatch.setattr(Staging, "discard", discarded)
    sim = simulator()
    await export(sim, db, chunk_days=1, max_workers=1, tuning=Tuning(disk_floor=1 << 62))
    assert most <= 2
    assert held(db) == truth(sim)


@pytest.mark.anyio
async def test_a_repaired_chunk_leaves_the_backlog_whole(db: Path) -> None:
    """A repair changes the size of a chunk, and staging does not wait for bytes that are already committed."""
    sim = simulator(awkward=0.5, rejects=0.05, odd=0.0)
    with anyio.fail_after(60):
        await export(sim, db, chunk_days=1, max_workers=1, tuning=Tuning(disk_floor=1 << 62))
    assert held(db) == truth(sim)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="mount namespaces are Linux's")
def test_an_export_larger_than_its_disk_succeeds(tmp_path: Path) -> None:
    """Twelve days of 13 MB each are exported with a disk of 110 MB."""
    mount = f"mount -t tmpfs -o size=110m none {tmp_path}"
    run = f'exec "{sys.executable}" -c "$0" {tmp_path}'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", f"{mount} && {run}", SMALL_DISK]
    if subprocess.run([*unshare[:3], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this system forbids mount namespaces")
    tests = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    done = subprocess.run(unshare, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
