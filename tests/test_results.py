"""The values that users receive have mixpanel_data's fields, in its order."""

import copy
import json
import pickle
from collections.abc import Sequence
from dataclasses import FrozenInstanceError, fields
from datetime import UTC, datetime
from typing import Any

import pytest

from mixpanel_export.errors import (
    DatabaseLockedError,
    DatabaseNotFoundError,
    ExportRunningError,
    LedgerMismatchError,
    MixpanelDataError,
    ServerError,
    TableExistsError,
)
from mixpanel_export.results import (
    BatchProgress,
    BatchResult,
    FetchResult,
    ParallelFetchResult,
    Progress,
    SQLResult,
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
    """`to_dict()` gives these keys in this order, and JSON takes the values as they are."""
    assert list(value.to_dict().items()) == expected
    assert list(json.loads(json.dumps(value.to_dict())).items()) == expected


@pytest.mark.parametrize(
    "value", [BATCH, RESULT, PARALLEL, FETCH, Progress()], ids=lambda value: type(value).__name__
)
def test_results_do_not_change(value: Any) -> None:
    """No field of a result can be set again."""
    for field in fields(value):
        with pytest.raises(FrozenInstanceError):
            setattr(value, field.name, None)


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_one_failed_batch_is_a_failure(failed: int) -> None:
    """`has_failures` is whether any batch failed."""
    result = ParallelFetchResult("events", 12, 2 - failed, failed, (), 1.5, AT)
    assert result.has_failures is (failed > 0)


def test_results_are_compared_without_their_errors() -> None:
    """Two results of the same rows and failures are equal, since errors compare by identity."""
    one, other = (
        ParallelFetchResult("events", 12, 1, 1, (), 1.5, AT, errors=(ServerError("broke"),)) for _ in range(2)
    )
    assert one == other


@pytest.mark.parametrize(
    "error",
    [
        ServerError("broke", status_code=500, retry_after=2.0),
        DatabaseLockedError("held", db_path="a.db", holding_pid=7),
        DatabaseNotFoundError("no file", db_path="a.db"),
        TableExistsError("there", table_name="events"),
        LedgerMismatchError("differs", batch=3),
        ExportRunningError("running"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_out_of_other_processes_as_they_went_in(error: MixpanelDataError) -> None:
    """Pickling and copying keep the kind, the text and every attribute of an error."""
    pickled = pickle.loads(pickle.dumps(error))  # noqa: S301 - its own bytes
    for twin in (pickled, copy.copy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_a_fetch_of_no_range_has_none() -> None:
    """`date_range` stays None where there is none."""
    assert FetchResult("profiles", 3, "profiles", 1.5, None, AT).to_dict()["date_range"] is None


def test_rows_are_named() -> None:
    """`to_dicts` gives one dictionary a row, in order."""
    result = SQLResult(("n", "name"), [(1, "one"), (2, None)])
    assert result.to_dicts() == [{"n": 1, "name": "one"}, {"n": 2, "name": None}]
