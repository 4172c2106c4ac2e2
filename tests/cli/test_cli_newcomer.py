"""The first minutes of a new user: an account, and yesterday's events."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from shell import mpx, typed
from support import held, truth

from mixpanel_export.simulator import Simulator


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
@pytest.mark.usefixtures("env")
def test_two_commands_bring_yesterdays_events(
    sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal, every question except those about the account has a default; a third command continues the table."""
    for name in [name for name in os.environ if name.startswith("MP_") and name != "MP_CONFIG_PATH"]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("MPX_DB")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    account = [(b"account:", "demo.mp-service-account"), (b"shown):", "demo-secret"), (b"id:", "12345")]
    defaults = [(b"[us]:", ""), (b"[y/N]:", ""), (b"[Y/n]:", "")]
    shown = typed(["accounts", "add", "main"], [*account, *defaults])
    assert "Mixpanel accepts it" in shown
    assert "demo-secret" not in shown
    typed(["export"], [(b"[yesterday]:", "")])
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    file = tmp_path / "mixpanel.duckdb"
    assert held(file) == truth(sim, yesterday, yesterday)
    assert mpx("export").exit_code == 0
    assert held(file) == truth(sim, yesterday, yesterday)
