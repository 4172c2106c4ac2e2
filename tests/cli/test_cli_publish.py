"""`mpx publish`: what it prints, and its exit codes."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from shell import environment, have_export, held_by_another, mpx, one_error
from support import query, simulator

pytestmark = pytest.mark.usefixtures("env")


@pytest.fixture
def exported(env: Mapping[str, str], db: Path) -> Path:
    """A database with three days."""
    assert env["MPX_DB"] == str(db)
    have_export(db, "--from", "2024-03-01", "--to", "2024-03-03")
    return db


def test_the_days_are_printed(exported: Path, tmp_path: Path) -> None:
    """The summary has the written days; a second run writes none; a removed day is named; quiet prints nothing."""
    lake = str(tmp_path / "lake")
    first = mpx("publish", lake)
    assert first.exit_code == 0
    assert lake in first.stdout
    assert "3 days" in first.stdout
    assert mpx("publish", lake, "--quiet").output == ""
    query(exported, "DELETE FROM events WHERE event_time::DATE = '2024-03-02'")
    assert "2024-03-02" in mpx("publish", lake).stdout


def test_json_is_the_result(exported: Path, tmp_path: Path) -> None:
    """Standard output has only JSON. The exit code is 1 if a day differs."""
    lake = str(tmp_path / "lake")
    words = ("publish", lake, "--db", str(exported), "--flat", "--verify", "--json")
    result = json.loads(mpx(*words).stdout)
    assert (result["table"], result["verified"], result["days"]) == ("events_flat", True, 3)
    query(exported, "UPDATE events_flat SET event_name = 'other' WHERE event_time::DATE = '2024-03-02'")
    again = mpx(*words)
    assert again.exit_code == 1
    assert json.loads(again.stdout)["different_days"] == ["2024-03-02"]


def test_errors_have_exit_codes(exported: Path, tmp_path: Path) -> None:
    """Wrong usage exits with 2, a missing table with 4, other files at the destination and a locked database with 1."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    for code, words in (
        (2, ("s4://bucket",)),
        (4, (str(tmp_path / "lake"), "--table", "none")),
        (1, (str(tmp_path / "mine"),)),
    ):
        result = mpx("publish", *words, "--quiet")
        assert result.exit_code == code
        assert one_error(result)
    with held_by_another(exported):
        assert mpx("publish", str(tmp_path / "lake")).exit_code == 1


def test_an_export_publishes(exported: Path, tmp_path: Path) -> None:
    """`--publish` brings the data set in step. If that fails, the events are stored, and the exit code is 1."""
    lake = tmp_path / "lake"
    more = ("--from", "2024-03-04", "--to", "2024-03-04", "--append", "--publish")
    assert mpx("export", *more, str(lake)).exit_code == 0
    assert len(list(lake.glob("*/*.parquet"))) == 4
    (tmp_path / "file").touch()
    failed = mpx("export", *more, str(tmp_path / "file"), "--json")
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["failed_batches"] == 0
    assert failed.stderr.splitlines()[-1].startswith("Error: ")
    assert query(exported, "SELECT count(DISTINCT event_time::DATE) FROM events") == [(4,)]


def test_a_section_publishes(tmp_path: Path) -> None:
    """A sync brings the data set of its section in step."""
    lake, config, db = tmp_path / "lake", tmp_path / "config.toml", tmp_path / "synced.duckdb"
    config.write_text(f"[sync.x]\ndb = '{db}'\nsince = '-3d'\npublish = '{lake}'\n", encoding="utf-8")
    mpx("sync", "x", env={"MP_CONFIG_PATH": str(config)})
    assert len(list(lake.glob("date=20*/*.parquet"))) == 3


def test_status_shows_publications(exported: Path, tmp_path: Path) -> None:
    """`mpx status` has the days, those that are behind, and the command that publishes them. `mpx forget` names it too."""
    lake = str(tmp_path / "lake")
    mpx("publish", lake)
    (state,) = json.loads(mpx("status", "--json").stdout)["publications"]
    assert (state["destination"], state["days"], state["days_behind"]) == (lake, 3, 0)
    ((person,),) = query(exported, "SELECT any_value(distinct_id) FROM events")
    forgotten = mpx("forget", person)
    (state,) = json.loads(mpx("status", "--json").stdout)["publications"]
    assert state["days_behind"] >= 1
    for result in (mpx("status"), forgotten):
        assert state["command"] in result.output
    assert mpx(*state["command"].split()[1:]).exit_code == 0
    assert json.loads(mpx("status", "--json").stdout)["publications"][0]["days_behind"] == 0


def test_profiles_are_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mpx profiles --publish` and a section publish the profiles, not the events. `mpx status` tells whether they changed."""
    sim = simulator(profiles=20, now=lambda: datetime.now(UTC))
    lake, config, db = tmp_path / "people", tmp_path / "config.toml", tmp_path / "synced.duckdb"
    section = f"[sync.x]\ndb = '{db}'\nsince = '-3d'\nprofiles = true\npublish_profiles = '{lake}'\n"
    config.write_text(section, encoding="utf-8")
    with environment(sim, tmp_path, monkeypatch):
        first = mpx("profiles", "--db", str(db), "--publish", str(lake))
        assert (first.exit_code, "20 rows" in first.stdout) == (0, True)
        sim.profile_revision = 1
        assert mpx("sync", "x", env={"MP_CONFIG_PATH": str(config)}).exit_code == 0
    assert [path.name for path in lake.iterdir()] == ["data.parquet"]
    profiles = "SELECT distinct_id, properties, last_seen FROM profiles ORDER BY distinct_id"
    assert query(db, f"FROM '{lake}/data.parquet' ORDER BY distinct_id") == query(db, profiles)
    ((person,),) = query(db, "SELECT any_value(distinct_id) FROM profiles")
    for behind in (0, 1):
        (state,) = json.loads(mpx("status", "--json", str(db)).stdout)["publications"]
        assert (state["table"], state["by_day"], state["days_behind"]) == ("profiles", False, behind)
        mpx("forget", person, "--db", str(db))
    assert state["command"] in mpx("status", str(db)).stdout
    assert "verified   yes" in mpx("publish", str(lake), "--verify", "--db", str(db)).stdout
