"""The ledger knows which days were requested, even after an export that was interrupted early."""

import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from threading import Timer

import pytest
from examples import slow
from shell import held_by_another, mpx, one_error
from support import NOW, TUNING, export, query, simulator

from mixpanel_export._database.target_days import LoadOptions, Target, read_targets
from mixpanel_export._local.reader import read_contents, reading
from mixpanel_export._model import Chunk, Selection
from mixpanel_export.errors import AuthenticationError, QueryError
from mixpanel_export.results import BatchProgress
from mixpanel_export.simulator import Fault, Simulator

pytestmark = pytest.mark.anyio

FIRST, LAST = "2024-03-01", "2024-03-09"
ALL = Selection("12345")


class StopError(Exception):
    """Ends an export after its first batch."""


def stop(_: BatchProgress) -> None:
    raise StopError


def statuses(db: Path) -> dict[str, int]:
    """Return how many days have which status."""
    with reading(db) as connection:
        (known,) = read_contents(connection).coverages
    return dict(known.statuses)


async def interrupted(sim: Simulator, db: Path, last: str = LAST) -> None:
    """Export one batch of many, then stop."""
    with pytest.raises(StopError):
        await export(
            sim, db, last=last, chunk_days=1, max_workers=1, tuning=ONE_BY_ONE, on_batch_complete=stop
        )


SLOW = 0.1  # seconds to the first byte, so that the first batch is committed before the last one arrives
ONE_BY_ONE = replace(TUNING, group_wait=0.0)


async def test_days_that_were_never_tried_are_missing(db: Path) -> None:
    """After an interruption, the rest of the range is missing, in the status and in `_metadata`; resume fetches it."""
    sim = simulator(first_byte=SLOW)
    await interrupted(sim, db)
    found = statuses(db)
    assert found["missing"] == 9 - found["complete"] > 0
    assert query(db, "SELECT missing_days FROM _metadata") == [(found["missing"],)]
    await export(sim, db, mode="resume")
    assert statuses(db) == {"complete": 9}
    assert query(db, "SELECT missing_days FROM _metadata") == [(0,)]


async def test_a_smaller_export_does_not_shrink_the_target(db: Path) -> None:
    """Days that were requested remain target days."""
    sim = simulator(first_byte=SLOW)
    await interrupted(sim, db)
    await export(sim, db, FIRST, FIRST, mode="append")
    assert statuses(db)["missing"] > 0


async def test_a_limited_export_has_no_target(db: Path) -> None:
    """Its days are never expected."""
    await export(simulator(), db, limit=5)
    with reading(db) as connection:
        assert read_targets(connection) == {}


async def test_a_refused_account_leaves_no_target(db: Path) -> None:
    """A target is recorded only once Mixpanel accepts the account."""
    with pytest.raises(AuthenticationError):
        await export(simulator(faults=[Fault("401", times=100)]), db)
    with reading(db) as connection:
        assert read_targets(connection) == {}


async def test_replace_sets_the_target_anew(db: Path) -> None:
    """The target of a replaced table is that of the replacement."""
    sim = simulator()
    await export(sim, db)
    await export(sim, db, FIRST, "2024-03-03", mode="replace")
    with reading(db) as connection:
        assert read_targets(connection) == {
            ("events", ALL): Target(Chunk(date.fromisoformat(FIRST), date(2024, 3, 3)), LoadOptions())
        }


async def test_days_before_the_plans_history_leave_the_target(db: Path) -> None:
    """Days that Mixpanel can never export are not missing."""
    sim = simulator(history_days=100)
    today = NOW.date()
    with pytest.raises(QueryError) as caught:
        await export(sim, db, str(today - timedelta(days=103)), str(today - timedelta(days=90)), chunk_days=1)
    assert caught.value.first_day == today - timedelta(days=100)
    with reading(db) as connection:
        targets = read_targets(connection)
    assert all(target.days.first >= today - timedelta(days=100) for target in targets.values())


async def test_the_target_can_be_set(db: Path) -> None:
    """`mpx status --set-target` changes the expected days."""
    await export(simulator(), db, FIRST, "2024-03-02")
    result = mpx("status", str(db), "--set-target", "2024-03-01..2024-03-05", "--json")
    (table,) = json.loads(result.stdout)["tables"]
    assert table["statuses"] == {"complete": 2, "missing": 3}
    assert table["target"] == {"from_date": "2024-03-01", "to_date": "2024-03-05"}
    assert mpx("status", str(db), "--set-target", "2024-03-01").exit_code == 2


@pytest.mark.parametrize(
    "days",
    [
        "2024-03-01..",
        "2024-03-02..2024-03-01",
        *slow(["2024", "..", "2024-02-30..2024-03-01", "1024-03-01..2024-03-01"]),
    ],
)
async def test_a_target_that_is_no_range_changes_nothing(days: str, db: Path) -> None:
    """The error names the option; a mistyped year would make thousands of days missing."""
    await export(simulator(), db, FIRST, FIRST)
    result = mpx("status", str(db), "--set-target", days)
    assert result.exit_code == 2
    assert "--set-target" in result.stderr
    with reading(db) as connection:
        assert list(read_contents(connection).coverages[0].statuses) == ["complete"]


async def test_a_target_is_set_once_the_file_is_free(db: Path) -> None:
    """--wait also applies to the change; without it, the error names the process."""
    await export(simulator(), db, FIRST, FIRST)
    set_target = ("status", str(db), "--set-target", f"{FIRST}..{LAST}", "--json")
    with held_by_another(db) as holder:
        assert f"process {holder.pid}" in mpx(*set_target).stderr
        release = Timer(1, lambda: holder.communicate("\n"))
        release.start()
        assert mpx(*set_target, "--wait", "60s").exit_code == 0
        release.join()
    assert statuses(db) == {"complete": 1, "missing": 8}


@pytest.mark.parametrize("content", [None, b""])
async def test_a_target_is_not_set_in_a_file_that_has_none(content: bytes | None, db: Path) -> None:
    """A missing file stays missing, and an empty one stays empty; the exit code reports it."""
    if content is not None:
        db.write_bytes(content)
    result = mpx("status", str(db), "--set-target", "2024-03-01..2024-03-05")
    assert result.exit_code == 4
    assert str(db) in one_error(result)
    assert (db.read_bytes() if db.exists() else None) == content


async def test_a_target_is_not_set_for_a_table_that_no_export_wrote(db: Path) -> None:
    """Only tables in the ledger count, so the user's own table is refused and the file is unchanged."""
    query(db, "CREATE TABLE mine AS SELECT 1")
    for words in ([], ["--table", "mine"]):
        assert mpx("status", str(db), "--set-target", "2024-03-01..2024-03-05", *words).exit_code == 4
    assert query(db, "SHOW TABLES") == [("mine",)]
