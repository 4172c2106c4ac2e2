"""The accounts of the configuration file, changed so that whatever else is in it stays as it is.

The file holds secrets and other programs read it, too. So it is never written in place: a new file, which its
owner alone may read from the beginning, takes the old one's place in one step. Whoever reads meanwhile, and
whatever fails on the way, finds the old file or the new one.
"""

import os
import re
import tempfile
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import tomlkit
from tomlkit.items import InlineTable, Table

from mixpanel_export.credentials import Credentials, Masked, read_accounts
from mixpanel_export.errors import AccountExistsError, AccountNotFoundError, ConfigError

_Table = MutableMapping[str, Any]
_Change = Callable[[tomlkit.TOMLDocument], object]


def add_account(
    path: Path, name: str, credentials: Credentials, *, replace: bool = False, default: bool = False
) -> bool:
    """Write an account to the file *path*, which is created where there is none; whether it is the default now.

    The first account becomes the default, others if *default*. An account that is *replaced* keeps what else
    was written to it.

    Raises:
        AccountExistsError: There is an account of that name, and it is not to be replaced.
        ConfigError: The name or the file is none, or the file cannot be written.
    """
    was_default, accounts = check_new(path, name, replace=replace)
    becomes_default = default or not accounts or was_default == name

    def change(config: tomlkit.TOMLDocument) -> None:
        table = _tables(config)
        if not isinstance(table.get(name), MutableMapping):
            table[name] = tomlkit.table()
        _fill(table[name], credentials)
        if becomes_default:
            config["default"] = name

    _rewrite(path, lambda text: _changed(text, change))
    return becomes_default


def remove_account(path: Path, name: str) -> bool:
    """Take the account out of the file *path*; whether it was the default, which nobody is then.

    Raises:
        AccountNotFoundError: The file has no such account.
        ConfigError: The file is none, or cannot be written.
    """
    was_default = check_known(path, name) == name

    _rewrite(path, lambda text: _without(text, name, default=was_default))
    return was_default


def set_default(path: Path, name: str) -> None:
    """Make an account of the file *path* the default; raises what `remove_account` raises."""
    check_known(path, name)

    def change(config: tomlkit.TOMLDocument) -> None:
        config["default"] = name

    _rewrite(path, lambda text: _changed(text, change))


def check_new(path: Path, name: str, *, replace: bool) -> tuple[str, dict[str, dict[str, str]]]:
    """Return what `read_accounts` returns; raises what `add_account` raises for *name* and the file."""
    if not name.strip() or not name.isprintable():
        raise ConfigError(f"{name!r} is no name for an account; choose letters and digits")
    default, accounts = read_accounts(path)
    if name in accounts and not replace:
        raise AccountExistsError(
            f"there is an account {name!r} in {path} already; choose another name, or replace it",
            account_name=name,
        )
    return default, accounts


def check_known(path: Path, name: str) -> str:
    """Return the default account of a file that has the account *name*; raises what `remove_account` raises."""
    default, accounts = read_accounts(path)
    if name not in accounts:
        listed = ", ".join(sorted(accounts)) or "no accounts"
        raise AccountNotFoundError(
            f"there is no account {name!r} in {path}; it has {listed}",
            account_name=name,
            available_accounts=sorted(accounts),
        )
    return default


def _tables(config: tomlkit.TOMLDocument) -> _Table:
    if "accounts" not in config:
        config["accounts"] = tomlkit.table(is_super_table=True)
    return cast("_Table", config["accounts"])


def _fill(table: _Table, credentials: Credentials) -> None:
    values = {
        "username": credentials.username,
        "secret": credentials.secret,
        "project_id": credentials.project_id,
        "region": credentials.region,
        "project_timezone": credentials.project_timezone,
    }
    for key, value in values.items():
        if value is not None:
            table[key] = str(value)
        elif key in table:
            del table[key]


def _rewrite(path: Path, change: Callable[[str], str]) -> None:
    try:
        target = path.resolve()  # a link stays one
        before = Masked(target.read_bytes().decode("utf-8-sig") if target.exists() else "")
        _put(target, Masked(change(before)))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(
            f"{path} cannot be written ({reason}); check its folder, or name another file in MP_CONFIG_PATH"
        ) from error
    except _ShapeError:
        raise ConfigError(
            f"`accounts` in {path} is not written as tables; write each account under [accounts.NAME]"
        ) from None


class _ShapeError(Exception):
    """The file's accounts are no tables of their own."""


def _changed(text: str, change: _Change) -> str:
    config = tomlkit.parse(text)
    accounts = config.get("accounts", {})
    if not isinstance(accounts, MutableMapping) or isinstance(accounts, InlineTable):
        raise _ShapeError
    change(config)
    return tomlkit.dumps(config)


def _without(text: str, name: str, *, default: bool) -> str:
    """Return *text* without the account, but with the comments below it: they speak of what comes next."""
    comments = ""

    def remove(config: tomlkit.TOMLDocument) -> None:
        nonlocal comments
        comments = _comments_below(_tables(config).pop(name))

    left = _with_comments(text, _changed(text, remove), comments)
    return _changed(left, lambda config: config.pop("default")) if default else left


def _comments_below(account: object) -> str:
    body = account.value.body if isinstance(account, Table) else []
    if body and isinstance(body[-1][1], Table):
        return _comments_below(body[-1][1])
    last = max((place for place, (key, _) in enumerate(body, 1) if key is not None), default=0)
    below = "".join(item.as_string() for _, item in body[last:])
    return below if below.strip() else ""


def _with_comments(before: str, after: str, comments: str) -> str:
    """Return *after* with *comments* where it begins to be like the end of *before*."""
    old, new = (re.findall(r"[^\n]*\n|[^\n]+", text) for text in (before, after))
    alike = takewhile(lambda lines: lines[0] == lines[1], zip(reversed(old), reversed(new), strict=False))
    place = len(new) - sum(1 for _ in alike)
    return "".join([*new[:place], comments, *new[place:]])


def _put(target: Path, text: str) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")  # with mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
