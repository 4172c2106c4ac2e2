"""A database that an export is using: the error names the export, its start, and when it may continue."""

import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from examples import slow
from shell import MPX, NINE_DAYS, held_by_another, mpx, one_error
from support import held, truth

from mixpanel_export._quota.processes import usages_of
from mixpanel_export.simulator import Simulator


@pytest.fixture
def waiting(env: Mapping[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """An export that has used the hourly quota after two requests, and waits for the rest of the hour."""
    command = [*MPX, "export", *NINE_DAYS, "--parallel", "--chunk-days", "3", "--workers", "1"]
    with subprocess.Popen(
        command, env={**env, "MPX_PER_HOUR": "2"}, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "waiting for the quota" not in process.stderr.readline():
            pass
        yield process
        process.kill()


@pytest.mark.parametrize("words", [["status"], ["retry"], *slow([["query", "FROM events"]])])
def test_the_export_that_holds_the_file_is_named(
    words: list[str], waiting: "subprocess.Popen[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error has the process, the project, the start, and the end of the wait for the quota."""
    monkeypatch.setenv("MPX_PER_HOUR", "2")
    error = one_error(mpx(*words))
    assert f"process {waiting.pid}" in error
    assert "project 12345" in error
    assert len(re.findall(r"\b\d\d:\d\d\b", error)) == 2
    assert "mpx retry" in error


def test_the_advice_can_be_followed(
    waiting: "subprocess.Popen[str]", sim: Simulator, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupting the export frees the file, and `mpx retry` fetches the rest."""
    waiting.terminate()
    waiting.communicate()
    assert mpx("status").exit_code == 0
    monkeypatch.setenv("MPX_PER_HOUR", "0")
    assert mpx("retry", "-q").exit_code == 0
    assert held(db) == truth(sim)


def test_a_process_that_exports_nothing_is_only_named(db: Path) -> None:
    """Without requests in the last hour, nothing is known about it."""
    with held_by_another(db) as holder:
        assert usages_of(holder.pid, 60) == []
        assert re.search(rf"process {holder.pid};", one_error(mpx("status", str(db))))


@pytest.mark.parametrize("content", [b"no database" * 99, b""])
def test_an_unreadable_quota_file_hides_no_error(content: bytes, db: Path) -> None:
    """The lock is reported without information about the export."""
    file = Path(os.environ["MPX_STATE_DIR"], "quota.sqlite3")
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    with held_by_another(db) as holder:
        assert f"process {holder.pid}" in one_error(mpx("status", str(db)))
    assert file.read_bytes() == content
