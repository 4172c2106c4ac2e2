"""A small share of the torture; `nox -s torture` runs all of it."""

import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from random import Random

import pytest
from examples import slow
from torture.bugs import BUGS, ROOT
from torture.child import (
    CALLS,
    FLATTEN_STATEMENTS,
    FORGET_STATEMENTS,
    POINTS,
    PROFILE_STATEMENTS,
    STATEMENTS,
    recorded_statements,
)
from torture.fuzz import decode_mutations, export_mutation
from torture.kills import kills
from torture.plan import Plan
from torture.project import Export
from torture.schedules import Run, schedule
from torture.settings import random_settings

from mixpanel_export.simulator import Fault


@pytest.mark.parametrize("seed", [0, *slow(range(1, 8))])
def test_the_table_is_exact_after_every_step(seed: int) -> None:
    """Exports in all modes, each under random faults, leave complete batches, and finally exactly the truth."""
    tally = schedule(seed)
    assert tally.failures == []
    assert tally.exports


def test_a_forgotten_person_stays_away_from_a_continued_replacement(tmp_path: Path) -> None:
    """A replacement that failed and continues keeps complete days without the person, and the torture accepts it."""
    run = Run(Random(3), tmp_path, stable=True)
    run.project.now += timedelta(days=30)  # all days are final
    first, last = run.project.days[0], run.project.days[-1]
    options = {"retries": 0, "chunk_days": 1, "project_timezone": run.project.zone}
    replacement = Export("events", "replace", first, last, options=options)
    assert run.export(replacement, [Fault("500", first=last)]).failed
    person = run.model.persons()[0]
    run.forget(person)
    run.replace_all()
    assert person in run.model.persons()


if os.name == "posix":  # kills need SIGKILL and fork

    @pytest.mark.parametrize("seed", [*range(2), *slow(range(2, 8))])
    def test_a_killed_export_leaves_complete_batches(seed: int) -> None:
        """Wherever an export is killed, its file has complete batches, and the next export fetches exactly the rest."""
        tally = kills(seed)
        assert tally.failures == []
        assert tally.kills or tally.missed


def test_a_mutated_body_is_an_error_or_exactly_its_lines() -> None:
    """Whatever happens to the bytes of a body, no line is lost, duplicated or changed without an error."""
    tally = decode_mutations(1, 2000)
    assert tally.failures == []
    assert tally.mutations == 2000


@pytest.mark.parametrize("seed", [*range(2), *slow(range(2, 4))])
def test_a_mutated_body_is_stored_exactly_or_not_at_all(seed: int) -> None:
    """The table has each line of a mutated body, or nothing and a failed batch."""
    assert export_mutation(seed).failures == []


def test_a_point_without_a_kill_is_reported() -> None:
    """If a full run never kills a process at a point, the point is named."""
    plan = Plan(seed=1, schedules=0, kills=200, files=0, mutations=0, written=0)
    everywhere = Counter(dict.fromkeys(POINTS, 10))
    assert not plan.missing(everywhere)
    for point in POINTS:
        assert point in plan.missing(everywhere - Counter({point: 10}))


@pytest.mark.parametrize("path", CALLS.values(), ids=CALLS)
def test_the_calls_of_the_points_exist(path: str) -> None:
    """Each point in the exporter names a method that exists."""
    module, owner, name = path.rsplit(".", 2)
    assert callable(getattr(getattr(import_module(f"mixpanel_export.{module}"), owner), name))


def test_the_statements_of_the_points_are_run() -> None:
    """Each point in DuckDB names a statement that some schedule runs."""
    patterns = STATEMENTS | FORGET_STATEMENTS | FLATTEN_STATEMENTS | PROFILE_STATEMENTS
    missing = set(patterns)
    for seed in (2, 16, 34):  # short schedules that together run all of them
        with recorded_statements() as statements:
            assert schedule(seed).failures == []
        missing -= {
            name for name in missing if any(map(re.compile(patterns[name], re.DOTALL).match, statements))
        }
    assert not missing


@pytest.mark.parametrize("changes", BUGS.values(), ids=BUGS)
def test_the_bugs_can_be_inserted(changes: Mapping[str, tuple[str, str]]) -> None:
    """Each bug replaces text that its file has exactly once."""
    for name, (before, _) in changes.items():
        assert (ROOT / "mixpanel_export" / name).read_text(encoding="utf-8").count(before) == 1


def test_small_settings_are_drawn_often() -> None:
    """Each size is below that of a day in a quarter to three quarters of all settings."""
    drawn = [random_settings(Random(seed)).tuning for seed in range(1000)]
    for name in (
        "plain_budget",
        "segment_size",
        "columns_memory",
        "backlog",
        "group_rows",
        "group_size",
    ):
        assert 250 < sum(getattr(tuning, name) <= 20_000 for tuning in drawn) < 750
