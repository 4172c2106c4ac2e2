"""Who asks, and where: explicit first, then the environment, then the configuration file.

A secret lives in `Credentials` only. It is masked in every repr, so a traceback that shows local variables
does not show it either, and no message here quotes a value that could hold one.
"""

import os
import re
import tomllib
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, ip_address
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from mixpanel_export._environment import cleaned, expanded, home, variable
from mixpanel_export._files import kind_of
from mixpanel_export._timezones import checked_zone
from mixpanel_export.errors import AccountNotFoundError, AdvisoryWarning, ConfigError

# From openapi/export.openapi.yaml in the repository mixpanel/docs.
_HOSTS = {
    "us": "https://data.mixpanel.com",
    "eu": "https://data-eu.mixpanel.com",
    "in": "https://data-in.mixpanel.com",
}
_EXPORT_PATH = "/api/2.0/export"
_VARIABLES = {
    "username": "MP_USERNAME",
    "secret": "MP_SECRET",
    "project_id": "MP_PROJECT_ID",
    "region": "MP_REGION",
    "project_timezone": "MPX_PROJECT_TIMEZONE",
}
_API_URL_ADVICE = "set MPX_API_URL to https://HOST[:PORT]"
_QUOTES = ("'", '"', "`", "\u2018", "\u2019", "\u201c", "\u201d")
_IPV4_LOOPBACK = IPv4Network("127.0.0.0/8")


class Masked(str):
    """Text that is itself for a request and `***` for a reader."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What Mixpanel needs to know about the caller.

    With a *username* it is a service account, which needs a *project_id*. Without one, *secret* is a legacy
    project secret, which names its project itself: *project_id* is then kept for file names only and never
    sent. *region* is us, eu or in. *project_timezone* is the zone (an IANA name) of a project whose `time` is
    local, as in projects created before 2023; None for UTC. Raises `ConfigError` for values that no request
    could succeed with, and for an unknown zone.
    """

    username: str | None
    secret: str
    project_id: str
    region: str = "us"
    project_timezone: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "secret", Masked(self.secret))
        if not self.secret:
            raise ConfigError("the secret is empty", advice="set MP_SECRET or the account's `secret`")
        if self.username is not None and not self.project_id:
            raise ConfigError(
                "a service account needs a project",
                advice="set MP_PROJECT_ID, the account's `project_id`, or pass $project_id",
                argument="project_id",
            )
        # Basic authentication ends the user name at the first colon.
        if ":" in (self.secret if self.username is None else self.username):
            raise ConfigError(
                "a user name or a project secret cannot contain a colon",
                advice="check MP_USERNAME and MP_SECRET",
            )
        checked_project_id(self.project_id)
        _check_region(self.region)
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
        """The query parameters that belong to the credentials: none for a project secret."""
        return {} if self.is_legacy else {"project_id": self.project_id}


def checked_project_id(project_id: str) -> str:
    """Return *project_id*; `ConfigError` where it is none. A file is named after it, so it must not be a path."""
    if not re.fullmatch(r"[A-Za-z0-9_-]*", project_id):
        raise ConfigError(
            f"{project_id!r} is not a project id",
            advice="set MP_PROJECT_ID to the project's number",
            argument="project_id",
        )
    return project_id


def _check_region(region: str) -> None:
    if region not in _HOSTS:
        raise ConfigError(
            f"there is no region {region!r}",
            advice="set MP_REGION or $region to us, eu or in",
            argument="region",
        )


def _check_zone(project_timezone: str | None) -> None:
    try:
        checked_zone(project_timezone)
    except ValueError as error:
        raise ConfigError(
            f"there is no time zone {project_timezone!r}",
            advice="set MPX_PROJECT_TIMEZONE or the account's `project_timezone` to an IANA name such as US/Pacific",
            argument="project_timezone",
        ) from error


def export_url(region: str, api_url: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """Return the address of the export endpoint.

    *api_url*, else `MPX_API_URL`, replaces scheme, host and port; plain http is for loopback only. Raises
    `ConfigError` for anything else.
    """
    _check_region(region)
    base = api_url or variable("MPX_API_URL", environ)
    return (_checked_base(base) if base else _HOSTS[region]) + _EXPORT_PATH


def _checked_base(api_url: str) -> str:
    """Return scheme, host and port, put together again so that every reader of it sees the same host."""
    try:
        parts = urlsplit(api_url.strip())
        port = parts.port
    except ValueError:
        raise ConfigError("the API URL is not a URL", advice=_API_URL_ADVICE) from None
    host = _checked_host(parts)
    if parts.scheme == "http" and not _is_loopback(host):
        raise ConfigError(
            f"http://{host} would send the secret unencrypted", advice="set MPX_API_URL to an https URL"
        )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}" + ("" if port is None else f":{port}")


def _checked_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    is_name = re.fullmatch(r"[\w.-]+", host) is not None
    bare = parts.path in {"", "/"} and not (parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme not in {"https", "http"} or not bare or not (is_name or _is_ipv6(host)):
        raise ConfigError(
            "the API URL may have a scheme, a host and a port, but no path, user or query",
            advice=_API_URL_ADVICE,
        )
    return host


def _is_ipv6(host: str) -> bool:
    return re.fullmatch(r"[0-9a-f:.]*:[0-9a-f:.]*", host) is not None


def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return host == "localhost"
    return address == IPv6Address("::1") or address in _IPV4_LOOPBACK


def resolve_credentials(
    account: str | None = None,
    *,
    project_id: str | None = None,
    region: str | None = None,
    environ: Mapping[str, str] | None = None,
    config_path: Path | None = None,
) -> Credentials:
    """Find the credentials to use; *project_id* and *region* override what is found.

    Looks at the *account* of that name in the configuration file, where one is given, else at `MP_USERNAME`,
    `MP_SECRET`, `MP_PROJECT_ID`, `MP_REGION` and `MPX_PROJECT_TIMEZONE`, else at the file's default account. The
    file is *config_path*, else `MP_CONFIG_PATH`, else `~/.mp/config.toml`.

    Warns about a project secret without a user name, about a file that others may read, and where the variable
    for the zone is set, but the account is the file's and names none: a zone belongs to a project, so it is
    taken from where the project is. Raises `AccountNotFoundError` where the file has no such account,
    `ConfigError` where nothing usable is found.
    """
    variables = _variables(environ)
    overrides = {"project_id": project_id, "region": region}
    if account is None and _in_environment(variables):
        found = {key: variables[name] for key, name in _VARIABLES.items()}
        return _credentials(found, overrides, _VARIABLES)
    path = config_path or config_file(environ)
    name, entry = _account(account, path)
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
    """Return the name of the account that `resolve_credentials` takes of the file; None: it takes the environment.

    Raises what that raises where there is no such account.
    """
    if account is None and _in_environment(_variables(environ)):
        return None
    return _account(account, config_path or config_file(environ))[0]


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the configuration file: `MP_CONFIG_PATH`, else `~/.mp/config.toml`.

    Raises:
        ConfigError: the variable is not set, and there is no home directory.
    """
    if named := variable("MP_CONFIG_PATH", environ):
        return expanded(named)
    folder = home()
    if folder is None:
        raise ConfigError(
            "there are no credentials in the environment, and no home directory with a configuration file",
            advice="set MP_USERNAME, MP_SECRET and MP_PROJECT_ID, or name a file in MP_CONFIG_PATH",
        )
    return folder / ".mp" / "config.toml"


def _variables(environ: Mapping[str, str] | None) -> dict[str, str]:
    """Return the variables that hold credentials; empty text stands for those that are not set."""
    values = {name: _visible(variable(name, environ) or "") for name in _VARIABLES.values()}
    return values | {"MP_SECRET": Masked(values["MP_SECRET"])}


def cleaned_secret(text: str) -> str:
    """Return a secret without what tools add: white space, quotes, a byte order mark, invisible characters."""
    return Masked(_visible(cleaned(text)))


def _visible(text: str) -> str:
    """Return *text* without characters of no width, which no credentials contain."""
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def _in_environment(variables: Mapping[str, str]) -> bool:
    return bool(variables["MP_USERNAME"] or variables["MP_SECRET"])


def _credentials(
    found: Mapping[str, str], overrides: Mapping[str, str | None], names: Mapping[str, str]
) -> Credentials:
    chosen = {key: overrides.get(key) or found.get(key, "") for key in _VARIABLES}
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
        chosen["region"].lower() or "us",
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
    """Return name and entries of the account, or of the file's default account."""
    default, accounts = read_accounts(path)
    if not accounts and account is None:
        raise ConfigError(
            "there are no credentials",
            advice="set MP_USERNAME, MP_SECRET and MP_PROJECT_ID (and MP_REGION unless it is us), or add an account to "
            f"{path} with `mpx accounts add NAME`; `mpx demo` shows an export without an account",
        )
    name = account or default
    listed = ", ".join(sorted(accounts)) or "no accounts"
    if not name:
        raise ConfigError(f"{path} has no `default` account", advice=f"name one of its accounts: {listed}")
    if name not in accounts:
        raise AccountNotFoundError(
            f"there is no account {name!r} in {path}",
            advice=f"name one that it has: {listed}",
            account_name=name,
            available_accounts=sorted(accounts),
        )
    return name, accounts[name]


def _warn_of_readers(path: Path) -> None:
    # Windows has no such bits; there the profile folder is private by default.
    if os.name == "posix" and path.stat().st_mode & 0o077:
        warnings.warn(
            AdvisoryWarning(f"other users can read the secrets in {path}", advice=f"run `chmod 600 {path}`"),
            stacklevel=3,
        )


def read_accounts(path: Path) -> tuple[str, dict[str, dict[str, str]]]:
    """Return the name of the default account, perhaps empty, and the accounts, whose secrets are masked.

    Raises `ConfigError` where the file is no TOML; one that is not there has no accounts.
    """
    try:
        if not path.exists() or path.samefile(os.devnull):
            return "", {}
        if kind := kind_of(path):
            raise ConfigError(
                f"{path} is {kind}, not a configuration file", advice="name another file in MP_CONFIG_PATH"
            )
        config = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        # Without its cause, whose frames hold the text of the file.
        raise ConfigError(
            f"{path} is not valid TOML ({error})", advice="correct the file, and save it as UTF-8"
        ) from None
    accounts = config.get("accounts")
    tables = accounts.items() if isinstance(accounts, dict) else ()
    return str(config.get("default", "")), {
        name: _entry(table) for name, table in tables if isinstance(table, dict)
    }


def _entry(table: Mapping[str, object]) -> dict[str, str]:
    entry = {key: cleaned(str(value)) for key, value in table.items()}
    return entry | {"secret": cleaned_secret(entry.get("secret", ""))}


def format_problem(credentials: Credentials) -> str | None:
    """Say what looks wrong about the user name or the secret, without showing it; None if nothing does.

    Mixpanel decides. This is for people whose credentials it has refused.
    """
    texts = {"the secret": str(credentials.secret), "the user name": credentials.username or ""}
    problems = [f"{name} {problem}" for name, text in texts.items() if (problem := _text_problem(text))]
    return " and ".join(problems) or None


def _text_problem(text: str) -> str | None:
    if re.match(r"\$\{?\w+\}?$|%\w+%$", text):
        return "looks like the name of a variable, not like its value"
    if re.search(r"\s", text):
        return "contains white space"
    if text.startswith(_QUOTES) or text.endswith(_QUOTES):
        return "begins or ends with a quotation mark"
    if not (text.isascii() and text.isprintable()):
        return "contains characters that Mixpanel's have not"
    return None
