"""A named account and variables of another project are never silently combined."""

from pathlib import Path
from typing import Any

import pytest

from mixpanel_export.credentials import account_used, resolve_credentials
from mixpanel_export.errors import ConfigError

VARIABLES = {"MP_USERNAME": "svc.1", "MP_SECRET": "variable-secret", "MP_PROJECT_ID": "42", "MP_REGION": "eu"}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(
        'default = "a"\n'
        '[accounts.a]\nusername = "svc.a"\nsecret = "s"\nproject_id = "42"\n'
        '[accounts.b]\nusername = "svc.b"\nsecret = "s"\nproject_id = "7"\n',
        encoding="utf-8",
    )
    path.chmod(0o600)
    return path


def test_two_projects_are_refused_by_name(config: Path) -> None:
    """The error names both projects and the account, and no secret."""
    source: dict[str, Any] = {"environ": VARIABLES, "config_path": config}
    for call in (resolve_credentials, account_used):
        with pytest.raises(ConfigError) as caught:
            call("b", **source)
        assert {"'b'", "7,", "42;"} <= set(str(caught.value).split())
        assert "MPX_PREFER" in (caught.value.advice or "")
        assert "variable-secret" not in str(caught.value)


@pytest.mark.parametrize("prefer, project, account", [("account", "7", "b"), ("Environment", "42", None)])
def test_a_variable_decides(prefer: str, project: str, account: str | None, config: Path) -> None:
    """`MPX_PREFER` selects one of the two, and both functions agree."""
    source: dict[str, Any] = {"environ": VARIABLES | {"MPX_PREFER": prefer}, "config_path": config}
    assert resolve_credentials("b", **source).project_id == project
    assert account_used("b", **source) == account


@pytest.mark.parametrize(
    "account, project_id, less, project, user",
    [
        ("a", None, set(), "42", "svc.a"),  # the same project
        ("b", "42", set(), "42", "svc.b"),  # the project is named
        ("b", None, {"MP_PROJECT_ID"}, "7", "svc.b"),  # incomplete variables
        ("b", None, {"MP_SECRET"}, "7", "svc.b"),
        (None, None, set(), "42", "svc.1"),  # no account is named
    ],
)
def test_without_a_conflict_nothing_is_asked(
    account: str | None, project_id: str | None, less: set[str], project: str, user: str, config: Path
) -> None:
    """A named account wins if there is no conflict of projects."""
    environ = {name: value for name, value in VARIABLES.items() if name not in less}
    credentials = resolve_credentials(account, project_id=project_id, environ=environ, config_path=config)
    assert (credentials.project_id, credentials.username) == (project, user)
