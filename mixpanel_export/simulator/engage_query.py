"""Parses the parameters of a request for user profiles."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixpanel_export.simulator.faults import FixedResponse
from mixpanel_export.simulator.query_api import invalid
from mixpanel_export.simulator.where import GRAMMAR, WhereError, compiled_for_profiles

_MAX_IDS = 2000
_MAX_PAGE_SIZE = 100_000


@dataclass(frozen=True, slots=True)
class ProfileSelection:
    """The requested profiles and properties. All pages of a session have the same selection."""

    where: str | None = None
    properties: frozenset[str] | None = None
    ids: frozenset[str] | None = None
    cohort: int | None = None
    include_all_users: bool = True
    group: str | None = None
    behaviors: tuple[str, ...] = ()
    page_size: int | None = None


EVERYONE = ProfileSelection()


@dataclass(frozen=True, slots=True)
class ProfileQuery:
    """The selection, and the requested page of a session. If *session_id* is None, a new session starts."""

    selection: ProfileSelection
    page: int = 0
    session_id: str | None = None
    as_of_timestamp: int | None = field(default=None, kw_only=True)

    @property
    def cacheable(self) -> bool:
        """Whether a session can have more than one page. With behaviors, this requires *as_of_timestamp*."""
        return not self.selection.behaviors or self.as_of_timestamp is not None


class _InvalidError(Exception):
    """The request is invalid."""


def parse_profile_query(params: Mapping[str, str]) -> ProfileQuery | FixedResponse:
    """Return the query of a request with *params*, or an error response if it is invalid."""
    try:
        return ProfileQuery(
            _selection(params),
            _number(params, "page") or 0,
            params.get("session_id") or None,
            as_of_timestamp=_number(params, "as_of_timestamp"),
        )
    except _InvalidError as error:
        return invalid(str(error))


def _selection(params: Mapping[str, str]) -> ProfileSelection:
    where = params.get("where") or None
    if where is not None:
        try:
            compiled_for_profiles(where)
        except WhereError as error:
            raise _InvalidError(f"invalid where: {error}; {GRAMMAR}") from error
    page_size = _number(params, "page_size")
    if page_size is not None and not 1 <= page_size <= _MAX_PAGE_SIZE:
        raise _InvalidError(f"page_size must be between 1 and {_MAX_PAGE_SIZE}")
    behaviors, cohort = _behaviors(params), _cohort(params)
    if behaviors and cohort is not None:
        raise _InvalidError("behaviors and filter_by_cohort are mutually exclusive")
    names = _strings(params, "output_properties")
    include = params.get("include_all_users", "true").lower()
    if include not in {"true", "false", "1", "0"}:
        raise _InvalidError("include_all_users must be true or false")
    return ProfileSelection(
        where=where,
        properties=None if names is None else frozenset(names),
        ids=_ids(params),
        cohort=cohort,
        include_all_users=include in {"true", "1"},
        group=params.get("data_group_id"),
        behaviors=behaviors,
        page_size=page_size,
    )


def _ids(params: Mapping[str, str]) -> frozenset[str] | None:
    """Return the ids in `distinct_id` and `distinct_ids`; None if there is neither."""
    many = _strings(params, "distinct_ids")
    if many is not None and len(many) > _MAX_IDS:
        raise _InvalidError(f"distinct_ids has more than {_MAX_IDS} ids")
    one = params.get("distinct_id")
    if many is None and one is None:
        return None
    return frozenset([*(many or []), *([] if one is None else [one])])


def _cohort(params: Mapping[str, str]) -> int | None:
    if "filter_by_cohort" not in params:
        return None
    value = _json(params, "filter_by_cohort")
    number = value.get("id") if isinstance(value, dict) else None
    if not isinstance(number, int | str) or not re.fullmatch(r"\d{1,18}", str(number), re.ASCII):
        raise _InvalidError('filter_by_cohort must be a JSON object with the "id" of a cohort')
    return int(number)


def _behaviors(params: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names of the behaviors."""
    if "behaviors" not in params:
        return ()
    value = _json(params, "behaviors")
    names = [item.get("name") for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise _InvalidError("behaviors must be a JSON array of objects with a name")
    return tuple(map(str, names))


def _strings(params: Mapping[str, str], name: str) -> list[str] | None:
    """Return the items of a JSON array of strings or numbers as text; None if the parameter is absent."""
    if name not in params:
        return None
    value = _json(params, name)
    if not isinstance(value, list) or not all(isinstance(item, str | int) for item in value):
        raise _InvalidError(f"{name} must be a JSON array of strings")
    return list(map(str, value))


def _json(params: Mapping[str, str], name: str) -> object:
    try:
        return json.loads(params[name])
    except ValueError as error:
        raise _InvalidError(f"{name} is not valid JSON") from error


def _number(params: Mapping[str, str], name: str) -> int | None:
    if name not in params:
        return None
    if not re.fullmatch(r"\d{1,12}", params[name], re.ASCII):
        raise _InvalidError(f"{name} must be a number")
    return int(params[name])
