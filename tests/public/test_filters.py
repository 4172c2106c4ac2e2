"""Empty filters and too many workers, as mixpanel_data's scripts pass them."""

from pathlib import Path
from typing import Any

import anyio
import pytest
import workspaces
from examples import slow
from shell import environment as shell_environment
from shell import mpx
from support import export, held, simulator, truth
from workspaces import DAYS, FIRST, LAST, Served, checksum_of

from mixpanel_export import ArgumentError

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served


@pytest.mark.parametrize("filters", [{"events": []}, {"where": " "}, *slow([{"events": ()}, {"where": ""}])])
def test_an_empty_filter_selects_all_events(filters: dict[str, Any], served: Served) -> None:
    """As in mixpanel_data; the table can then be resumed without a filter."""
    served.workspace.fetch_events(**DAYS, **filters)
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, LAST).checksum
    assert {"event", "where"}.isdisjoint(served.simulator.requests[0].params)
    served.workspace.fetch_events(**DAYS, resume=True)
    assert served.requests() == 1


def test_an_empty_expression_is_no_filter_of_a_stream(served: Served) -> None:
    """The stream has all events."""
    rows = sum(1 for _ in served.workspace.stream_events(**DAYS, where=""))
    assert rows == served.simulator.truth(FIRST, LAST).rows


@pytest.mark.parametrize("names", [iter(()), map(str, ())])
def test_an_exhausted_iterable_is_refused(names: Any, served: Served) -> None:
    """It may be empty by mistake, and nothing is requested."""
    with pytest.raises(ArgumentError) as caught:
        served.workspace.fetch_events(**DAYS, events=names)
    assert (caught.value.argument, served.requests()) == ("events", 0)


@pytest.mark.parametrize(
    "argument, value", [("events", []), ("events", iter(())), ("where", ""), ("where", " ")]
)
def test_export_events_refuses_empty_filters(argument: str, value: Any, tmp_path: Path) -> None:
    """In this function, only None selects all events."""
    sim = simulator()
    with pytest.raises(ArgumentError) as caught:
        anyio.run(lambda: export(sim, tmp_path / "x.duckdb", **{argument: value}))
    assert (caught.value.argument, sim.requests) == (argument, [])


def test_the_shell_takes_an_empty_expression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--where ''`, for example from an unset variable in a script, selects all events."""
    sim = simulator()
    with shell_environment(sim, tmp_path, monkeypatch):
        result = mpx("export", "--from", "2024-03-01", "--to", "2024-03-03", "--where", "")
    assert result.exit_code == 0, result.output
    assert held(tmp_path / "events.duckdb") == truth(sim, "2024-03-01", "2024-03-03")


def test_too_many_workers_are_capped(served: Served) -> None:
    """The export runs with Mixpanel's limit, and a warning says so."""
    with pytest.warns(UserWarning, match="150 workers"):
        served.workspace.fetch_events(**DAYS, parallel=True, max_workers=150)
    assert checksum_of(served.workspace) == served.simulator.truth(FIRST, LAST).checksum
