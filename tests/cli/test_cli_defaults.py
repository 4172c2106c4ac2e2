"""The defaults of `mpx`: `[defaults]` in the configuration file, and environment variables, which override it."""

from collections.abc import Callable
from pathlib import Path

import pytest
from shell import NINE_DAYS, WEEK, mpx, one_error
from support import held, query, truth

from mixpanel_export import Workspace
from mixpanel_export._config.config_file import chosen_database
from mixpanel_export.simulator import Fault, Simulator

Configure = Callable[[str], None]


@pytest.fixture
def configure(tmp_path: Path, env: object) -> Configure:
    """Return a function that writes the configuration file."""

    def write(text: str) -> None:
        (tmp_path / "config.toml").write_text(text, encoding="utf-8")

    return write


def test_an_export_takes_its_habits_from_the_file(configure: Configure, sim: Simulator, db: Path) -> None:
    """With `parallel` and `mode` in `[defaults]`, the same command creates the table and continues it."""
    configure('[defaults]\nparallel = true\nmode = "resume"\nworkers = 3\n')
    assert mpx("export", *WEEK).exit_code == 0
    assert len(sim.requests) > 1
    assert mpx("export", *NINE_DAYS).exit_code == 0
    assert held(db) == truth(sim)


def test_variables_come_before_the_file(
    configure: Configure, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPX_PARALLEL and MPX_MODE override the file."""
    configure('[defaults]\nparallel = true\nmode = "resume"\n')
    monkeypatch.setenv("MPX_PARALLEL", "0")
    monkeypatch.setenv("MPX_MODE", "create")
    assert mpx("export", *WEEK).exit_code == 0
    assert len(sim.requests) == 1
    assert mpx("export", *WEEK).exit_code == 4


def test_what_is_typed_comes_first(configure: Configure, sim: Simulator) -> None:
    """--no-parallel, --mode, --replace and --limit override the file, even if they exclude each other."""
    configure('[defaults]\nparallel = true\nmode = "resume"\nworkers = 3\n')
    assert mpx("export", *WEEK, "--no-parallel").exit_code == 0
    assert len(sim.requests) == 1
    assert mpx("export", *WEEK, "--mode", "create").exit_code == 4
    assert mpx("export", *WEEK, "--replace").exit_code == 0
    assert mpx("export", "few", *WEEK, "--limit", "5").exit_code == 0
    assert mpx("export", "all", *WEEK, "--limit", "5", "--parallel").exit_code == 2
    assert mpx("export", *WEEK, "--mode", "append", "--resume").exit_code == 2


@pytest.mark.usefixtures("sim")
def test_flat_tables_can_be_the_default(configure: Configure, tmp_path: Path) -> None:
    """With flatten in the file, each export makes a flat table, except with --no-flatten."""
    configure("[defaults]\nflatten = true\n")
    assert mpx("export", "plain", *WEEK, "--no-flatten").exit_code == 0
    assert mpx("export", *WEEK).exit_code == 0
    tables = {name for (name,) in query(tmp_path / "events.duckdb", "SELECT table_name FROM duckdb_tables()")}
    assert "events_flat" in tables
    assert "plain_flat" not in tables


def test_the_command_that_continues_keeps_no_parallel(configure: Configure, sim: Simulator) -> None:
    """Otherwise, the file would make it a different export."""
    configure("[defaults]\nparallel = true\n")
    sim.faults = [Fault("500")]
    result = mpx("export", *WEEK, "--no-parallel", "--retries", "0")
    assert result.exit_code == 1
    assert " --no-parallel " in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        'defaults = "resume"',
        "[defaults]\nparalel = true",
        '[defaults]\nparallel = "yes"',
        "[defaults]\nworkers = 0",
        "[defaults]\nworkers = true",
        '[defaults]\nmode = "replace"',
        '[defaults]\ndb = ""',
        "[defaults]\ndb = 3",
    ],
)
def test_settings_that_cannot_be_meant_are_refused(configure: Configure, sim: Simulator, text: str) -> None:
    """A typo is not ignored, and `replace` cannot be a default: exit code 3, and a line that names the file."""
    configure(text)
    result = mpx("export", *WEEK)
    assert result.exit_code == 3
    assert "config.toml" in one_error(result)
    assert not sim.requests


def test_help_does_not_depend_on_the_file(configure: Configure) -> None:
    """A damaged file does not prevent the help from being printed."""
    configure("[defaults]\nparalel = true")
    assert mpx("export", "--help").exit_code == 0


# The file


def test_one_file_for_mpx_and_python(
    configure: Configure, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MPX_DB, or else `db` in `[defaults]`, is the file of every command and of `Workspace()`."""
    other = tmp_path / "other.duckdb"
    configure(f"[defaults]\ndb = '{other}'\n")
    assert mpx("export", *WEEK).exit_code == 0
    with Workspace(read_only=True) as workspace:
        assert workspace.db_path == db
    monkeypatch.delenv("MPX_DB")
    assert mpx("export", *WEEK).exit_code == 0
    with Workspace(read_only=True) as workspace:
        assert workspace.db_path == other
    paths = "SELECT path FROM duckdb_databases()"
    for words in (["status"], ["query", "--csv", paths], ["doctor", "--offline"], ["retry"]):
        assert str(other) in mpx(*words).output
    with Workspace(path=db) as workspace:
        assert workspace.db_path == db


def test_without_settings_the_default_files_are_as_before(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mpx` uses mixpanel.duckdb in this folder, Python the project's file, and `mpx` mentions that if it exists."""
    monkeypatch.delenv("MPX_DB")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert chosen_database() is None
    result = mpx("export", *WEEK)
    assert result.exit_code == 0
    assert "also exists" not in result.stderr
    assert query(tmp_path / "mixpanel.duckdb", "SELECT count(*) > 0 FROM events") == [(True,)]
    with Workspace() as workspace:
        assert workspace.db_path == tmp_path / ".mp" / "data" / "12345.db"
        _ = workspace.connection
    for words in (
        ["export", *WEEK, "--resume"],
        ["status"],
        ["query", "SELECT 1"],
        ["retry"],
        ["forget", "x"],
    ):
        assert f"{workspace.db_path} also exists" in mpx(*words).stderr
    assert "also exists" not in mpx("status", "mixpanel.duckdb").stderr
    assert mpx("export", *WEEK, "--resume", "--quiet").stderr == ""


@pytest.mark.usefixtures("env")
def test_db_is_an_option_of_each_command(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands with an argument for the file also accept --db; two different files are an error."""
    assert mpx("export", *WEEK).exit_code == 0
    monkeypatch.setenv("MPX_DB", "elsewhere.duckdb")
    for words in (["status"], ["retry"], ["doctor", "--offline"]):
        for file in ([str(db)], ["--db", str(db)], [str(db), "--db", str(db)]):
            assert str(db) in mpx(*words, *file).output
        assert mpx(*words, str(db), "--db", "other.duckdb").exit_code == 2
    assert str(db) in mpx("upgrade", "--db", str(db)).output
    assert mpx("upgrade").exit_code == 2
