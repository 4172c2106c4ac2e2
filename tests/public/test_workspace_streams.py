"""`stream_events` of a workspace, and the arguments that it shares with fetches."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import workspaces
from anyio.from_thread import BlockingPortal
from examples import slow
from loops import inside_asyncio, plainly
from workspaces import COLUMNS, CREDENTIALS, DAYS, FIRST, LAST, Served, first_wins, in_order, serving

from mixpanel_export import (
    AuthenticationError,
    NetworkError,
    RateLimitError,
    ServerError,
    Timeouts,
    Workspace,
)
from mixpanel_export.simulator import Fault, Simulator

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served


@pytest.mark.parametrize("where", [plainly, inside_asyncio])
def test_a_raw_stream_is_what_mixpanel_sent(
    where: Callable[[Callable[[], list[dict[str, Any]]]], list[dict[str, Any]]], served: Served
) -> None:
    """raw=True yields every object in Mixpanel's response, including duplicates, and stores nothing."""
    found = where(lambda: list(served.workspace.stream_events(**DAYS, raw=True)))
    sent = [json.loads(line, object_pairs_hook=first_wins) for line in served.simulator.lines(FIRST, LAST)]
    assert in_order(found) == in_order(sent)
    assert len(found) == served.simulator.truth(FIRST, LAST).rows
    assert not served.workspace.db_path.exists()


def test_a_stream_agrees_with_the_table(portal: BlockingPortal, tmp_path: Path) -> None:
    """If nothing is sent twice, the stream has the rows of the table: the same names, times, ids, properties."""
    simulator = Simulator(events_per_day=60, duplicates=0, odd=0.3, per_second=0, per_hour=0)
    with serving(portal, tmp_path / "events.duckdb", simulator) as served:
        served.workspace.fetch_events(**DAYS)
        table = served.workspace.sql_rows(f"SELECT {COLUMNS} FROM events").to_dicts()
        streamed = list(served.workspace.stream_events(**DAYS))
    for row in table:
        time, properties = row["event_time"], row["properties"]
        assert isinstance(properties, str)
        row["properties"] = json.loads(properties, object_pairs_hook=first_wins)
        row["event_time"] = time.replace(tzinfo=UTC) if isinstance(time, datetime) else None
    assert list(streamed[0]) == ["event_name", "event_time", "distinct_id", "insert_id", "properties"]
    assert in_order(streamed) == in_order(table)


@pytest.mark.parametrize("zone, hours", [(None, -9), ("US/Pacific", 8), *slow([("UTC", 0)])])
def test_the_zone_of_a_project_holds_for_fetches_and_streams(
    zone: str | None, hours: int, portal: BlockingPortal, tmp_path: Path
) -> None:
    """Table and stream have the same UTC times, from the zone of the workspace, or else of the credentials."""
    simulator = Simulator(events_per_day=40, duplicates=0, odd=0, per_second=0, per_hour=0)
    legacy = replace(CREDENTIALS, project_timezone="Asia/Tokyo")
    with (
        serving(portal, tmp_path / "utc.duckdb", simulator) as served,
        Workspace(
            path=tmp_path / "local.duckdb", credentials=legacy, api_url=served.url, project_timezone=zone
        ) as workspace,
    ):
        shift = timedelta(hours=hours)
        shifted = sorted(event["event_time"] + shift for event in served.workspace.stream_events(**DAYS))
        assert sorted(event["event_time"] for event in workspace.stream_events(**DAYS)) == shifted
        workspace.fetch_events(**DAYS)
        times = workspace.sql_rows("SELECT event_time FROM events ORDER BY 1").rows
        assert [time for (time,) in times] == [time.replace(tzinfo=None) for time in shifted]


def test_a_stream_checks_its_zone(served: Served) -> None:
    """An invalid zone is rejected at the call, before any request."""
    with (
        Workspace(
            path=served.workspace.db_path, credentials=CREDENTIALS, api_url=served.url, project_timezone="PST"
        ) as workspace,
        pytest.raises(ValueError, match="project_timezone must be an IANA name"),
    ):
        workspace.stream_events(**DAYS)
    assert served.requests() == 0


def test_a_stream_begins_again_when_it_was_not_whole(served: Served) -> None:
    """After a truncated response, the range is requested again, and no line of the first response is yielded."""
    served.simulator.faults = [Fault("terminated_early", times=1)]
    found = list(served.workspace.stream_events(**DAYS))
    assert served.requests() == 2
    assert len(found) == served.simulator.truth(FIRST, LAST).rows


def test_a_stream_that_fails_yields_nothing(served: Served) -> None:
    """The error of a stream that cannot be fetched is raised before its first event."""
    served.simulator.faults = [Fault("401")]
    with pytest.raises(AuthenticationError):
        next(served.workspace.stream_events(**DAYS))


def test_max_wait_is_an_argument_of_fetches_and_streams(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the hour is used up, *max_wait* limits the wait, and missing events are an error."""
    monkeypatch.setenv("MPX_PER_HOUR", "3")
    workspace = served.workspace
    result = workspace.fetch_events(
        **DAYS, parallel=True, chunk_days=4, progress=False, max_wait=0, on_batch_complete=None
    )
    assert (result.successful_batches, result.failed_batches) == (3, 1)
    assert isinstance(result.errors[0], RateLimitError)
    with pytest.raises(RateLimitError, match="exceeds the maximum wait"):
        workspace.fetch_events("other", **DAYS, max_wait=0)
    with pytest.raises(RateLimitError):
        next(workspace.stream_events(**DAYS, max_wait=0))
    assert served.requests() == 3


def test_retries_are_an_argument_of_streams(served: Served) -> None:
    """With 0, a stream fails immediately."""
    served.simulator.faults = [Fault("500")]
    with pytest.raises(ServerError):
        next(served.workspace.stream_events(**DAYS, retries=0))
    assert served.requests() == 1


@pytest.mark.parametrize("streams", [False, True])
def test_timeouts_are_those_of_the_workspace(served: Served, tmp_path: Path, streams: bool) -> None:
    """Each request of a workspace is given up after the workspace's timeout."""
    served.simulator.faults = [Fault("stall")]
    file, timeouts = tmp_path / "x.duckdb", Timeouts(idle=0.2)
    with (
        Workspace(path=file, credentials=CREDENTIALS, api_url=served.url, timeouts=timeouts) as workspace,
        pytest.raises(NetworkError),
    ):
        if streams:
            next(workspace.stream_events(**DAYS, retries=0))
        else:
            workspace.fetch_events(**DAYS, retries=0)


def test_a_stream_checks_its_limit(served: Served) -> None:
    """A limit out of range is rejected at the call."""
    with pytest.raises(ValueError, match="limit must be at least 1, got 0"):
        served.workspace.stream_events(**DAYS, limit=0)
