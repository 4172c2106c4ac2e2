"""A report without examples has no personal data."""

from pathlib import Path

import pytest
from examples import slow
from report_pages import CONTROL, create_database, report_data

from mixpanel_export import Workspace
from mixpanel_export._report.page import render
from mixpanel_export._report.personal import failure_reason


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_database(tmp_path / "events.duckdb")


@pytest.mark.parametrize("flat", [True, *slow([False])])
def test_no_value_is_in_the_page(path: Path, flat: bool) -> None:
    """No value of a property, no id, no line, no filter and no text of a response is anywhere in the file."""
    if flat:
        with Workspace(path=path) as workspace:
            workspace.flatten()
    data = report_data(path)
    assert len(data.tables) == 2
    assert CONTROL not in render(data)
    assert CONTROL not in repr(data)
    assert str(path.parent) not in render(data)


def test_examples_have_the_values(path: Path) -> None:
    """With examples, the page has ids and properties of duplicates, lines, the filter and the reason of a failure."""
    data = report_data(path, examples=True)
    table, filtered = data.tables
    assert {duplicate.distinct_id for duplicate in table.quality.duplicates} == {CONTROL}
    assert all(CONTROL in (duplicate.properties or "") for duplicate in table.quality.duplicates)
    assert {reject.line for reject in table.quality.rejects} == {CONTROL}
    assert CONTROL in filtered.calendars[0].selection
    assert CONTROL in table.calendars[0].failures[0].reason
    assert render(data).count(CONTROL) > len(table.quality.duplicates)


@pytest.mark.parametrize(
    "error, shown",
    [
        ("Mixpanel answered 500: no text; try again later", "Mixpanel answered 500"),
        ("Mixpanel answered without a body, twice", "Mixpanel answered without a body, twice"),
        ("Write failed: Conversion Error: could not convert 'ada'", "Write failed"),
        (None, None),
    ],
)
def test_a_reason_ends_before_the_data(error: str | None, shown: str | None) -> None:
    """Without examples, a reason ends at its first colon."""
    assert failure_reason(error, examples=False) == shown
