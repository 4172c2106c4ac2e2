"""Results have mixpanel_data's fields, in its order."""

import copy
import json
import pickle
import sys
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export.errors import (
    DatabaseLockedError,
    DatabaseNotFoundError,
    ExportRunningError,
    LedgerMismatchError,
    MixpanelDataError,
    ServerError,
    TableExistsError,
)
from mixpanel_export.inspection import (
    ColumnInfo,
    ColumnStatsResult,
    ColumnSummary,
    EventBreakdownResult,
    EventStats,
    SQLResult,
    SummaryResult,
    TableSchema,
    WorkspaceInfo,
)
from mixpanel_export.results import (
    BatchProgress,
    BatchResult,
    FetchResult,
    ParallelFetchResult,
    Progress,
)

AT = datetime(2024, 1, 31, 12, tzinfo=UTC)
BATCH = BatchProgress("2024-01-01", "2024-01-07", 0, 5, 12, success=True)
RESULT = BatchResult("2024-01-01", "2024-01-07", 0, success=False, error="broke")
PARALLEL = ParallelFetchResult("events", 12, 1, 1, (("2024-01-08", "2024-01-14"),), 1.5, AT)
FETCH = FetchResult("events", 12, "events", 1.5, ("2024-01-01", "2024-01-07"), AT)


@pytest.mark.parametrize(
    "value, expected",
    [
        (
            BATCH,
            [
                ("from_date", "2024-01-01"),
                ("to_date", "2024-01-07"),
                ("batch_index", 0),
                ("total_batches", 5),
                ("rows", 12),
                ("success", True),
                ("error", None),
            ],
        ),
        (
            RESULT,
            [
                ("from_date", "2024-01-01"),
                ("to_date", "2024-01-07"),
                ("rows", 0),
                ("success", False),
                ("error", "broke"),
            ],
        ),
        (
            PARALLEL,
            [
                ("table", "events"),
                ("total_rows", 12),
                ("successful_batches", 1),
                ("failed_batches", 1),
                ("failed_date_ranges", [["2024-01-08", "2024-01-14"]]),
                ("duration_seconds", 1.5),
                ("fetched_at", "2024-01-31T12:00:00+00:00"),
                ("has_failures", True),
            ],
        ),
        (
            FETCH,
            [
                ("table", "events"),
                ("rows", 12),
                ("type", "events"),
                ("duration_seconds", 1.5),
                ("date_range", ["2024-01-01", "2024-01-07"]),
                ("fetched_at", "2024-01-31T12:00:00+00:00"),
            ],
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_to_dict_has_mixpanel_datas_keys_in_its_order(
    value: Any, expected: Sequence[tuple[str, object]]
) -> None:
    """`to_dict()` has these keys in this order, and its values can be converted to JSON."""
    assert list(value.to_dict().items()) == expected
    assert list(json.loads(json.dumps(value.to_dict())).items()) == expected


@pytest.mark.parametrize(
    "value", [BATCH, RESULT, PARALLEL, FETCH, Progress()], ids=lambda value: type(value).__name__
)
def test_results_do_not_change(value: Any) -> None:
    """No field of a result can be changed."""
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_one_failed_batch_is_a_failure(failed: int) -> None:
    """`has_failures` is whether any batch failed."""
    result = ParallelFetchResult("events", 12, 2 - failed, failed, (), 1.5, AT)
    assert result.has_failures is (failed > 0)


def test_results_are_compared_without_their_errors() -> None:
    """Two results with the same rows and failures are equal; errors would compare by identity."""
    one, other = (
        ParallelFetchResult("events", 12, 1, 1, (), 1.5, AT, errors=(ServerError("broke"),)) for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize(
    "error",
    [
        ServerError("broke", status_code=500, retry_after=2.0),
        DatabaseLockedError("a.db", 7, "held"),
        DatabaseNotFoundError("a.db", "no file"),
        TableExistsError("events", "there"),
        LedgerMismatchError("differs", batch=3),
        ExportRunningError("running"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_out_of_other_processes_as_they_went_in(error: MixpanelDataError) -> None:
    """Pickling and copying preserve the class, the text and every attribute of an error."""
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
    for twin in (pickled, copy.copy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_a_fetch_of_no_range_has_none() -> None:
    """`date_range` stays None if there is none."""
    assert FetchResult("profiles", 3, "profiles", 1.5, None, AT).to_dict()["date_range"] is None
    assert FETCH.row_count == FETCH.rows


def test_a_fetch_has_no_rows_to_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are in the table, so the frame is empty; without pandas, the error names the extra."""
    assert FETCH.df.empty
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"mpx-export\[pandas\].* use Workspace.sql_rows"):
        _ = FETCH.df


def test_rows_are_named() -> None:
    """`to_dicts` returns one dictionary for each row, in order."""
    result = SQLResult(("n", "name"), [(1, "one"), (2, None)])
    assert result.to_dicts() == [{"n": 1, "name": "one"}, {"n": 2, "name": None}]


# In notebooks


class Tags(HTMLParser):
    """The tags, and the text between them for each tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert {name for name, _ in attrs} <= {"style"}
        self.tags.append(tag)
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1] if self.open else "", data))

    def cells(self, *tags: str) -> list[str]:
        return [text for tag, text in self.texts if tag in tags]


def rendered(value: Any) -> Tags:
    """Return what a notebook shows, which must be well-formed."""
    tags = Tags(value._repr_html_())
    assert not tags.open
    return tags


def test_a_notebook_shows_an_export_as_a_small_table() -> None:
    """It has the command line's summary, without zero counts."""
    whole = ParallelFetchResult("events", 1234567, 9, 0, (), 1.25, AT)
    shown = rendered(whole)
    assert shown.cells("th") == ["table", "rows added", "batches", "seconds"]
    assert shown.cells("td") == ["events", "1,234,567", "9 of 9", "1.2"]
    assert shown.cells("caption") == ["exported"]
    assert "none to fetch" in rendered(ParallelFetchResult("events", 0, 0, 0, (), 0.1, AT)).cells("td")


def test_a_notebook_shows_what_failed_and_why() -> None:
    """Each range has its reason, the caption says how to continue, and notes have their own lines."""
    days = ("2024-01-08", "2024-01-14")
    shown = rendered(
        ParallelFetchResult(
            "events",
            12,
            1,
            2,
            (days, days),
            1.5,
            AT,
            added_date_ranges=(days,),
            errors=(ServerError("broke"),),
            removed_duplicates=3,
            rejects=2,
            repaired=1,
        )
    )
    names = ["also fetched", "duplicates removed", "rejects", "repaired", "failed", "failed"]
    assert shown.cells("th")[4:] == names
    span = "2024-01-08 to 2024-01-14"
    assert shown.cells("td")[4:] == [span, "3", "2", "1", f"{span}: broke", f"{span}: failed"]
    assert "resume=True" in shown.cells("caption")[0]


def test_a_notebook_shows_a_fetch_and_rows() -> None:
    """Of many rows, the first are shown and all are counted; NULL looks different from text."""
    assert rendered(FETCH).cells("td") == ["events", "12", "2024-01-01 to 2024-01-07", "1.5"]
    assert "days" not in rendered(FetchResult("profiles", 3, "profiles", 1.5, None, AT)).cells("th")
    shown = rendered(SQLResult(("n", "name"), [(1, "one"), (2, None)]))
    assert shown.cells("th") == ["n", "name"]
    assert shown.cells("td", "em") == ["1", "one", "2", "NULL"]
    assert shown.cells("em") == ["NULL"]
    assert shown.cells("p") == ["2 rows"]
    many = rendered(SQLResult(("n",), [(number,) for number in range(1000)]))
    assert many.cells("td") == [str(number) for number in range(20)]
    assert many.cells("p") == ["the first 20 of 1,000 rows"]
    assert rendered(SQLResult(("n",), [(1,)])).cells("p") == ["1 row"]


def test_a_notebook_shows_what_a_look_into_the_database_finds() -> None:
    """One row for each column, name or value, with a caption; unknown facts are omitted."""
    schema = rendered(TableSchema("events", [ColumnInfo("n", "BIGINT", nullable=True)]))
    assert schema.cells("caption", "td") == ["columns of events", "n", "BIGINT", "True", "False"]
    info = rendered(WorkspaceInfo(Path("a.db"), "7", "eu", None, ["events", "b"], 1.5, None))
    assert info.cells("td", "em") == ["a.db", "7", "eu", "NULL", "events, b", "1.5", "NULL"]
    column = ColumnSummary("n", "BIGINT", "1", "9", 9, 5.0, 1.0, "2", "5", "8", 1200, 0.5)
    assert rendered(SummaryResult("events", 1200, [column])).cells("caption") == ["events: 1,200 rows"]
    stats = EventStats("Sign <up>", 3, 2, AT, None, 100.0)
    breakdown = rendered(EventBreakdownResult("events", 3, 2, (AT, AT), [stats]))
    assert breakdown.cells("caption") == ["events: 3 events of 2 users"]
    assert breakdown.cells("td", "em")[:4] == ["Sign <up>", "3", "2", "2024-01-31 12:00:00+00:00"]
    found = ColumnStatsResult("events", "n", "VARCHAR", 3, 0, 0.0, 1, 33.3, [("<x>", 3)])
    assert "mean" not in rendered(found).cells("th")
    assert rendered(found).cells("td")[-2:] == ["<x>", "3"]


ANY = st.text(st.characters(codec="utf-8")) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "a&amp;b", "<td>\n</table>"]
)


@given(ANY, ANY)
def test_nothing_that_is_shown_becomes_markup(name: str, value: str) -> None:
    """For all names and values, the tags are the table's own, and the values are text, cut off if they are long."""
    plain = {"table", "thead", "tbody", "tr", "th", "td", "p", "caption", "br", "em"}
    shown = rendered(SQLResult((name,), [(value,)]))
    assert set(shown.tags) <= plain
    assert "".join(shown.cells("th")) == name
    cell = "".join(shown.cells("td"))
    wanted = value.replace("\n", "")
    assert cell == wanted or (cell.endswith("…") and wanted.startswith(cell[:-1]) and len(cell) <= 200)
    failed = ParallelFetchResult(name, 0, 0, 1, (("a", "b"),), 1.0, AT, errors=(ServerError(value),))
    assert set(rendered(failed).tags) <= plain
    column = rendered(ColumnStatsResult(name, value, "", 0, 0, 0.0, 0, 0.0))
    assert "".join(column.cells("caption")) == f"a column of {name}"
