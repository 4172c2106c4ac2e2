"""Shell completion of commands, options, accounts, tables and files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner
from support import export, simulator

from mixpanel_export.cli import COMMANDS, cli

SHELLS = ["bash", "zsh", "fish"]
CONFIG = """
[accounts.main]
username = "u"
secret = "s3cr3t"
project_id = 7
[accounts.mirror]
username = "u"
secret = "s3cr3t"
project_id = 8
region = "eu"
[accounts.other]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with accounts."""
    for name in list(os.environ):
        if name.startswith(("MP_", "MPX_")):
            monkeypatch.delenv(name)
    config = tmp_path / "config.toml"
    config.write_text(CONFIG, encoding="utf-8")
    config.chmod(0o644)  # which others are warned of, and completion must not
    monkeypatch.setenv("MP_CONFIG_PATH", str(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def asked(shell: str, *words: str) -> list[list[str]]:
    """Return the completions of the last of *words*, each as a list: kind, value, and help if there is any."""
    line = ["mpx", *words]
    environ = {
        "_MPX_COMPLETE": f"{shell}_complete",
        "COMP_WORDS": "\n".join(line) if shell == "bash" else " ".join(line),
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words)),
    }
    result = CliRunner().invoke(cli, [], prog_name="mpx", env=environ)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "s3cr3t" not in result.stdout
    lines = result.stdout.strip().splitlines()
    if shell == "zsh":
        return [lines[place : place + 3] for place in range(0, len(lines), 3)]
    return [offer.replace("\t", ",").split(",", 2) for offer in lines]


def values(shell: str, *words: str) -> list[str]:
    return [offer[1] for offer in asked(shell, *words)]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_gets_a_script_for_its_start_up(shell: str) -> None:
    """The script calls this program back, with the variable that this program reads."""
    result = CliRunner().invoke(cli, [], prog_name="mpx", env={"_MPX_COMPLETE": f"{shell}_source"})
    assert result.exit_code == 0
    assert f"_MPX_COMPLETE={shell}_complete" in result.stdout
    assert "mpx" in result.stdout.splitlines()[-1] or "compdef" in result.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_commands_and_options_are_offered(shell: str) -> None:
    """Every command, those of a group, and options that start with the typed text are offered."""
    assert values(shell, "") == list(COMMANDS)
    assert values(shell, "acc") == ["accounts"]
    assert values(shell, "accounts", "") == ["add", "default", "list", "remove", "test"]
    assert values(shell, "export", "--par") == ["--parallel"]
    assert values(shell, "accounts", "add", "x", "--region", "") == ["us", "eu", "in"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "words",
    ["export --account", "quota -a", "doctor -a", "accounts test", "accounts remove", "accounts default"],
)
def test_accounts_are_offered(words: str, shell: str) -> None:
    """Accounts that start with the typed text are offered, without a warning and without their secrets."""
    assert values(shell, *words.split(), "m") == ["main", "mirror"]
    assert values(shell, *words.split(), "") == ["main", "mirror", "other"]


def test_an_account_is_offered_with_its_project() -> None:
    """Shells that show help show each account's project."""
    helps = [offer[2] for offer in asked("zsh", "accounts", "test", "m")]
    assert helps == ["project 7 in us", "project 8 in eu"]


def test_tables_are_offered_of_the_file_that_is_meant(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of --db, of MPX_DB, or of the default file are offered."""
    anyio.run(lambda: export(simulator(), folder / "mixpanel.duckdb", "2024-03-01", "2024-03-01"))
    anyio.run(
        lambda: export(
            simulator(), folder / "other.duckdb", "2024-03-01", "2024-03-01", table="signups", limit=1
        )
    )
    assert values("zsh", "export", "") == ["events"]
    assert values("zsh", "export", "x") == []
    assert values("zsh", "export", "--db", "other.duckdb", "") == ["signups"]
    assert values("zsh", "status", "other.duckdb", "--table", "") == ["signups"]
    monkeypatch.setenv("MPX_DB", "other.duckdb")
    assert values("zsh", "retry", "--table", "sign") == ["signups"]
    ((_, _, rows),) = asked("zsh", "export", "s")
    assert rows == "1 rows"


def test_what_cannot_be_read_offers_nothing(folder: Path) -> None:
    """A damaged or missing file prints no traceback into the user's command line."""
    assert values("zsh", "export", "") == []
    (folder / "mixpanel.duckdb").write_bytes(b"no database" * 1000)
    assert values("zsh", "export", "") == []
    (folder / "config.toml").write_text("[broken", encoding="utf-8")
    assert values("zsh", "accounts", "test", "") == []


@pytest.mark.parametrize(
    "words", ["export --db", "status", "doctor", "query 'SELECT' --db", "upgrade", "forget x --db"]
)
def test_files_are_left_to_the_shell(words: str) -> None:
    """If a path is expected, the shell completes it as usual."""
    ((kind, *_),) = asked("bash", *words.split(), "ev")
    assert kind == "file"


@pytest.mark.skipif(not shutil.which("bash") or sys.platform == "win32", reason="there is no bash")
def test_bash_completes_by_the_script(folder: Path) -> None:
    """A bash that has sourced the script completes the typed text."""
    script = folder / "mpx"
    code = "from mixpanel_export.cli import main; main()"
    script.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c '{code}' \"$@\"\n", encoding="utf-8")
    script.chmod(0o755)
    typed = 'COMP_WORDS=(mpx accounts test mi); COMP_CWORD=3; _mpx_completion mpx; echo "${COMPREPLY[@]}"'
    done = subprocess.run(
        [shutil.which("bash") or "bash", "--norc", "-c", f'eval "$(_MPX_COMPLETE=bash_source mpx)"; {typed}'],
        env=os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("mirror\n", "")
