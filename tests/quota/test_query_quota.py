"""The quota of the Query API, separate from that of exports: in the same file, with its own gate of 5 at a time."""

import sqlite3
from contextlib import closing, suppress
from pathlib import Path

import anyio
import pytest
import quota_files
from gates import Clock as GateClock
from gates import answered, gate_on
from quota_files import Clock, Open, taken

from mixpanel_export._quota.gate import Gate
from mixpanel_export._quota.limits import Quota
from mixpanel_export._quota.shared import Key
from mixpanel_export.errors import ArgumentError, ConfigError

clock = quota_files.clock
path = quota_files.path
handle = quota_files.handle

EXPORTS = Key("mixpanel.test", "12345")
QUERIES = Key("mixpanel.test", "12345", "query")


def test_each_api_of_a_host_has_its_own_hour(handle: Open, clock: Clock) -> None:
    """Requests and pauses of one API do not affect the other, even for the same host and project."""
    exports, queries = handle(key=EXPORTS, per_hour=1), handle(key=QUERIES, per_hour=2)
    taken(exports)
    assert exports.take_slot().ticket is None
    taken(queries)
    queries.pause(60.0)
    assert exports.read().pause == 0.0
    clock.pass_(61.0)
    taken(queries)
    assert queries.take_slot().ticket is None
    assert handle(key=QUERIES).read().remaining == 1  # another process, with a limit of 3


def test_a_file_of_an_earlier_release_is_used_unchanged(handle: Open, path: Path) -> None:
    """Earlier releases write the table of exports, which keeps its eight columns."""
    taken(handle(key=EXPORTS))
    taken(handle(key=QUERIES))
    with closing(sqlite3.connect(path)) as connection:
        tables = dict(connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'"))
        columns = [row[1] for row in connection.execute("PRAGMA table_info(entries)")]
    assert tables.keys() >= {"entries", "query_entries"}
    assert columns == ["id", "host", "project", "kind", "pid", "boot", "elapsed", "wall"]


@pytest.fixture
def gate() -> Gate:
    """A gate for 2 requests at a time, without other limits."""
    return Gate(Quota(0, 0, concurrent=2))


@pytest.mark.anyio
async def test_no_more_requests_are_in_progress_than_allowed(gate: Gate) -> None:
    """A caller waits until another one's request has ended, in any way."""
    running = most = done = 0

    async def request(number: int) -> None:
        nonlocal running, most, done
        with suppress(ZeroDivisionError):
            async with gate.admission() as admission:
                await admission.admit()
                running += 1
                most = max(most, running)
                await anyio.sleep(0.001)
                running -= 1
                assert 1 / (number % 3)
        done += 1

    async with anyio.create_task_group() as tasks:
        for number in range(9):
            tasks.start_soon(request, number)
    assert (most, done) == (2, 9)


@pytest.mark.anyio
async def test_a_cancelled_caller_leaves_its_place(gate: Gate) -> None:
    """A caller that gives up while it waits does not take a slot from those after it."""
    async with gate.admission(), gate.admission():
        with anyio.move_on_after(0.01) as scope:
            async with gate.admission():
                pytest.fail("admitted")
        assert scope.cancelled_caught
    async with gate.admission(), gate.admission():
        pass


@pytest.mark.anyio
async def test_exports_have_no_limit_of_their_own() -> None:
    """Without `concurrent`, any number of requests may be in progress."""
    gate = gate_on(GateClock(), 0, 0)
    async with gate.admission(), gate.admission(), gate.admission():
        assert await answered(gate)


def test_the_limits_come_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 queries an hour and 5 at a time, unless the hourly number is set."""
    assert Quota.for_queries() == Quota(0, 60, api="query", concurrent=5)
    monkeypatch.setenv("MPX_QUERY_PER_HOUR", "400")
    assert Quota.for_queries().per_hour == 400
    assert Quota.for_queries(7, max_wait=1.0) == Quota(0, 7, 1.0, "query", 5)
    monkeypatch.setenv("MPX_QUERY_PER_HOUR", "many")
    with pytest.raises(ConfigError, match="MPX_QUERY_PER_HOUR"):
        Quota.for_queries()
    with pytest.raises(ArgumentError):
        Quota.for_queries(-1)
