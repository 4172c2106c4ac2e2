"""Settings for all tests."""

import pytest
from hypothesis import settings

# A shared machine may stall anywhere, and how long an example takes is no claim of any test.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


@pytest.fixture(autouse=True)
def _own_quota(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Give each test a quota file of its own, as all talk to the same few hosts."""
    monkeypatch.setenv("MPX_STATE_DIR", str(tmp_path_factory.mktemp("state")))
