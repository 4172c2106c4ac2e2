"""Unusable paths and texts: each causes one error before any request, and no file is created."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from shell import mpx, one_error, run_mpx
from support import query

from mixpanel_export.simulator import Simulator

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX's paths and links")

DAYS = ("--from", "2024-03-01", "--to", "2024-03-03")
NOT_UTF8 = os.fsdecode(b"\xff")
PATHS = {
    "": "path of the database is empty",
    "loop": "symbolic links",
    "dangling": "missing does not exist",
    "missing/x.duckdb": "missing does not exist",
    "a" * 300: "name too long",
    f"{NOT_UTF8}.duckdb": "UTF-8",
    "folder/": "is a directory",
    "file/x.duckdb": "file does not exist",
}
WORDS = {
    ("export", *DAYS, "--where", NOT_UTF8): "--where cannot be sent as UTF-8",
    ("export", *DAYS, "--events", NOT_UTF8): "--events has a name that cannot be sent as UTF-8",
    ("query", f"SELECT '{NOT_UTF8}'", "--db", "t.duckdb"): "not text in UTF-8",
    ("query", "FROM t", "--db", "t.duckdb", "--parquet", "t.duckdb"): "would replace the database",
    ("query", "FROM t", "--db", "t.duckdb", "--parquet", "t.duckdb.wal"): "would replace the database",
    ("query", "FROM t", "--db", "t.duckdb", "--parquet", "s3://bucket/x.parquet"): "address (s3)",
    ("query", "FROM t", "--db", "t.duckdb", "--parquet", "missing/x.parquet"): "No such file",
    ("query", "FROM t", "--db", "t.duckdb", "--parquet", "loop"): "symbolic links",
}


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The current folder has some files, which must still be there, and no others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to(tmp_path / "missing" / "x.duckdb")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    query(tmp_path / "t.duckdb", "CREATE TABLE t AS SELECT 1 AS x")
    return sorted(tmp_path.rglob("*"))


@pytest.mark.parametrize("path", PATHS)
def test_a_path_that_cannot_be_a_database_is_one_error(
    path: str, there: list[Path], env: Mapping[str, str], sim: Simulator, tmp_path: Path
) -> None:
    """It has the reason, and no request is sent."""
    result = mpx("export", *DAYS, "--db", path)
    assert result.exit_code == 1
    assert PATHS[path].lower() in one_error(result).lower()
    assert (sorted(tmp_path.rglob("*")), sim.requests) == (there, [])


@pytest.mark.parametrize("words", WORDS)
def test_what_cannot_be_used_is_one_error(
    words: tuple[str, ...], there: list[Path], env: Mapping[str, str], sim: Simulator, tmp_path: Path
) -> None:
    """It names the argument or the reason, and no request is sent."""
    result = mpx(*words)
    assert result.exit_code in {1, 2}
    assert WORDS[words] in one_error(result)
    assert (sorted(tmp_path.rglob("*")), sim.requests) == (there, [])


@pytest.mark.parametrize("path", [":memory:", "md:x", "s3://bucket/x", "folder"])
def test_the_doctor_finds_what_cannot_be_a_database(
    path: str, there: list[Path], env: Mapping[str, str], tmp_path: Path
) -> None:
    """It is a problem, with the advice of an export."""
    result = mpx("doctor", "--offline", path)
    assert result.exit_code == 1
    assert "use a file on this machine" in result.stdout
    assert sorted(tmp_path.rglob("*")) == there


@pytest.mark.parametrize("name", ["MP_USERNAME", "MP_SECRET"])
def test_credentials_that_are_no_text_are_one_error(
    name: str, env: Mapping[str, str], sim: Simulator
) -> None:
    """Basic authentication cannot send them."""
    done = run_mpx("export", *DAYS, env={**env, name: NOT_UTF8})
    assert (done.returncode, done.stderr.count(b"\n")) == (3, 1)
    assert not sim.requests


def test_a_folder_that_is_gone_is_one_error(env: Mapping[str, str], tmp_path: Path) -> None:
    """Another process removed the current folder."""
    bare = {name: value for name, value in env.items() if name != "MPX_DB"}
    (tmp_path / "gone").mkdir()
    for words in (["export", *DAYS], ["query", "SELECT 1"], ["status"]):
        done = run_mpx(*words, env=bare, cwd=tmp_path / "gone", preexec_fn=(tmp_path / "gone").rmdir)
        (tmp_path / "gone").mkdir()
        assert done.returncode == 1, done.stderr
        assert b"current folder" in done.stderr


@pytest.mark.parametrize("target", ["-", "s3://bucket/config.toml", "https://host/config.toml"])
def test_a_configuration_is_a_file_on_this_machine(
    target: str, env: Mapping[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No folder is created with the name of a URL scheme."""
    monkeypatch.chdir(tmp_path)
    add = ("accounts", "add", "main", "--username", "u", "--project-id", "1", "--no-test")
    assert mpx(*add, env={"MP_CONFIG_PATH": target}).exit_code == 3
    assert not list(tmp_path.iterdir())


def test_sql_may_come_in_any_encoding(env: Mapping[str, str], tmp_path: Path) -> None:
    """UTF-16 with a byte order mark, as PowerShell writes it, and UTF-8 if the locale only has ASCII."""
    query(tmp_path / "t.duckdb", "CREATE TABLE t AS SELECT 1 AS x")
    words = ("--db", str(tmp_path / "t.duckdb"), "--json")
    done = run_mpx("query", "-", *words, env=env, input="SELECT 'é' AS a".encode("utf-16"))
    assert done.stdout.decode() == '{"a": "é"}\n'
    plain = {**env, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_mpx("query", "SELECT 'é' AS a".encode(), *words, env=plain)  # type: ignore[arg-type]
    assert done.stdout.decode() == '{"a": "é"}\n'
