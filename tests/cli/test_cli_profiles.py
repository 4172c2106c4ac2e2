"""`mpx profiles`, and the commands that know tables of profiles."""

import json
import shlex
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from examples import slow
from shell import environment, mpx, one_error
from support import query, simulator

from mixpanel_export.simulator import Cohort, Fault, ProfileRules, Simulator

PROFILES = 250
RULES = ProfileRules(page_size=100, cohorts=(Cohort(7, 0.1),), groups={"8842763128917389742": 5})


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    sim = simulator(profiles=PROFILES, profile_rules=RULES, now=lambda: datetime.now(UTC))
    with environment(sim, tmp_path, monkeypatch):
        yield sim


def rows_of(db: Path, table: str = "profiles") -> list[tuple[Any, ...]]:
    return query(db, f"SELECT distinct_id, properties, last_seen FROM {table} ORDER BY distinct_id")


def truth(sim: Simulator) -> list[tuple[Any, ...]]:
    """Return the rows of all profiles."""
    return sorted((tuple(row) for row in sim.profile_rows()), key=lambda row: row[0].encode())


def done(result: Result) -> Result:
    assert result.exit_code == 0, result.output
    return result


def words(command: str) -> Sequence[str]:
    """Return the arguments of a command that `mpx` printed."""
    return shlex.split(command)[1:]


def status() -> dict[str, Any]:
    (table,) = json.loads(done(mpx("status", "--json")).stdout)["profiles"]
    return dict(table)


def test_an_export_is_exact_and_prints_one_line(sim: Simulator, db: Path) -> None:
    """Standard output has the table and the counts; standard error has lines about the pages."""
    result = done(mpx("profiles"))
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"profiles in {db}: 250 profiles from 3 pages in ")
    assert [text.split()[2] for text in result.stderr.splitlines()] == ["1/3", "2/3", "3/3"]
    assert rows_of(db) == truth(sim)


def test_many_pages_have_few_lines(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a line for each twentieth of the pages."""
    lines = done(mpx("profiles", "--workers", "1")).stderr.splitlines()
    assert len(lines) == 3
    sim.profile_faults = [Fault("session_evicted", pages=(2,), times=1)]
    lines = done(mpx("profiles", "again", "--workers", "1")).stderr.splitlines()
    assert "1/3" in lines[0]
    assert "3/3" in lines[-1]
    assert len(lines) > 3


def test_a_selection_is_exported(sim: Simulator, db: Path) -> None:
    """Each option restricts the profiles or the properties."""
    done(
        mpx("profiles", "members", "--cohort", "7", "--no-include-all-users", "--properties", "$email,logins")
    )
    expected = sim.profile_truth(cohort=7, include_all_users=False, properties=["$email", "logins"])
    assert dict(query(db, "SELECT distinct_id, properties FROM members")) == expected
    ids = list(expected)[:2]
    done(mpx("profiles", "two", "--id", ids[0], "--id", ids[1]))
    assert sorted(query(db, "SELECT distinct_id FROM two")) == sorted((each,) for each in ids)
    done(mpx("profiles", "groups", "--group", "8842763128917389742"))
    assert query(db, "SELECT count(*) FROM groups") == [(5,)]
    where = 'properties["logins"] > 500'
    done(mpx("profiles", "active", "--where", where))
    assert len(rows_of(db, "active")) == len(sim.profile_truth(where=where))


def test_a_table_is_replaced_or_updated(sim: Simulator, db: Path) -> None:
    """An existing table is an error that names --replace; afterwards the table has the profiles of today."""
    done(mpx("profiles", "-q"))
    result = mpx("profiles", "-q")
    assert (result.exit_code, "--replace" in one_error(result)) == (4, True)
    sim.profile_revision = 1
    printed = done(mpx("profiles", "--replace", "--json"))
    assert json.loads(printed.stdout)["total_rows"] == len(sim.profile_truth())
    assert rows_of(db) == truth(sim)
    sim.profile_revision = 2
    done(mpx("profiles", "--append"))
    assert set(truth(sim)) <= set(rows_of(db))


@pytest.mark.parametrize(
    "fault, code",
    [
        (Fault("402"), 1),
        (Fault("429", retry_after=1), 5),
        *slow([(Fault("401"), 3), (Fault("session_evicted", pages=(1,)), 1)]),
    ],
)
def test_a_failure_keeps_the_table(fault: Fault, code: int, sim: Simulator, db: Path) -> None:
    """The exit code says why, and `mpx status` has the failure and a command that exports the same profiles."""
    where = 'properties["logins"] > 10'
    done(mpx("profiles", "-q", "--where", where))
    before = rows_of(db)
    sim.profile_faults = [fault]
    result = mpx("profiles", "-q", "--replace", "--where", where, "--max-wait", "0", "--retries", "0")
    assert (result.exit_code, result.stdout) == (code, "")
    one_error(result)
    assert rows_of(db) == before
    told = status()
    assert told["failure"]["error"]
    assert told["command"] in mpx("status").stdout
    sim.profile_faults = []
    done(mpx(*words(told["command"])))
    assert status()["failure"] is None
    assert rows_of(db) == before


@pytest.mark.parametrize(
    "wrong",
    [
        ["--replace", "--append"],
        ["--cohort", "abc"],
        ["--where", ""],
        ["--include-all-users"],
        ["--properties", ","],
        ["--id", ""],
        ["--workers", "6"],
    ],
)
@pytest.mark.usefixtures("sim")
def test_wrong_options_are_usage_errors(wrong: list[str], db: Path) -> None:
    """The error names the option, and there is no file."""
    result = mpx("profiles", *wrong)
    assert (result.exit_code, wrong[0] in one_error(result)) == (2, True)
    assert not db.exists()


def test_a_log_has_an_event_for_each_page(sim: Simulator) -> None:
    """With --log-format json, standard error has pages and the result."""
    sim.profile_faults = [Fault("short_page", pages=(1,), times=1)]
    lines = done(mpx("profiles", "--log-format", "json")).stderr.splitlines()
    events = [json.loads(line) for line in lines]
    pages = [event for event in events if event["event"] == "page"]
    assert {page["page_index"] for page in pages} >= {0, 1, 2}
    assert events[-1]["event"] == "result"
    assert events[-1]["profiles"] == PROFILES


def test_a_person_is_forgotten(sim: Simulator, db: Path) -> None:
    """The person leaves profiles, flat tables and the ledger's selections; the counts still agree."""
    ids = list(sim.profile_truth())[:3]
    done(mpx("profiles", "--flatten"))
    done(mpx("profiles", "some", *[word for each in ids for word in ("--id", each)]))
    result = json.loads(done(mpx("forget", ids[0], "--json")).stdout)
    assert {table["table"]: (table["events"], table["type"]) for table in result["tables"]} == {
        "profiles": (1, "profiles"),
        "some": (1, "profiles"),
    }
    assert result["other_tables"] == []
    expected = [row for row in truth(sim) if row[0] != ids[0]]
    assert rows_of(db) == expected
    assert query(db, "SELECT count(*) FROM profiles_flat") == [(PROFILES - 1,)]
    assert query(db, "SELECT count(*) FROM _export_snapshots WHERE contains(selection, ?)".replace("?", f"'{ids[0]}'")) == [(0,)]  # fmt: skip
    told = json.loads(mpx("status", "--json").stdout)
    assert [table["changed_rows"] for table in told["profiles"]] == [0, 0]
    assert told["outdated_flat_tables"] == []


@pytest.mark.usefixtures("db")
def test_nobody_is_exported_in_place_of_forgotten_people(sim: Simulator) -> None:
    """If all people of a selection are forgotten, a sync of it is an error, and `status` names no command."""
    person = next(iter(sim.profile_truth()))
    done(mpx("profiles", "--id", person))
    done(mpx("forget", person))
    assert status()["command"] is None
    result = mpx("sync", "--since", "-2d", "--profiles")
    assert (result.exit_code, "were forgotten" in one_error(result)) == (1, True)


def test_other_commands_know_the_profiles(sim: Simulator, db: Path) -> None:
    """They are listed as profiles, checked, flattened, and in the report."""
    done(mpx("profiles"))
    assert "profiles of project 12345" in done(mpx("status")).stdout
    (table,) = json.loads(done(mpx("mp", "inspect", "tables", "--db", str(db))).stdout)
    assert (table["name"], table["type"], table["row_count"]) == ("profiles", "profiles", PROFILES)
    done(mpx("flatten", "profiles"))
    done(mpx("report", "--out", str(db.with_suffix(".html"))))
    assert "Profiles in table profiles" in db.with_suffix(".html").read_text(encoding="utf-8")
    assert '"problem"' not in done(mpx("doctor", "--offline", "--json")).stdout
    query(db, "DELETE FROM profiles WHERE distinct_id = (SELECT min(distinct_id) FROM profiles)")
    assert "249 profiles, but 250 were exported" in mpx("doctor", "--offline").stdout
    assert "1 fewer than were exported" in mpx("status").stdout


def test_a_sync_also_replaces_the_profiles(sim: Simulator, db: Path) -> None:
    """With --profiles, the table keeps its selection; the job prints nothing, and JSON has a result of each type."""
    where = 'properties["logins"] > 500'
    done(mpx("profiles", "-q", "--where", where))
    assert done(mpx("sync", "--since", "-2d", "--profiles", "--flatten")).output == ""
    sim.profile_revision = 1
    results = json.loads(done(mpx("sync", "--profiles", "--flatten", "--json")).stdout)
    assert [result.get("type") for result in results] == [None, "profiles"]
    assert dict(query(db, "SELECT distinct_id, properties FROM profiles")) == sim.profile_truth(where=where)
    assert query(db, "SELECT count(*) FROM profiles_flat") == query(db, "SELECT count(*) FROM profiles")


@pytest.mark.parametrize(
    "faults, change, tried",
    [
        ([], "UPDATE events SET export_batch = 99 WHERE rowid = 0", True),
        *slow([([Fault("402")], "SELECT 1", True), ([Fault("401")], "SELECT 1", False)]),
    ],
)
def test_profiles_are_exported_if_the_events_fail(
    faults: list[Fault], change: str, tried: bool, sim: Simulator, db: Path
) -> None:
    """The exit code and the first line are those of the events. After an error that would repeat, profiles are not tried."""
    done(mpx("sync", "--since", "-2d", "--profiles"))
    sim.profile_revision = 1
    query(db, change)
    sim.faults = faults
    result = mpx("sync", "--profiles", "--json")
    assert (result.exit_code, len(result.stderr.splitlines())) == (1 if tried else 3, 1)
    assert [each["type"] for each in json.loads(result.stdout)] == (["profiles"] if tried else [])
    assert (rows_of(db) == truth(sim)) == tried


def test_a_section_names_the_table_of_profiles(sim: Simulator, db: Path, tmp_path: Path) -> None:
    """A failure of the profiles is one line and an exit code; the events are kept, and so is the old table."""
    section = f'[sync.nightly]\ndb = "{db.as_posix()}"\nsince = "-2d"\nprofiles = "people"\n'
    (tmp_path / "config.toml").write_text(section, encoding="utf-8")
    done(mpx("sync", "nightly"))
    sim.profile_faults = [Fault("402")]
    result = mpx("sync", "--all")
    assert (result.exit_code, one_error(result).startswith("Error: nightly: profiles: ")) == (1, True)
    assert rows_of(db, "people") == truth(sim)
    assert query(db, "SELECT count(DISTINCT event_time::DATE) FROM events") == [(2,)]
    sim.profile_faults = []
    done(mpx("profiles", "people", "--append", "--cohort", "7"))
    assert "several selections" in one_error(mpx("sync", "--all"))
    (tmp_path / "config.toml").write_text(section.replace('"people"', "3"), encoding="utf-8")
    assert "true, false or the name of a table" in one_error(mpx("sync", "--all"))
