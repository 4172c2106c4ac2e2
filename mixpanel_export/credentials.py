"""Finds the credentials in arguments, in environment variables or in the configuration file.

Only `Credentials` contains secrets. Every repr masks them, so that a traceback with local variables does not show
them. Messages never quote a value that may be a secret.
"""

import os
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from mixpanel_export._config.config_file import config_file, read_config
from mixpanel_export._config.endpoint import check_region
from mixpanel_export._config.environment import cleaned, variable
from mixpanel_export._config.masking import Masked, cleaned_secret, masked, text_problem, without_invisible
from mixpanel_export._config.secret_variable import secret_variable
from mixpanel_export._config.system_keyring import read_secret
from mixpanel_export._suggestions import did_you_mean
from mixpanel_export._timezones import checked_zone
from mixpanel_export.errors import AccountNotFoundError, AdvisoryWarning, ConfigError

_VARIABLES = {
    "username": "MP_USERNAME",
    "secret": "MP_SECRET",
    "project_id": "MP_PROJECT_ID",
    "region": "MP_REGION",
    "project_timezone": "MPX_PROJECT_TIMEZONE",
}


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a service account, or a legacy project secret.

    Raises `ConfigError` for values that Mixpanel would always reject, and for an unknown time zone.

    Example:
        Credentials("svc.ab12cd.mp-service-account", secret, "12345", region="eu")
    """

    username: str | None
    """The service account's user name; None for a project secret."""
    secret: str
    """Masked in every repr. Pydantic's `SecretStr` is accepted as well; `get_secret_value()` returns the plain text."""
    project_id: str
    """Required for a service account. With a project secret, it only determines the default file, and is not sent."""
    region: str = "us"
    """us, eu or in, in upper or lower case."""
    project_timezone: str | None = None
    """The IANA name of the project's time zone, if the `time` of its events is local; None if it is in UTC.

    Only projects created before 2023 have local times.
    """

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", masked(self.secret))
        object.__setattr__(self, "region", self.region.lower())
        if not self.secret:
            raise ConfigError("the secret is empty", advice="set MP_SECRET or the account's `secret`")
        if self.username is not None and not self.project_id:
            raise ConfigError(
                "a service account needs a project",
                advice="set MP_PROJECT_ID, the account's `project_id`, or pass $project_id",
                argument="project_id",
            )
        # In basic authentication, the user name ends at the first colon.
        if ":" in (self.secret if self.username is None else self.username):
            raise ConfigError(
                "a user name or a project secret cannot contain a colon",
                advice="check MP_USERNAME and MP_SECRET",
            )
        try:
            "".join(self.auth).encode()
        except UnicodeEncodeError:
            raise ConfigError(
                "the user name or the secret contains bytes that are not text in UTF-8",
                advice="copy MP_USERNAME and MP_SECRET again",
            ) from None
        checked_project_id(self.project_id)
        check_region(self.region)
        _check_zone(self.project_timezone)

    @property
    def is_legacy(self) -> bool:
        """Whether this is a legacy project secret, which Mixpanel retires on 2027-03-03."""
        return self.username is None

    @property
    def auth(self) -> tuple[str, str]:
        """User name and password for Basic authentication."""
        return (self.secret, "") if self.username is None else (self.username, self.secret)

    @property
    def params(self) -> dict[str, str]:
        """Query parameters that identify the project; none for a project secret."""
        return {} if self.is_legacy else {"project_id": self.project_id}


def checked_project_id(project_id: str) -> str:
    """Return *project_id*, which becomes part of a file name. Raise `ConfigError` if it cannot be an id."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", project_id):
        raise ConfigError(
            f"{project_id!r} is not a project id",
            advice="set MP_PROJECT_ID to the project's number",
            argument="project_id",
        )
    return project_id


def _check_zone(project_timezone: str | None) -> None:
    try:
        checked_zone(project_timezone)
    except ValueError as error:
        raise ConfigError(
            f"there is no time zone {project_timezone!r}",
            advice="set MPX_PROJECT_TIMEZONE or the account's `project_timezone` to an IANA name such as US/Pacific",
            argument="project_timezone",
        ) from error


def resolve_credentials(
    account: str | None = None,
    *,
    project_id: str | None = None,
    region: str | None = None,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
) -> Credentials:
    """Return the credentials to use. If *project_id* or *region* is given, it overrides the value from the source.

    The sources, in this order, are:

    1. the account *account* in the configuration file, if *account* is given
    2. the variables `MP_USERNAME`, `MP_SECRET` (or the file in `MP_SECRET_FILE`), `MP_PROJECT_ID`, `MP_REGION` and
       `MPX_PROJECT_TIMEZONE`
    3. the default account in the configuration file

    The configuration file is *config_path*, else `MP_CONFIG_PATH`, else `~/.mp/config.toml`. If *account* and the
    variables have different projects, `MPX_PREFER` (account or environment) selects the source. If it is unset,
    `ConfigError` is raised, unless *project_id* is given.

    Warns about a project secret without a user name, and about a file that other users can read. If the account comes
    from the file, `MPX_PROJECT_TIMEZONE` is ignored with a warning, because it may belong to another project.

    Raises:
        AccountNotFoundError: The file has no such account.
        ConfigError: There are no usable credentials, or they are ambiguous.
    """
    variables = _variables(environ)
    overrides = {"project_id": project_id, "region": region}
    chosen = _account_to_use(account, variables, environ, config_path, project_id)
    if chosen is None:
        values = {key: variables[name] for key, name in _VARIABLES.items()}
        return _credentials(values, overrides, _VARIABLES)
    path, name, entry = chosen
    if entry.get("keyring", "").lower() == "true":
        entry = entry | {"secret": read_secret(entry.get("username", ""))}
    if variables["MP_REGION"]:
        check_region(variables["MP_REGION"].lower())  # reports a mistake even in a variable that is not used
    _warn_of_readers(path)
    if variables["MPX_PROJECT_TIMEZONE"] and not entry.get("project_timezone"):
        warnings.warn(
            AdvisoryWarning(
                f"MPX_PROJECT_TIMEZONE does not apply to account {name!r} of {path}",
                advice="set the account's `project_timezone` there, to UTC if its times are in UTC",
            ),
            stacklevel=2,
        )
    return _credentials(
        entry, overrides, {key: f"`{key}` of account {name!r} in {path}" for key in _VARIABLES}
    )


def account_used(
    account: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
) -> str | None:
    """Return the name of the account that `resolve_credentials` uses, or None if it uses the environment.

    Raises the same errors as `resolve_credentials`.
    """
    chosen = _account_to_use(account, _variables(environ), environ, config_path)
    return chosen and chosen[1]


def _variables(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables that contain or select credentials. The value of an unset variable is ""."""
    names = [*_VARIABLES.values(), "MPX_PREFER"]
    values = {name: without_invisible(variable(name, environ) or "") for name in names}
    return values | {"MP_SECRET": secret_variable(environ)}


def _account_to_use(
    account: str | None,
    variables: Mapping[str, str],
    environ: Mapping[str, str] | None,
    config_path: Path | None,
    project_id: str | None = None,
) -> tuple[Path, str, dict[str, str]] | None:
    """Return the file, name and entries of the account to use; None if the environment variables apply instead."""
    if account is None and _in_environment(variables):
        return None
    path = config_path or config_file(environ)
    name, entry = _account(account, path)
    if account is not None and not project_id and _prefers_environment(name, entry, variables):
        return None
    return path, name, entry


def _prefers_environment(name: str, entry: Mapping[str, str], variables: Mapping[str, str]) -> bool:
    """Whether the account and the variables have different projects, and `MPX_PREFER` selects the variables.

    Raises:
        ConfigError: The projects differ, and `MPX_PREFER` is not set.
    """
    in_account = entry.get("project_id")
    in_variables = variables["MP_SECRET"] and variables["MP_PROJECT_ID"]
    if not (in_account and in_variables) or in_account == in_variables:
        return False
    prefer = variables["MPX_PREFER"].lower()
    if prefer not in {"account", "environment"}:
        raise ConfigError(
            f"account {name!r} has project {in_account}, but MP_PROJECT_ID is {in_variables}",
            advice="leave out the account, unset MP_PROJECT_ID, or set MPX_PREFER to account or environment",
        )
    return prefer == "environment"


def _in_environment(variables: Mapping[str, str]) -> bool:
    return bool(variables["MP_USERNAME"] or variables["MP_SECRET"])


def _credentials(
    values: Mapping[str, str], overrides: Mapping[str, str | None], names: Mapping[str, str]
) -> Credentials:
    chosen = {key: overrides.get(key) or values.get(key, "") for key in _VARIABLES}
    if not chosen["secret"]:
        raise ConfigError("there is a user name, but no secret", advice=f"set {names['secret']}")
    if chosen["username"] and not chosen["project_id"]:
        raise ConfigError(
            "there is a user name and a secret, but no project",
            advice=f"set {names['project_id']} or pass $project_id",
            argument="project_id",
        )
    credentials = Credentials(
        chosen["username"] or None,
        Masked(chosen["secret"]),
        chosen["project_id"],
        chosen["region"] or "us",
        chosen["project_timezone"] or None,
    )
    if credentials.is_legacy:
        warnings.warn(
            AdvisoryWarning(
                f"a project secret is used because there is no user name ({names['username']})",
                advice="create a service account, since Mixpanel retires project secrets on 2027-03-03",
            ),
            stacklevel=3,
        )
    return credentials


def _account(account: str | None, path: Path) -> tuple[str, dict[str, str]]:
    """Return the name and entries of *account*, or of the default account."""
    default, accounts = read_accounts(path)
    if not accounts and account is None:
        raise ConfigError(
            "there are no credentials",
            advice="set MP_USERNAME, MP_SECRET and MP_PROJECT_ID (and MP_REGION unless it is us), or add an account to "
            f"{path} with `mpx accounts add NAME`; `mpx demo` shows an export without an account",
        )
    name = account or default
    if not name:
        raise ConfigError(f"{path} has no `default` account", advice=_choice(accounts))
    if name not in accounts:
        raise account_not_found(name, path, accounts)
    return name, accounts[name]


def account_not_found(name: str, path: Path, accounts: Collection[str]) -> AccountNotFoundError:
    """Return the error for an account that the file does not have."""
    return AccountNotFoundError(
        name,
        sorted(accounts),
        f"there is no account {name!r} in {path}",
        advice=did_you_mean(name, accounts) + _choice(accounts),
    )


def _choice(accounts: Collection[str]) -> str:
    if not accounts:
        return "add an account with `mpx accounts add NAME`"
    return f"choose one of its accounts: {', '.join(sorted(accounts))}"


def _warn_of_readers(path: Path) -> None:
    # Windows has no such permission bits. There, the profile folder is private by default.
    if os.name == "posix" and path.stat().st_mode & 0o077:
        warnings.warn(
            AdvisoryWarning(f"other users can read the secrets in {path}", advice=f"run `chmod 600 {path}`"),
            stacklevel=3,
        )


def read_accounts(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the name of the default account, or "", and the entries of all accounts, with masked secrets.

    A file that does not exist has no accounts. Raises `ConfigError` if the file cannot be read or is not TOML.
    """
    config = read_config(path)
    accounts = config.get("accounts")
    tables = accounts.items() if isinstance(accounts, dict) else ()
    return str(config.get("default", "")), {
        name: _entry(table) for name, table in tables if isinstance(table, dict)
    }


def _entry(table: Mapping[str, object]) -> dict[str, str]:
    entry = {key: cleaned(str(value)) for key, value in table.items()}
    return entry | {"secret": cleaned_secret(entry.get("secret", ""))}


def format_problem(credentials: Credentials) -> str | None:
    """Describe what looks wrong with the user name or the secret, without quoting them; None if both look right.

    Credentials that look wrong are still sent. If Mixpanel rejects them, the description is added to the error.
    """
    texts = {"the secret": str(credentials.secret), "the user name": credentials.username or ""}
    problems = [f"{name} {problem}" for name, text in texts.items() if (problem := text_problem(text))]
    return " and ".join(problems) or None
