"""Requests pages of profiles from Mixpanel's Engage API.

The response for page 0 contains the id of a session, which is a parameter of the requests for the other pages
(openapi/query.openapi.yaml). Requests with a session id do not count against the hourly quota (mixpanel-headless).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mixpanel_export._source.profile_page import ProfilePage, parse_page
from mixpanel_export._source.query_api import Query, QueryApi

_PATH = "/engage"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileSelection:
    """The profiles that an export requests. None means no restriction, or Mixpanel's default."""

    project: str
    where: str | None = None
    cohort: int | None = None
    properties: tuple[str, ...] | None = None
    distinct_ids: tuple[str, ...] | None = None
    group: str | None = None
    include_all_users: bool | None = None
    behaviors: str | None = None
    """As JSON text."""
    as_of_timestamp: int | None = None

    @property
    def form(self) -> dict[str, str]:
        """The parameters that select these profiles."""
        values: dict[str, Any] = {
            "where": self.where,
            "filter_by_cohort": None if self.cohort is None else _json({"id": self.cohort}),
            "output_properties": None if self.properties is None else _json(self.properties),
            "distinct_ids": None if self.distinct_ids is None else _json(self.distinct_ids),
            "data_group_id": self.group,
            "include_all_users": None
            if self.include_all_users is None
            else str(self.include_all_users).lower(),
            "behaviors": self.behaviors,
            "as_of_timestamp": self.as_of_timestamp,
        }
        return {name: str(value) for name, value in values.items() if value is not None}

    def __str__(self) -> str:
        """The selection as the ledger stores it: the parameters as a JSON object."""
        return _json(self.form)


@dataclass(frozen=True, slots=True)
class Session:
    """A query whose pages Mixpanel keeps for a while."""

    id: str | None
    """None if all profiles are on page 0."""
    total: int
    page_size: int

    @property
    def pages(self) -> int:
        """The number of pages."""
        return max(1, -(-self.total // self.page_size))

    def is_full(self, page: ProfilePage) -> bool:
        """Return whether another page may follow *page*."""
        return page.entries >= self.page_size


async def fetch_page(
    api: QueryApi, selection: ProfileSelection, number: int, session: Session | None
) -> ProfilePage:
    """Request one page. For page 0, *session* is None.

    Raises:
        SessionEvictedError: Mixpanel no longer has the session's pages.
        APIError: See `QueryApi.send`.
    """
    form = selection.form | {"page": str(number)}
    if session is not None and session.id is not None:
        form["session_id"] = session.id
    query = Query(_PATH, form, "POST", counted="session_id" not in form, personal=True)
    return await api.send(query, _parser(number))


def session_of(page: ProfilePage) -> Session:
    """Return the session that page 0 opened."""
    entries = page.entries
    total = entries if page.total is None else page.total
    return Session(page.session, total, page.page_size or max(1, entries))


def _parser(number: int) -> Callable[[bytes], ProfilePage]:
    def parse(body: bytes) -> ProfilePage:
        page = parse_page(body)
        if page.number not in {None, number}:
            raise ValueError(f"the response is page {page.number} instead of {number}")
        if number == 0 and page.total is None:
            raise ValueError("the response has no total")
        if number == 0 and page.session is None and page.entries < (page.total or 0):
            raise ValueError("the response has no session")
        return page

    return parse


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
