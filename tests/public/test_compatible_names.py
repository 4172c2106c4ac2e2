"""Submodules, names and exception constructors of mixpanel_data, including those that this package does not use."""

import copy
import pickle
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import workspaces
from workspaces import DAYS, Served

import mixpanel_export
from mixpanel_export import Workspace, errors, exceptions, inspection, profiles, results, types
from mixpanel_export.auth import AccountInfo, ConfigManager
from mixpanel_export.credentials import Credentials
from mixpanel_export.errors import APIError, MixpanelDataError, QueryError
from mixpanel_export.simulator import Fault

portal = workspaces.portal
environment = workspaces.environment
served = workspaces.served

AT = datetime(2024, 1, 2, 3, tzinfo=UTC)
REQUEST: dict[str, Any] = {
    "status_code": 402,
    "response_body": '{"error": "no"}',
    "request_method": "GET",
    "request_url": "https://data.mixpanel.com/api/2.0/export",
    "request_params": {"from_date": "2024-01-01"},
    "request_body": {"script": "x"},
}
# The call as mixpanel_data's scripts write it, the code, and the attributes.
CONSTRUCTED: list[tuple[MixpanelDataError, str, dict[str, object]]] = [
    (exceptions.MixpanelDataError("x", code="HTTP_ERROR", details={"a": 1}), "HTTP_ERROR", {"details": {"a": 1}}),
    (exceptions.MixpanelDataError("x", "ODD"), "ODD", {"details": {}}),
    (exceptions.APIError("x", **REQUEST, code="ODD"), "ODD", REQUEST),
    (exceptions.AuthenticationError(), "AUTH_FAILED", {"status_code": 401}),
    (exceptions.AuthenticationError("x", **REQUEST), "AUTH_FAILED", REQUEST),
    (exceptions.RateLimitError(retry_after=7), "RATE_LIMITED", {"status_code": 429, "retry_after": 7}),
    (exceptions.QueryError(), "QUERY_FAILED", {"status_code": 400}),
    (exceptions.QueryError("x", **REQUEST), "QUERY_FAILED", REQUEST),
    (exceptions.ServerError(), "SERVER_ERROR", {"status_code": 500}),
    (exceptions.ConfigError("x", details={"a": 1}), "CONFIG_ERROR", {"details": {"a": 1}}),
    (
        exceptions.AccountNotFoundError("b", available_accounts=["a"]),
        "ACCOUNT_NOT_FOUND",
        {"account_name": "b", "available_accounts": ["a"]},
    ),
    (exceptions.AccountNotFoundError("b"), "ACCOUNT_NOT_FOUND", {"available_accounts": []}),
    (exceptions.AccountExistsError("b"), "ACCOUNT_EXISTS", {"account_name": "b"}),
    (exceptions.TableExistsError("events"), "TABLE_EXISTS", {"table_name": "events"}),
    (exceptions.TableNotFoundError(table_name="events"), "TABLE_NOT_FOUND", {"table_name": "events"}),
    (exceptions.DatabaseLockedError("x.db", 7), "DATABASE_LOCKED", {"db_path": "x.db", "holding_pid": 7}),
    (exceptions.DatabaseLockedError(db_path="x.db"), "DATABASE_LOCKED", {"holding_pid": None}),
    (exceptions.DatabaseNotFoundError("x.db"), "DATABASE_NOT_FOUND", {"db_path": "x.db"}),
    (
        exceptions.DateRangeTooLargeError("2024-01-01", "2024-06-30", 182),
        "DATE_RANGE_TOO_LARGE",
        {"from_date": "2024-01-01", "to_date": "2024-06-30", "days_requested": 182, "max_days": 100},
    ),
    (
        exceptions.EventNotFoundError("Sgn Up", similar_events=["Sign Up"]),
        "EVENT_NOT_FOUND",
        {"event_name": "Sgn Up", "similar_events": ["Sign Up"]},
    ),
    (exceptions.OAuthError("x"), "OAUTH_TOKEN_ERROR", {}),
    (exceptions.OAuthError("x", code="OAUTH_REFRESH_ERROR"), "OAUTH_REFRESH_ERROR", {}),
]  # fmt: skip


@pytest.mark.parametrize("error, code, attributes", CONSTRUCTED)
def test_errors_are_made_as_in_mixpanel_data(
    error: MixpanelDataError, code: str, attributes: dict[str, object]
) -> None:
    """Each call sets the code and the attributes, and names its subject; copies are equal."""
    for each in (error, copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - its own bytes
        assert each.code == each.to_dict()["code"] == code
        assert {name: getattr(each, name) for name in attributes} == attributes
        request = {name: value for name, value in attributes.items() if name.startswith("request_")}
        assert request.items() <= each.details.items() if isinstance(each, APIError) else True
        assert str(each) == each.message == str(error)
    (subject, *_) = [value for value in attributes.values() if isinstance(value, str)] or [""]
    if not isinstance(error, APIError):
        assert subject in str(error)


def test_a_suggestion_is_a_detail(tmp_path: Path) -> None:
    """The advice is in the details, as in mixpanel_data, and in the message."""
    with pytest.raises(errors.DatabaseNotFoundError) as caught:
        Workspace.open(tmp_path / "none.db")
    assert caught.value.details["suggestion"] == caught.value.advice
    assert str(caught.value).endswith(f"; {caught.value.advice}")


def test_an_error_has_its_request(served: Served) -> None:
    """The error of a request has its method, URL and parameters, and no secret."""
    served.simulator.faults = [Fault("402")]
    with pytest.raises(QueryError) as caught:
        served.workspace.fetch_events(**DAYS)
    error = caught.value
    assert (error.status_code, error.request_method, error.request_body) == (402, "GET", None)
    assert error.request_url == f"{served.url}/api/2.0/export"
    assert error.request_params == {**DAYS, "project_id": "12345"}
    assert {name: error.details[name] for name in ("request_method", "request_url", "request_params")} == {
        "request_method": "GET",
        "request_url": error.request_url,
        "request_params": error.request_params,
    }
    assert "demo-secret" not in repr(vars(error))


def test_the_status_of_sql_is_zero(tmp_path: Path) -> None:
    """No request was sent, so it is 0."""
    with Workspace(path=tmp_path / "x.duckdb") as workspace, pytest.raises(QueryError) as caught:
        workspace.sql_rows("SELECT none")
    assert (caught.value.status_code, caught.value.request_url) == (0, None)


@pytest.mark.parametrize("module, homes", [(types, (results, inspection, profiles)), (exceptions, (errors,))])
def test_submodules_have_the_same_names(module: Any, homes: tuple[Any, ...]) -> None:
    """A name in an alias module is the public one, or is defined there and not listed by the package."""
    for name in module.__all__:
        originals = [getattr(home, name) for home in homes if hasattr(home, name)]
        value = getattr(module, name)
        if originals:
            assert originals == [value]
        else:
            assert name not in mixpanel_export.__all__
        assert getattr(mixpanel_export, name) is value


def test_submodules_are_attributes_of_the_package() -> None:
    """After `import mixpanel_export as mp`, `mp.exceptions` and the others exist."""
    for name in ("auth", "exceptions", "types"):
        assert getattr(mixpanel_export, name) is import_module(f"mixpanel_export.{name}")


def test_the_values_for_profiles_are_mixpanel_datas() -> None:
    """They have its fields and keys."""
    page = types.ProfileProgress(0, None, 5, success=True, error=None, cumulative_rows=5)
    assert list(page.to_dict()) == [
        "page_index",
        "total_pages",
        "rows",
        "success",
        "error",
        "cumulative_rows",
    ]
    result = types.ParallelProfileResult("people", 5, 1, 1, (3,), 0.5, AT)
    assert result.has_failures
    assert result.to_dict()["failed_page_indices"] == [3]
    assert types.TableMetadata("events", AT, "2024-01-01").to_dict()["fetched_at"] == AT.isoformat()


def test_accounts_are_managed_as_in_mixpanel_data(tmp_path: Path) -> None:
    """Accounts can be added, listed, used, made the default and removed; the first one is the default."""
    config = ConfigManager(tmp_path / "config.toml")
    config.add_account("b", "svc", "demo-secret", "12345", "EU")
    config.add_account("a", "svc", "demo-secret", "777", "us")
    assert config.list_accounts() == [
        AccountInfo("a", "svc", "777", "us", is_default=False),
        AccountInfo("b", "svc", "12345", "eu", is_default=True),
    ]
    assert config.resolve_credentials() == Credentials("svc", "demo-secret", "12345", "eu")
    assert config.resolve_credentials("a").project_id == "777"
    config.set_default("a")
    config.remove_account("b")
    assert config.get_account("a").to_dict()["is_default"] is True
    with pytest.raises(errors.AccountNotFoundError) as caught:
        config.get_account("b")
    assert caught.value.available_accounts == ["a"]
    assert "demo-secret" not in repr(config.list_accounts())


def test_an_unknown_region_is_a_value_error() -> None:
    """As in mixpanel_data, but it is also a `ConfigError`; upper case is accepted."""
    assert Credentials("svc", "demo-secret", "1", region="EU").region == "eu"
    with pytest.raises(ValueError, match="us, eu or in") as caught:
        Credentials("svc", "demo-secret", "1", region="de")
    assert isinstance(caught.value, errors.ConfigError)


def test_a_secret_may_be_a_secret_string() -> None:
    """Pydantic's `SecretStr` is accepted, and the secret has its method; every repr masks it."""

    class SecretStr:
        def get_secret_value(self) -> str:
            return "demo-secret"

    credentials: Any = Credentials("svc", SecretStr(), "1")  # type: ignore[arg-type]  # as mixpanel_data's scripts do
    assert credentials == Credentials("svc", "demo-secret", "1")
    assert credentials.secret.get_secret_value() == "demo-secret"
    assert "demo-secret" not in repr(credentials)
