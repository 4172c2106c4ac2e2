"""Requests Mixpanel's own counts of events, by name and day.

According to Mixpanel's documentation (openapi/query.openapi.yaml), a response omits days without events. We assume that
it also omits names without events.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import date

import anyio

from mixpanel_export._concurrency import raise_first_error
from mixpanel_export._model import Chunk
from mixpanel_export._source.query_api import QueryApi
from mixpanel_export.errors import TruncatedError

Counts = dict[tuple[str, date], int]
"""The number of events by name and day, without zeros."""

_MAX_NAMES = 200  # in one request
_MAX_NAME_BYTES = 4_000  # in one request; servers limit the length of a URL
_MAX_COMMON_NAMES = 10_000


async def event_counts(api: QueryApi, names: Sequence[str], days: Chunk) -> Counts:
    """Return Mixpanel's counts of the events *names* on *days*, which are days in the project's reporting time zone.

    Raises:
        APIError: A request failed.
    """
    counts: Counts = {}

    async def count(group: Sequence[str]) -> None:
        params = {
            "event": json.dumps(group, ensure_ascii=False),
            "type": "general",
            "unit": "day",
            "from_date": str(days.first),
            "to_date": str(days.last),
        }
        counts.update(_counts_in(await api.get("/events", params, days), days))

    with raise_first_error():
        async with anyio.create_task_group() as tasks:
            for group in name_groups(names):
                tasks.start_soon(count, group)
    return counts


async def common_names(api: QueryApi, days: Chunk) -> list[str]:
    """Return the names of the most common events of the last 31 days. *days* is used only in error messages.

    Raises:
        APIError: The request failed.
    """
    response = await api.get("/events/names", {"type": "general", "limit": str(_MAX_COMMON_NAMES)}, days)
    if not isinstance(response, list) or not all(isinstance(name, str) for name in response):
        raise _unexpected(response, days)
    return response


def name_groups(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield *names* in groups that fit into one request each."""
    group: list[str] = []
    length = 0
    for name in names:
        if group and (len(group) == _MAX_NAMES or length + len(name.encode()) > _MAX_NAME_BYTES):
            yield group
            group, length = [], 0
        group.append(name)
        length += len(name.encode())
    if group:
        yield group


def _counts_in(response: object, days: Chunk) -> Counts:
    """Return the counts in a response.

    Raises:
        TruncatedError: The response does not have the documented form.
    """
    try:
        return {
            (name, date.fromisoformat(day[:10])): _whole(count)
            for name, by_day in response["data"]["values"].items()  # type: ignore[index] # checked by the except clause
            for day, count in by_day.items()
            if count
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unexpected(response, days) from error


def _whole(count: object) -> int:
    if isinstance(count, bool) or not isinstance(count, int | float) or count != int(count):
        raise TypeError
    return int(count)


def _unexpected(response: object, days: Chunk) -> TruncatedError:
    text = json.dumps(response)[:500]
    return TruncatedError(
        f"the response does not have the documented form: {text[:80]}",
        days=days,
        advice="try again later",
        status_code=200,
        response_body=text,
    )
