"""Where credentials come from, which are rejected, and that a secret is never shown."""

import os
import traceback
import warnings
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._config.endpoint import export_url
from mixpanel_export.credentials import (
    Credentials,
    account_used,
    read_accounts,
    resolve_credentials,
)
from mixpanel_export.errors import AccountNotFoundError, ConfigError

SECRET = "s3cr3t-V4lue"
ENVIRON = {"MP_USERNAME": "svc.1", "MP_SECRET": SECRET, "MP_PROJECT_ID": "42", "MP_REGION": "eu"}
CONFIG = f"""
default = "main"

[accounts.main]
username = "svc.main"
secret = "{SECRET}"
project_id = 7
region = "in"

[accounts.other]
username = "svc.other"
secret = "{SECRET}"
project_id = "8"
project_timezone = "Europe/Berlin"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(CONFIG, encoding="utf-8")
    path.chmod(0o600)
    return path


def shown_with_locals(error: BaseException) -> str:
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


def test_a_service_account_sends_user_secret_and_project() -> None:
    """A service account authenticates with user name and secret and names its project."""
    credentials = Credentials("svc.1", SECRET, "42", "eu")
    assert credentials.auth == ("svc.1", SECRET)
    assert credentials.params == {"project_id": "42"}
    assert not credentials.is_legacy


def test_a_project_secret_sends_no_project() -> None:
    """A legacy project secret is the user name with an empty password, and project_id is not sent with it."""
    credentials = Credentials(None, SECRET, "42")
    assert credentials.auth == (SECRET, "")
    assert credentials.params == {}
    assert credentials.is_legacy


@pytest.mark.parametrize("show", [repr, str, "{}".format, lambda credentials: f"{credentials.auth}"])
def test_no_rendering_shows_the_secret(show: Callable[[Credentials], str]) -> None:
    """The secret is masked wherever credentials, or the request's parameters, are displayed."""
    for credentials in (Credentials("svc.1", SECRET, "42"), Credentials(None, SECRET, "42")):
        assert SECRET not in show(credentials)
        assert "***" in show(credentials)


def test_no_traceback_shows_the_secret(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback with local variables shows no secret, whatever is wrong with the credentials."""
    for name, value in (ENVIRON | {"MP_REGION": "mars"}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as wrong_region:
        resolve_credentials()
    with pytest.raises(AccountNotFoundError) as no_account:
        resolve_credentials("nobody", config_path=config)
    config.write_text(CONFIG + "[broken", encoding="utf-8")
    with pytest.raises(ConfigError) as broken:
        resolve_credentials("main", config_path=config)
    for caught in (wrong_region, no_account, broken):
        assert SECRET not in shown_with_locals(caught.value)


@pytest.mark.parametrize(
    "arguments, remedy",
    [
        (("svc.1", "", "42"), "MP_SECRET"),
        (("svc.1", SECRET, ""), "MP_PROJECT_ID"),
        (("svc.1", SECRET, "42", "USA"), "us, eu or in"),
        (("svc:1", SECRET, "42"), "colon"),
        ((None, "with:colon", ""), "colon"),
        (("svc.1", SECRET, "../42"), "MP_PROJECT_ID"),
        (("svc.1", SECRET, "42", "us", "Mars/Olympus"), "MPX_PROJECT_TIMEZONE.*US/Pacific"),
        (("svc.1", SECRET, "42", "us", ""), "MPX_PROJECT_TIMEZONE"),
    ],
)
def test_unusable_values_are_refused_with_a_remedy(arguments: tuple[str, ...], remedy: str) -> None:
    """Values with which no request could succeed raise an error with advice."""
    with pytest.raises(ConfigError, match=remedy) as caught:
        Credentials(*arguments)
    assert SECRET not in str(caught.value)


def test_a_named_account_comes_before_the_environment(config: Path) -> None:
    """A named account is used even if the environment is complete for the same project."""
    found = resolve_credentials("other", environ=ENVIRON | {"MP_PROJECT_ID": "8"}, config_path=config)
    assert found == Credentials("svc.other", SECRET, "8", "us", "Europe/Berlin")


def test_the_environment_comes_before_the_default_account(config: Path) -> None:
    """If no account is named, the environment is used before the file's default."""
    assert resolve_credentials(environ=ENVIRON, config_path=config) == Credentials(
        "svc.1", SECRET, "42", "eu"
    )


def test_the_default_account_is_the_last_resort(config: Path) -> None:
    """Without an account and an environment, the default account in the file of MP_CONFIG_PATH is used."""
    found = resolve_credentials(environ={"MP_CONFIG_PATH": str(config)})
    assert found == Credentials("svc.main", SECRET, "7", "in")


def test_the_default_file_is_in_the_home_folder(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MP_CONFIG_PATH, the file is .mp/config.toml in the home folder."""
    home = config.parent
    (home / ".mp").mkdir()
    config.rename(home / ".mp" / "config.toml")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert resolve_credentials(environ={}).username == "svc.main"


def test_the_account_that_is_used_can_be_named(config: Path) -> None:
    """By name, by default, or None if the environment takes precedence; a missing account raises the same error."""
    assert account_used("other", environ=ENVIRON | {"MP_PROJECT_ID": "8"}, config_path=config) == "other"
    assert account_used(environ={"MP_CONFIG_PATH": str(config)}) == "main"
    assert account_used(environ=ENVIRON, config_path=config) is None
    with pytest.raises(AccountNotFoundError, match="nobody"):
        account_used("nobody", environ=ENVIRON, config_path=config)
    with pytest.raises(ConfigError, match="mpx accounts add"):
        account_used(environ={}, config_path=config.with_name("none.toml"))


def test_accounts_are_read_with_their_secrets_masked(config: Path) -> None:
    """Lists and completion also read the file, show no secret, and cause no warning."""
    config.chmod(0o644)
    default, accounts = read_accounts(config)
    assert (default, list(accounts)) == ("main", ["main", "other"])
    assert SECRET not in repr(accounts)
    assert read_accounts(config.with_name("none.toml")) == ("", {})


def test_arguments_override_every_source(config: Path) -> None:
    """An explicit project or region overrides every source of the credentials."""
    from_file = resolve_credentials("main", project_id="9", region="eu", environ={}, config_path=config)
    from_environment = resolve_credentials(project_id="9", region="in", environ=ENVIRON)
    assert (from_file.project_id, from_file.region) == ("9", "eu")
    assert (from_environment.project_id, from_environment.region) == ("9", "in")


def test_the_region_is_us_unless_said_otherwise() -> None:
    """If MP_REGION is missing, the region is us."""
    environ = {name: value for name, value in ENVIRON.items() if name != "MP_REGION"}
    assert resolve_credentials(environ=environ).region == "us"


def test_the_zone_comes_from_where_the_project_comes(config: Path) -> None:
    """The zone belongs to the project: it comes from the account, or from the environment with its credentials."""
    environ = ENVIRON | {"MPX_PROJECT_TIMEZONE": "US/Pacific\n"}
    assert resolve_credentials(environ=environ, config_path=config).project_timezone == "US/Pacific"
    assert resolve_credentials(environ=ENVIRON, config_path=config).project_timezone is None
    other = resolve_credentials("other", environ=environ | {"MP_PROJECT_ID": "8"}, config_path=config)
    assert other.project_timezone == "Europe/Berlin"


@pytest.mark.parametrize("account", ["main", None])
def test_a_variable_for_the_zone_is_not_ignored_silently(account: str | None, config: Path) -> None:
    """If an account in the file has no zone, the variable does not apply to it, and one warning says so."""
    environ = {"MPX_PROJECT_TIMEZONE": "US/Pacific"}
    with pytest.warns(UserWarning, match=r"MPX_PROJECT_TIMEZONE .* 'main'") as caught:
        found = resolve_credentials(account, environ=environ, config_path=config)
    assert found.project_timezone is None
    assert [warning.filename for warning in caught] == [__file__]
    assert str(config) in str(caught[0].message)


def test_an_argument_can_supply_the_missing_project() -> None:
    """MP_PROJECT_ID is not required if project_id is given."""
    environ = {"MP_USERNAME": "svc.1", "MP_SECRET": SECRET}
    assert resolve_credentials(project_id="9", environ=environ).project_id == "9"


def test_space_around_a_variable_does_not_count() -> None:
    """The newline of a secret that was read from a file is not part of it."""
    environ = {name: f"{value}\n" for name, value in ENVIRON.items()}
    assert resolve_credentials(environ=environ) == resolve_credentials(environ=ENVIRON)


@pytest.mark.parametrize("missing", ["MP_SECRET", "MP_PROJECT_ID"])
@pytest.mark.parametrize("how", ["unset", "empty"])
def test_a_half_set_environment_names_what_is_missing(missing: str, how: str, config: Path) -> None:
    """A user name without a secret or a project is an error that names the variable; the search does not continue."""
    environ = {name: value for name, value in ENVIRON.items() if name != missing}
    if how == "empty":
        environ[missing] = ""
    with pytest.raises(ConfigError, match=missing):
        resolve_credentials(environ=environ, config_path=config)


def test_a_project_secret_warns_once() -> None:
    """MP_SECRET without MP_USERNAME works, with exactly one warning that has the date of retirement."""
    with pytest.warns(UserWarning, match="MP_USERNAME.*2027-03-03") as caught:
        found = resolve_credentials(environ={"MP_SECRET": SECRET, "MP_PROJECT_ID": "42"})
    assert found == Credentials(None, SECRET, "42")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert SECRET not in str(caught[0].message)


def test_nothing_at_all_says_what_to_do(tmp_path: Path) -> None:
    """Without any source, the error names the variables, the file and the demo."""
    path = tmp_path / "none.toml"
    with pytest.raises(ConfigError) as caught:
        resolve_credentials(environ={}, config_path=path)
    for word in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_REGION", str(path), "mpx demo"):
        assert word in str(caught.value)


def test_an_unknown_account_lists_the_known_ones(config: Path) -> None:
    """An unknown account is an error that lists the known ones."""
    with pytest.raises(AccountNotFoundError, match="main, other") as caught:
        resolve_credentials("nobody", environ=ENVIRON, config_path=config)
    assert caught.value.account_name == "nobody"
    assert caught.value.available_accounts == ["main", "other"]


def test_an_account_without_any_file_is_not_found(tmp_path: Path) -> None:
    """A named account is not replaced by the environment if there is no file."""
    with pytest.raises(AccountNotFoundError) as caught:
        resolve_credentials("main", environ=ENVIRON, config_path=tmp_path / "none.toml")
    assert caught.value.available_accounts == []


@pytest.mark.parametrize(
    "text, remedy",
    [
        ("default = ", "config.toml.*correct the file"),
        ("[accounts.main]\nusername = 'svc'\nsecret = 's'\nproject_id = '1'\n", "no `default`.*main"),
        (
            "default = 'main'\n[accounts.main]\nusername = 'svc'\nsecret = 's'\n",
            "`project_id` of account 'main'",
        ),
        ("default = 'main'\n[accounts.main]\nusername = 'svc'\n", "`secret` of account 'main'"),
        ("accounts = 3\n", "mpx demo"),
    ],
)
def test_a_faulty_file_is_named(text: str, remedy: str, config: Path) -> None:
    """A file that cannot be used is an error that names the file and the correction."""
    config.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=remedy) as caught:
        resolve_credentials(environ={}, config_path=config)
    assert str(config) in str(caught.value)


def test_a_file_that_others_may_read_warns_once(config: Path) -> None:
    """If the platform has file modes, one warning says that others can read the secrets, and how to prevent it."""
    config.chmod(0o644)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resolve_credentials(environ={}, config_path=config)
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == (1 if os.name == "posix" else 0)
    assert all("chmod 600" in message for message in messages)
    assert all(warning.filename == __file__ for warning in caught)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENVIRON, "MP_CONFIG_PATH", "MPX_API_URL", "MPX_PROJECT_TIMEZONE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "region, host",
    [("us", "data.mixpanel.com"), ("eu", "data-eu.mixpanel.com"), ("in", "data-in.mixpanel.com")],
)
def test_each_region_has_its_host(region: str, host: str) -> None:
    """Each region has its own host."""
    assert export_url(region) == f"https://{host}/api/2.0/export"


@pytest.mark.parametrize(
    "given, base",
    [
        ("https://proxy.example", "https://proxy.example"),
        ("https://proxy.example:8443/", "https://proxy.example:8443"),
        ("HTTP://LOCALHOST:8080", "http://localhost:8080"),
        ("http://127.3.2.1", "http://127.3.2.1"),
        ("http://[::1]:99", "http://[::1]:99"),
        ("https://[2001:db8::1]", "https://[2001:db8::1]"),
    ],
)
def test_the_host_can_be_replaced(given: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An API URL, as an argument or in the environment, replaces scheme, host and port; the argument wins."""
    assert export_url("us", given) == f"{base}/api/2.0/export"
    monkeypatch.setenv("MPX_API_URL", given)
    assert export_url("eu") == f"{base}/api/2.0/export"
    assert export_url("eu", "https://other.example") == "https://other.example/api/2.0/export"


@pytest.mark.parametrize(
    "given",
    [
        "http://proxy.example",
        "http://128.0.0.1",
        "http://0.0.0.0",
        "http://127.0.0.1.example",
        "http://localhost@proxy.example",
        "http://127.0.0.1\\@proxy.example",
        "http://[::2]",
        "http://[::ffff:8.8.8.8]",
        "https://proxy.example/base",
        "https://proxy.example?token=1",
        "https://proxy.example#part",
        "https://user:pass@proxy.example",
        "https://proxy.example:port",
        "https://proxy example",
        "https://",
        "proxy.example",
        "ftp://proxy.example",
        "https://[::1",
    ],
)
def test_an_unsafe_or_unclear_url_is_refused(given: str) -> None:
    """HTTP beyond loopback, and anything but scheme, host and port, is rejected with advice."""
    with pytest.raises(ConfigError, match="MPX_API_URL") as caught:
        export_url("us", given)
    assert "pass@" not in str(caught.value)
    assert "token" not in str(caught.value)


def test_an_unknown_region_has_no_url() -> None:
    """A region that does not exist is an error even if the host is replaced."""
    with pytest.raises(ConfigError, match="us, eu or in"):
        export_url("mars", "https://proxy.example")


PIECES = [
    "127.0.0.1",
    "localhost",
    "[::1]",
    "proxy.example",
    "@",
    "\\",
    "/",
    "#",
    "?",
    ":",
    "80",
    ".",
    "%40",
    " ",
]


@given(st.lists(st.sampled_from(PIECES), max_size=5).map("".join))
def test_clear_text_never_leaves_the_machine(text: str) -> None:
    """Whatever follows http://, a client that uses the result connects only to loopback."""
    try:
        url = export_url("us", f"http://{text}")
    except ConfigError:
        return
    host = httpx.URL(url).host
    assert host == "localhost" or ip_address(host).is_loopback
