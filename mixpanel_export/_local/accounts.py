"""Changes the accounts, the default account, `[defaults]` and `[sync.NAME]` in the configuration file.

The file contains secrets, and other programs read it, too. So a new file, which only its owner can read, replaces the
old file in a single step. If the system does not allow that, as for a file mounted into a container, the old file is
overwritten. All other contents of the file are kept.
"""

import os
import re
from collections.abc import Callable, Mapping, MutableMapping
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import tomlkit
from tomlkit.items import InlineTable, Table

from mixpanel_export._config.masking import Masked
from mixpanel_export._config.system_keyring import delete_secret, store_secret
from mixpanel_export._files import file_to_write, replacing
from mixpanel_export.credentials import Credentials, account_not_found, read_accounts
from mixpanel_export.errors import AccountExistsError, ConfigError

_Table = MutableMapping[str, Any]
_Change = Callable[[tomlkit.TOMLDocument], object]


def add_account(
    path: Path,
    name: str,
    credentials: Credentials,
    *,
    replace: bool = False,
    default: bool = False,
    keyring: bool = False,
) -> bool:
    """Write an account to the file *path*, which is created if needed. Return whether it is now the default account.

    The first account becomes the default account; a later one does so only if *default* is true. If *replace* is true,
    an existing account is replaced, but its keys other than credentials are kept. If *keyring* is true, the secret is
    stored in the system's keyring, not in the file.

    Raises:
        AccountExistsError: There is an account with that name, and *replace* is False.
        ConfigError: The name cannot be displayed, the file cannot be read or written, or there is no usable keyring.
    """
    was_default, accounts = check_new(path, name, replace=replace)
    if keyring:
        store_secret(credentials.username or "", credentials.secret)
    is_default = default or not accounts or was_default == name

    def change(config: tomlkit.TOMLDocument) -> None:
        table = _tables(config)
        if not isinstance(table.get(name), MutableMapping):
            table[name] = tomlkit.table()
        _fill(table[name], credentials, keyring=keyring)
        if is_default:
            config["default"] = name

    _rewrite(path, lambda text: _apply_change(text, change))
    return is_default


def remove_account(path: Path, name: str) -> bool:
    """Remove the account from the file *path*. Return whether it was the default account.

    Raises:
        AccountNotFoundError: The file has no such account.
        ConfigError: The file cannot be read or written.
    """
    was_default = check_known(path, name) == name
    _, accounts = read_accounts(path)
    _rewrite(path, lambda text: _without(text, name, default=was_default))
    removed = accounts.pop(name)
    others = {entry.get("username") for entry in accounts.values() if "keyring" in entry}
    if "keyring" in removed and removed.get("username") not in others:
        delete_secret(removed.get("username", ""))
    return was_default


def set_default(path: Path, name: str) -> None:
    """Make an account in the file *path* the default.

    Raises:
        AccountNotFoundError, ConfigError: See `remove_account`.
    """
    check_known(path, name)

    def change(config: tomlkit.TOMLDocument) -> None:
        config["default"] = name

    _rewrite(path, lambda text: _apply_change(text, change))


def set_defaults(path: Path, *, parallel: bool, mode: str) -> None:
    """Write *parallel* and *mode* into `[defaults]` of the file *path*.

    Raises:
        ConfigError: The file cannot be read or written.
    """

    def change(config: tomlkit.TOMLDocument) -> None:
        if not isinstance(config.get("defaults"), MutableMapping):
            config["defaults"] = tomlkit.table()
        cast("_Table", config["defaults"]).update(parallel=parallel, mode=mode)

    _rewrite(path, lambda text: _apply_change(text, change))


def set_sync_section(path: Path, name: str, values: Mapping[str, Any]) -> None:
    """Write *values* to `[sync.NAME]` in the file *path*. An existing section is replaced.

    Raises:
        ConfigError: The file cannot be read or written.
    """

    def change(config: tomlkit.TOMLDocument) -> None:
        if "sync" not in config:
            config["sync"] = tomlkit.table(is_super_table=True)
        section = tomlkit.table()
        section.update(values)
        cast("_Table", config["sync"])[name] = section

    _rewrite(path, lambda text: _apply_change(text, change))


def check_new(path: Path, name: str, *, replace: bool) -> tuple[str, dict[str, dict[str, str]]]:
    """Check that the account *name* can be added. Return the result of `read_accounts`.

    Raises:
        AccountExistsError, ConfigError: See `add_account`.
    """
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"{name!r} is not a valid account name", advice="choose letters and digits")
    default, accounts = read_accounts(path)
    if name in accounts and not replace:
        raise AccountExistsError(
            name,
            f"{path} already has an account {name!r}",
            advice="choose another name, or pass $replace",
        )
    return default, accounts


def check_known(path: Path, name: str) -> str:
    """Check that the file has the account *name*. Return the file's default account.

    Raises:
        AccountNotFoundError, ConfigError: See `remove_account`.
    """
    default, accounts = read_accounts(path)
    if name not in accounts:
        raise account_not_found(name, path, accounts)
    return default


def _tables(config: tomlkit.TOMLDocument) -> _Table:
    if "accounts" not in config:
        config["accounts"] = tomlkit.table(is_super_table=True)
    return cast("_Table", config["accounts"])


def _fill(table: _Table, credentials: Credentials, *, keyring: bool) -> None:
    values = {
        "username": credentials.username,
        "secret": None if keyring else credentials.secret,
        "project_id": credentials.project_id,
        "region": credentials.region,
        "project_timezone": credentials.project_timezone,
    }
    for key, value in values.items():
        if value is not None:
            table[key] = str(value)
        elif key in table:
            del table[key]
    if keyring:
        table["keyring"] = True
    elif "keyring" in table:
        del table["keyring"]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    try:
        before = Masked(path.read_bytes().decode("utf-8-sig") if path.exists() else "")
        _write(path, Masked(change(before)))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror or error})",
            advice="check its folder, or set MP_CONFIG_PATH to another file",
        ) from error
    except _ShapeError:
        raise ConfigError(
            f"`accounts` in {path} does not consist of tables",
            advice="write each account under [accounts.NAME]",
        ) from None


class _ShapeError(Exception):
    """The accounts of the file are not tables."""


def _apply_change(text: str, change: _Change) -> str:
    config = tomlkit.parse(text)
    accounts = config.get("accounts", {})
    if not isinstance(accounts, MutableMapping) or isinstance(accounts, InlineTable):
        raise _ShapeError
    change(config)
    return tomlkit.dumps(config)


def _without(text: str, name: str, *, default: bool) -> str:
    """Return *text* without the account. Comments below the account are kept, because they belong to the next table."""
    comments = ""

    def remove(config: tomlkit.TOMLDocument) -> None:
        nonlocal comments
        comments = _comments_below(_tables(config).pop(name))

    rest = _with_comments(text, _apply_change(text, remove), comments)
    return _apply_change(rest, lambda config: config.pop("default")) if default else rest


def _comments_below(account: object) -> str:
    body = account.value.body if isinstance(account, Table) else []
    if body and isinstance(body[-1][1], Table):
        return _comments_below(body[-1][1])
    last = max((place for place, (key, _) in enumerate(body, 1) if key is not None), default=0)
    below = "".join(item.as_string() for _, item in body[last:])
    return below if below.strip() else ""


def _with_comments(before: str, after: str, comments: str) -> str:
    """Return *after*, with *comments* inserted before the common last lines of *before* and *after*."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (before, after))
    equal = takewhile(lambda lines: lines[0] == lines[1], zip(reversed(old), reversed(new), strict=False))
    place = len(new) - sum(1 for _ in equal)
    return "".join([*new[:place], comments, *new[place:]])


def _write(path: Path, text: str) -> None:
    file_to_write(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with replacing(path, private=True) as new, new.open("w", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
