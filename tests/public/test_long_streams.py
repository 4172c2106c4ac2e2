"""`stream_events` over any number of days: chunk by chunk, each proven complete, with advice that works."""

import inspect
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import workspaces
from anyio.from_thread import BlockingPortal
from workspaces import Days, Served, serving

from mixpanel_export import ArgumentError, MixpanelDataError, RateLimitError, ServerError, Workspace
from mixpanel_export.simulator import Fault, Simulator

portal = workspaces.portal
environment = workspaces.environment

YEAR: Days = {"from_date": "2023-01-01", "to_date": "2023-12-31"}
CHUNKS = [
    ("2023-01-01", "2023-04-10"),
    ("2023-04-11", "2023-07-19"),
    ("2023-07-20", "2023-10-27"),
    ("2023-10-28", "2023-12-31"),
]
FIRST_CHUNK = date(2023, 1, 1), date(2023, 4, 10)


@pytest.fixture
def served(portal: BlockingPortal, tmp_path: Path) -> Iterator[Served]:
    simulator = Simulator(events_per_day=3, duplicates=0.1, per_second=0, per_hour=0)
    with serving(portal, tmp_path / "events.duckdb", simulator) as served:
        yield served


def requested(served: Served) -> list[tuple[str, str]]:
    return [(log.params["from_date"], log.params["to_date"]) for log in served.simulator.requests]


def test_a_stream_may_be_longer_than_a_request(served: Served) -> None:
    """A year takes four requests, and has every event."""
    rows = sum(1 for _ in served.workspace.stream_events(**YEAR))
    assert rows == served.simulator.truth(date(2023, 1, 1), date(2023, 12, 31)).rows
    assert requested(served) == CHUNKS


def test_a_chunk_is_requested_when_its_first_event_is_due(served: Served) -> None:
    """Nothing is requested in advance, and nothing more after the stream is abandoned."""
    stream = served.workspace.stream_events(**YEAR)
    assert requested(served) == []
    for _ in range(served.simulator.truth(*FIRST_CHUNK).rows):
        next(stream)
    assert requested(served) == CHUNKS[:1]
    next(stream)
    del stream
    assert requested(served) == CHUNKS[:2]


def test_an_error_follows_the_events_of_proven_chunks(served: Served) -> None:
    """Events before the failed chunk are yielded, those of the failed chunk are not, and the error has its days."""
    served.simulator.faults = [Fault("500", first=date(2023, 7, 19), last=date(2023, 7, 19))]
    stream = served.workspace.stream_events(**YEAR, retries=0)
    rows = 0
    with pytest.raises(ServerError) as caught:
        for _ in stream:
            rows += 1
    assert rows == served.simulator.truth(*FIRST_CHUNK).rows
    assert str(caught.value.days) == " to ".join(CHUNKS[1])


def test_a_limit_counts_over_all_chunks(served: Served) -> None:
    """Each request has the rest of the limit, and none is sent when nothing is left."""
    rows = served.simulator.truth(*FIRST_CHUNK).rows
    for limit, requests in ((rows + 3, [rows + 3, 3]), (rows, [rows])):
        served.simulator.requests.clear()
        assert sum(1 for _ in served.workspace.stream_events(**YEAR, limit=limit)) == limit
        assert [int(log.params["limit"]) for log in served.simulator.requests] == requests


def test_an_empty_answer_is_not_believed_at_once(served: Served) -> None:
    """After an empty response, the chunk is requested again, and has its events."""
    served.simulator.faults = [Fault("empty_200", times=1)]
    rows = sum(1 for _ in served.workspace.stream_events(**YEAR))
    assert rows == served.simulator.truth(date(2023, 1, 1), date(2023, 12, 31)).rows
    assert requested(served) == [CHUNKS[0], *CHUNKS]


def test_two_empty_answers_are_believed_with_a_warning(served: Served) -> None:
    """The warning names the days, which are skipped."""
    served.simulator.faults = [Fault("empty_200", last=FIRST_CHUNK[1])]
    with pytest.warns(UserWarning, match="2023-01-01 to 2023-04-10"):
        rows = sum(1 for _ in served.workspace.stream_events(**YEAR))
    assert rows == served.simulator.truth(date(2023, 4, 11), date(2023, 12, 31)).rows


@pytest.mark.parametrize("kind", ["402", "403", "413", "429", "cut_line", "timeout_error"])
def test_advice_names_arguments_that_a_stream_has(kind: Any, served: Served) -> None:
    """No error of a stream suggests an argument of other functions."""
    known = {
        name
        for call in (Workspace.stream_events, Workspace.__init__)
        for name in inspect.signature(call).parameters
    }
    text = "Too many exports in progress" if kind == "429" else None
    served.simulator.faults = [Fault(kind, text=text)]
    with pytest.raises(MixpanelDataError) as caught:
        next(served.workspace.stream_events(**YEAR, retries=0, max_wait=0))
    assert caught.value.advice is not None
    assert caught.value.advice.arguments <= known
    assert caught.value.details["suggestion"] == caught.value.advice


def test_too_few_requests_of_the_hour_end_a_stream(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error suggests a longer wait, with an argument that streams have."""
    monkeypatch.setenv("MPX_PER_HOUR", "1")
    stream = served.workspace.stream_events(**YEAR, max_wait=0)
    with pytest.raises(RateLimitError) as caught:
        list(stream)
    assert caught.value.argument == "max_wait"


def test_a_stream_checks_its_arguments_at_the_call(served: Served) -> None:
    """Future days and an empty selection are rejected before any request."""
    days: dict[str, Any] = dict(YEAR)
    empty: Any = iter(())
    for arguments in (days | {"to_date": "2999-01-01"}, days | {"events": []}, days | {"events": empty}):
        with pytest.raises(ArgumentError):
            served.workspace.stream_events(**arguments)
    assert requested(served) == []
