"""Hints of `mpx query` about property keys: how to write keys with `$`, and keys that no event has."""

import json
import re
from pathlib import Path

import duckdb
import pytest
from shell import mpx

from mixpanel_export._database.schema import PROFILE_COLUMNS, create_events_table
from mixpanel_export._local.property_keys import UnknownKey, unknown_keys

TYPO = UnknownKey("cty", "city", None)


@pytest.fixture
def db(db: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with a few events, which `mpx query` uses."""
    monkeypatch.setenv("MPX_DB", str(db))
    with duckdb.connect(str(db)) as connection:
        create_events_table(connection, "events")
        add(connection, 3, city="Berlin", plan="free", **{"$city": "Bonn", 'a"b': 1})
    return db


def add(connection: duckdb.DuckDBPyConnection, rows: int, **properties: object) -> None:
    connection.execute(
        "INSERT INTO events (event_name, properties) SELECT 'A', ? FROM range(?)",
        [json.dumps(properties), rows],
    )


def unknown(db: Path, sql: str) -> list[UnknownKey]:
    with duckdb.connect(str(db), read_only=True) as connection:
        return unknown_keys(connection, sql)


@pytest.mark.parametrize(
    "access",
    [
        "properties.cty",
        'e.properties."cty"',
        "properties->'cty'",
        "properties ->> 'cty'",
        "properties->>'$.cty'",
        """properties->>'$."cty"'""",
        "properties['cty']",
        "json_extract(properties, 'cty')",
        "json_extract_string(e.properties, '$.cty')",
        "properties->'cty'->>'city'",
    ],
)
def test_a_mistyped_key_is_found_however_it_is_accessed(access: str, db: Path) -> None:
    """The first key of an access is checked, and the most similar key of the events is suggested."""
    assert unknown(db, f"SELECT {access}, count(*) FROM events AS e GROUP BY ALL") == [TYPO]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT properties.city, properties->>'plan' FROM events",
        "SELECT properties.referrer FROM events",
        """SELECT properties->>'$."$city"', properties."$city", properties->>'a"b' FROM events""",
        "SELECT properties.cty FROM other",
        "SELECT properties->>'/city', properties->>'$[0]' FROM events",
        "SELECT 1",
    ],
)
def test_keys_that_exist_or_resemble_none_are_not_questioned(sql: str, db: Path) -> None:
    """Keys of the user's own data, paths and other tables are not compared with the events."""
    assert unknown(db, sql) == []


def test_keys_of_profiles_are_checked(db: Path) -> None:
    """A query may join profiles with events; a key of either is known."""
    with duckdb.connect(str(db)) as connection:
        columns = ", ".join(f"{name} {kind}" for name, kind in PROFILE_COLUMNS.items())
        connection.execute(f"CREATE TABLE people ({columns})")
        connection.execute("""INSERT INTO people (properties) VALUES ('{"country": "Chile"}')""")
        joined = (
            "SELECT p.properties.{}, e.properties.plan FROM events AS e JOIN people AS p USING (distinct_id)"
        )
        assert unknown_keys(connection, joined.format("country")) == []
        assert unknown_keys(connection, joined.format("contry")) == [UnknownKey("contry", "country", None)]


def test_a_table_without_rows_suggests_nothing(db: Path) -> None:
    """There are no keys to compare with."""
    with duckdb.connect(str(db)) as connection:
        connection.execute("DELETE FROM events")
        assert unknown_keys(connection, "SELECT properties.cty FROM events") == []


def test_a_large_table_is_sampled_in_all_its_parts(db: Path) -> None:
    """Newer events may have other keys. The number of sampled events is printed, because a rare key may exist."""
    with duckdb.connect(str(db)) as connection:
        add(connection, 60_000, city="Berlin")
        add(connection, 60_000, country="Chile")
        (found,) = unknown_keys(connection, "SELECT properties.countri FROM events")
        assert found == UnknownKey("countri", "country", 10_000)
        add(connection, 1, countri="once")
        connection.execute("CREATE TABLE _flat_tables AS SELECT 'f' AS flat_table, 'events' AS source_table")
        connection.execute("CREATE TABLE _flat_columns AS SELECT 'f' AS flat_table, 'countri' AS key")
        assert unknown_keys(connection, "SELECT properties.countri FROM events") == []


@pytest.mark.usefixtures("db")
def test_the_hint_is_for_people() -> None:
    """It is printed below the table, and not in the output for programs."""
    sql = "SELECT properties.cty FROM events"
    shown = mpx("query", sql)
    assert (shown.exit_code, "did you mean 'city'?" in shown.stderr) == (0, True)
    for words in (["--json"], ["--csv"]):
        assert mpx("query", sql, *words).stderr == ""
    assert "did you mean" not in mpx("query", sql.replace("cty", "city")).stderr


@pytest.mark.parametrize(
    "access, code",
    [
        ("properties.$city", 2),
        ("properties->>'$city'", 2),
        ("properties->>$city", 2),
        ("json_extract_string(properties, '$city')", 2),
        ("json_exists(properties, '$city')", 2),
        ("properties['$city']", 0),
        ('properties."$city"', 0),
        ("""properties->>'$."$city"'""", 0),
    ],
)
@pytest.mark.usefixtures("db")
def test_a_key_with_a_dollar_gets_a_hint_if_it_is_not_read(access: str, code: int) -> None:
    """The suggested spelling can be read."""
    result = mpx("query", f"SELECT {access} FROM events")
    assert result.exit_code == code
    assert ("""properties->>'$."$city"'""" in result.stderr) == (code != 0)


@pytest.mark.parametrize(
    "sql, written",
    [
        ('SELECT "$city" FROM events', """properties->>'$."$city"'"""),
        ("SELECT count(*) FROM events WHERE plan = 'free'", "properties->>'plan'"),
        ("SELECT e.plan FROM events AS e", "properties->>'plan'"),
        ("SELECT nothing FROM events", None),
        ("SELECT plan FROM range(2)", None),
    ],
)
def test_a_key_that_is_used_as_a_column_gets_a_hint(sql: str, written: str | None, db: Path) -> None:
    """The hint has an expression that can be read, and the column of a flat table if there is one; the error remains."""
    result = mpx("query", sql, "--csv")
    *hints, error = result.stderr.splitlines()
    assert (result.exit_code, error.startswith("Error: SQL: ")) == (2, True)
    assert bool(hints) == (written is not None)
    if written is None:
        return
    assert written in hints[0]
    assert mpx("query", f"SELECT {written} FROM events", "--csv").exit_code == 0
    with duckdb.connect(str(db)) as connection:
        connection.execute("""CREATE TABLE flat AS SELECT 'Bonn' AS "$city", 'free' AS plan""")
        connection.execute(
            "CREATE TABLE _flat_tables AS SELECT 'flat' AS flat_table, 'events' AS source_table"
        )
        connection.execute(
            "CREATE TABLE _flat_columns AS SELECT 'flat' AS flat_table, c AS key, c AS column_name "
            "FROM (SELECT unnest(['$city', 'plan']) AS c)"
        )
    column = re.search(r'(\w+) has the column (".*")', mpx("query", sql).stderr)
    assert column
    assert mpx("query", f"SELECT {column[2]} FROM {column[1]}").exit_code == 0


@pytest.mark.usefixtures("db")
def test_a_parameter_is_no_key() -> None:
    """The key may be the value of a parameter."""
    result = mpx("query", "SELECT properties->>$key AS x FROM events LIMIT 1", "-p", "key=city")
    assert (result.exit_code, "as a parameter" in result.stderr) == (0, False)


@pytest.mark.parametrize("sql", ["SELECT properties. FROM events", "SELECT properties->>'' FROM events"])
@pytest.mark.usefixtures("db")
def test_a_key_that_the_shell_replaced_is_missed(sql: str) -> None:
    """In double quotes, the shell replaces `$city` with nothing if the variable is not set."""
    assert "--file" in mpx("query", sql).stderr
