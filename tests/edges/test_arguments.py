"""Arguments: SQL that looks like an option, and lists of names that are too long for a request."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import anyio
import pytest
from examples import slow
from shell import mpx, one_error
from support import export, query, simulator

from mixpanel_export import ArgumentError, QueryError
from mixpanel_export.simulator import Fault, Simulator

# SQL on the command line


SQL = {
    "-- a comment\nSELECT 1 AS a": '{"a": 1}\n',
    "--no space\nSELECT 1 AS a": '{"a": 1}\n',
    "--json\nSELECT 1 AS a": '{"a": 1}\n',
    "-- a comment": "",
    "/* - */ SELECT -1 AS a": '{"a": -1}\n',
    "--db x\nSELECT 1 AS a": '{"a": 1}\n',
    "SELECT 1 AS a -- the end": '{"a": 1}\n',
}


@pytest.mark.parametrize("sql", SQL)
@pytest.mark.parametrize("order", ["between", *slow(["first", "last"])])
def test_sql_that_begins_with_a_dash_is_sql(sql: str, order: str, db: Path) -> None:
    """An argument with white space is not an option, wherever it is among the options."""
    query(db, "CREATE TABLE t AS SELECT 1")
    options = ["--db", str(db), "--json"]
    words = {"first": [sql, *options], "last": [*options, sql], "between": [*options[:2], sql, *options[2:]]}[
        order
    ]
    result = mpx("query", *words)
    assert (result.exit_code, result.stdout) == (0, SQL[sql])


def test_values_of_options_stay_values(tmp_path: Path) -> None:
    """They may be separate words or not, and may have white space or not."""
    db = tmp_path / "a b.duckdb"
    query(db, "CREATE TABLE t AS SELECT 1 AS a")
    for words in (["--db", str(db)], [f"--db={db}"]):
        assert mpx("query", "FROM t", "--json", *words).stdout == '{"a": 1}\n'
    assert mpx("query", "-- x\nFROM t", "--json", f"--db={db}").stdout == '{"a": 1}\n'
    assert mpx("query", "--json", f"--db={db}", "--", "--\nFROM t").stdout == '{"a": 1}\n'


def test_an_unknown_option_is_still_one(db: Path) -> None:
    """A word without white space is an option."""
    assert "No such option" in one_error(mpx("query", "SELECT 1", "--db", str(db), "--nope"))


# Long lists


def test_a_list_that_no_request_can_carry_is_refused_before_any(
    env: Mapping[str, str], sim: Simulator, db: Path
) -> None:
    """With 2,500 names, the error has their number, the advice, and the option."""
    names = [f"An Event With Number {number}" for number in range(2500)]
    result = mpx("export", "--from", "2024-03-01", "--to", "2024-03-03", "--events", json.dumps(names))
    assert result.exit_code == 2
    error = one_error(result)
    assert "--events has 2,500 names" in error
    assert "--append" in error
    assert not sim.requests
    assert not db.exists()


def test_a_long_expression_is_refused_by_its_own_name(db: Path) -> None:
    """The error names the argument `where`."""
    with pytest.raises(ValueError, match="where is too long"):
        anyio.run(partial(export, simulator(), db, where=" or ".join(['properties["a"] == 1'] * 5000)))
    assert not db.exists()


@pytest.mark.parametrize("longest", [65_535, 65_536, 65_537])
def test_the_longest_list_that_is_not_refused_arrives(longest: int, db: Path) -> None:
    """The check accepts everything that can be sent, and nothing else."""
    sim = simulator()
    # The other parameters, and what the list itself takes when it is quoted.
    rest = len("project_id=12345&from_date=2024-03-01&to_date=2024-03-09&event=%5B%22%22%5D")
    call = partial(export, sim, db, events=["e" * (longest - rest)], chunk_days=100)
    if longest > 65_536:
        with pytest.raises(ArgumentError):
            anyio.run(call)
    else:
        anyio.run(call)
    assert bool(sim.requests) == (longest <= 65_536)


def test_a_list_that_the_server_refuses_says_what_to_do(db: Path) -> None:
    """A server may accept less than can be sent; its 414 has the same advice."""
    sim = simulator(faults=[Fault("414")])
    with pytest.raises(QueryError) as caught:
        anyio.run(
            partial(export, sim, db, events=[f"An Event With Number {number}" for number in range(500)])
        )
    assert caught.value.advice is not None
    assert "append" in caught.value.advice
