"""How to provoke the errors of exports and streams of profiles."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
from steps import Place, steps
from support import ACCOUNT, NOW, Body, query, simulator

from mixpanel_export import export_profiles
from mixpanel_export._profiles.job import ProfileArguments, checked_query
from mixpanel_export._profiles.stream import fetch_pages, iter_profiles
from mixpanel_export.simulator import Fault, ProfileRules, Simulator


def project(*faults: Fault) -> Simulator:
    """Return a project with three pages of profiles."""
    rules = ProfileRules(page_size=10)
    return simulator(profiles=25, profile_rules=rules, queries_per_hour=0, profile_faults=list(faults))


def people(sim: Simulator | None = None, **options: Any) -> Callable[[Place], Any]:
    """Return a case for an export of profiles with these options of `export_profiles`."""
    defaults: dict[str, Any] = {
        "credentials": ACCOUNT,
        "api_url": "http://127.0.0.1",
        "retries": 0,
        "per_hour": 0,
        "transport": (sim or project()).transport(),
        "now": lambda: NOW,
    }
    export = partial(export_profiles, **(defaults | options))
    return lambda place: anyio.run(partial(export, db=place.db))


def changed(statements: str, **options: Any) -> Callable[[Place], Any]:
    """Return a case for an export into a file with profiles that was changed in SQL."""
    return steps(people(), lambda place: query(place.db, statements), people(**options))


def fetched(**options: Any) -> Callable[[Place], Any]:
    """Return a case for wrong arguments of `Workspace.fetch_profiles`."""
    return lambda place: place.workspace().fetch_profiles(**options)


def streamed(sim: Simulator, body: bytes | None = None) -> Callable[[Place], Any]:
    """Return a case for a stream of the profiles of *sim*, or of one page with this body."""
    transport = (
        sim.transport()
        if body is None
        else httpx.MockTransport(lambda _: httpx.Response(200, stream=Body([body])))
    )
    arguments = ProfileArguments(credentials=ACCOUNT, api_url="http://127.0.0.1", per_hour=0)
    fetch = partial(fetch_pages, checked_query(arguments), transport=transport)

    def case(_: Place) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return list(iter_profiles(lambda *page: anyio.run(fetch, *page), raw=True, at_once=5))

    return case


PROFILE_CASES: dict[str, Callable[[Place], Any]] = {
    "export_profiles: no workers": people(max_workers=0),
    "export_profiles: fewer than no retries": people(retries=-1),
    "export_profiles: a wait that is no number": people(wait=float("nan")),
    "export_profiles: a mode of events": people(mode="resume"),
    "export_profiles: an internal table": people(table="_mine"),
    "export_profiles: an empty filter": people(where=" "),
    "export_profiles: a filter that is not Unicode": people(where="\ud800"),
    "export_profiles: a cohort by name": people(cohort="Friends"),
    "export_profiles: everybody without a cohort": people(include_all_users=True),
    "export_profiles: behaviors of a cohort": people(cohort=1, behaviors=[]),
    "export_profiles: one id as text": people(distinct_ids="a"),
    "export_profiles: no ids": people(distinct_ids=[]),
    "export_profiles: too many ids": people(distinct_ids=map(str, range(2001))),
    "export_profiles: a table that exists": steps(people(), people()),
    "export_profiles: a table of something else": steps(
        people(), lambda place: query(place.db, "CREATE TABLE mine (a INTEGER)"), people(table="mine")
    ),
    "export_profiles: replacing something else": changed(
        "CREATE TABLE mine (a INTEGER)", table="mine", mode="replace"
    ),
    "export_profiles: no such table": changed("SELECT 1", table="profile", mode="append"),
    "export_profiles: a table that was changed": changed(
        "ALTER TABLE profiles ADD COLUMN mine INTEGER", mode="append"
    ),
    "export_profiles: profiles of another project": changed(
        "UPDATE _export_snapshots SET project = '7'", mode="append"
    ),
    "export_profiles: an empty replacement": changed(
        "SELECT 1", mode="replace", where='properties["none"] == 1'
    ),
    "export_profiles: sessions that are evicted": people(project(Fault("session_evicted"))),
    "export_profiles: profiles that change": people(project(Fault("total_too_high"))),
    "export_profiles: a page of another number": people(project(Fault("wrong_page"))),
    "export_profiles: a page that is cut": people(project(Fault("cut_line"))),
    "export_profiles: a page that is an error": people(project(Fault("error_line", pages=(1,)))),
    "export_profiles: a plan without queries": people(project(Fault("402"))),
    "export_profiles: a page that is refused": people(project(Fault("403", pages=(1,), text="no access"))),
    "fetch_profiles: one id and several": fetched(distinct_id="a", distinct_ids=["b"]),
    "fetch_profiles: everybody without a cohort": fetched(include_all_users=True),
    "fetch_profiles: two modes": fetched(append=True, replace=True),
    "stream_profiles: profiles that change": streamed(project(Fault("profile_skipped", pages=(1,)))),
    "stream_profiles: an entry that is none": streamed(project(), b'{"results":[3],"total":1}'),
}
"""Cases by name."""
