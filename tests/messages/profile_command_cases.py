"""How to provoke the errors of commands about profiles."""

from collections.abc import Callable
from typing import Any

from old_files import made_with_people
from profile_cases import people as exported
from steps import DEFAULT_ACCOUNT, Place, configured, flattened, forgotten, shell, sql, steps, upgraded
from support import ACCOUNT

from mixpanel_export.cli.sync_profiles import selection_of_table


def people(place: Place) -> None:
    """Have a table of profiles that mixpanel_data exported."""
    made_with_people(place.db)
    upgraded(place)


def syncing(project: str, table: str = "people") -> Callable[[Place], Any]:
    """Return a case for a sync of the table's profiles."""
    return lambda place: selection_of_table(str(place.db), table, project, 0.0)


def fetching(*words: str) -> Callable[[Place], Any]:
    """Return a case for `mpx mp fetch profiles`."""
    return steps(configured(DEFAULT_ACCOUNT), shell("mp", "fetch", "profiles", *words))


PROFILE_COMMAND_CASES: dict[str, Callable[[Place], Any]] = {
    "flatten: events of profiles": steps(people, flattened("people", events=["Sign Up"])),
    "forget: a table of profiles whose columns were changed": steps(
        people, sql("ALTER TABLE people ADD COLUMN mine INTEGER"), forgotten("u1")
    ),
    "mpx profiles: two modes": shell("profiles", "--append", "--replace"),
    "mpx profiles: an empty id": shell("profiles", "--id", ""),
    "mpx sync: profiles of another project": steps(people, syncing("7")),
    "mpx sync: profiles of two selections": steps(
        people,
        sql(
            """INSERT INTO _export_snapshots SELECT * REPLACE ('{"where":"x"}' AS selection) FROM _export_snapshots"""
        ),
        syncing("(unknown)"),
    ),
    "mpx sync: profiles of people who were all forgotten": steps(
        exported(distinct_ids=["u1", "u2"]), forgotten("u1", "u2"), syncing(ACCOUNT.project_id, "profiles")
    ),
    "mpx mp fetch profiles: two modes": fetching("--append", "--replace"),
    "mpx mp fetch profiles: --raw without --stdout": fetching("--raw"),
    "mpx mp fetch profiles: behaviors that are no JSON": fetching("--behaviors", "["),
    "mpx mp fetch profiles: behaviors that are no list": fetching("--behaviors", "3"),
}
