"""Locates and reads the configuration file and its `[defaults]`. `_local/accounts` changes the file."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from mixpanel_export._config.environment import expanded, home, variable
from mixpanel_export._files import kind_of
from mixpanel_export.errors import ConfigError

DEFAULT_MODES = ("create", "append", "resume")
"""The possible modes in `[defaults]` and `MPX_MODE`. `replace` cannot be a default."""

_MAX_WORKERS = 100


@dataclass(frozen=True, slots=True)
class Defaults:
    """The values of `[defaults]`. A missing value is None."""

    parallel: bool | None = None
    workers: int | None = None
    mode: str | None = None
    db: str | None = None
    flatten: bool | None = None


def config_file(environ: Mapping[str, str] | None = None) -> Path:
    """Return the path of the configuration file: `MP_CONFIG_PATH`, else `~/.mp/config.toml`.

    Raises:
        ConfigError: The variable is not set, and there is no home directory.
    """
    if configured := variable("MP_CONFIG_PATH", environ):
        return expanded(configured)
    folder = home()
    if folder is None:
        raise ConfigError(
            "the configuration file is in the home directory, but there is no home directory",
            advice="set MP_CONFIG_PATH to a file, or set MP_USERNAME, MP_SECRET and MP_PROJECT_ID instead",
        )
    return folder / ".mp" / "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """Return the contents of the configuration file *path*; an empty dictionary if there is no such file.

    Raises:
        ConfigError: The file cannot be read or is not TOML.
    """
    import tomllib  # noqa: PLC0415 - most commands have no file to read

    try:
        if not path.exists() or path.samefile(os.devnull):
            return {}
        if kind := kind_of(path):
            raise ConfigError(
                f"{path} is {kind}, not a configuration file", advice="set MP_CONFIG_PATH to another file"
            )
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror})",
            advice="give this user permission to read it, or set MP_CONFIG_PATH to another file",
        ) from error
    except ValueError as error:
        # The cause is dropped, because its frames contain the text of the file.
        raise ConfigError(
            f"{path} is not valid TOML ({error})", advice="correct the file, and save it as UTF-8"
        ) from None


def read_defaults(path: Path) -> Defaults:
    """Return the `[defaults]` of the configuration file *path*.

    Raises:
        ConfigError: The file cannot be read (see `read_config`), or `[defaults]` has an unknown key or invalid value.
    """
    table = read_config(path).get("defaults", {})
    if not isinstance(table, dict):
        raise ConfigError(f"`defaults` in {path} is not a table", advice="write it as [defaults]")
    known = {field.name for field in fields(Defaults)}
    for key, value in table.items():
        if key not in known:
            raise ConfigError(
                f"[defaults] in {path} has the unknown key {key!r}",
                advice=f"use {', '.join(sorted(known))}",
            )
        if (expected := _expected(key, value)) is not None:
            raise ConfigError(
                f"`{key}` of [defaults] in {path} must be {expected}, got {value!r}",
                advice="correct or remove it",
            )
    return Defaults(**table)


def chosen_database() -> str | None:
    """Return the database file from `MPX_DB`, or else from `[defaults]`; None if neither is set.

    Raises:
        ConfigError: See `read_defaults`.
    """
    if configured := variable("MPX_DB"):
        return configured
    if home() is None and not variable("MP_CONFIG_PATH"):
        return None
    return read_defaults(config_file()).db


def _expected(key: str, value: object) -> str | None:
    """Return a description of valid values; None if *value* is valid."""
    match key:
        case "parallel" | "flatten":
            return None if isinstance(value, bool) else "true or false"
        case "workers":
            is_valid = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_WORKERS
            return None if is_valid else f"a number from 1 to {_MAX_WORKERS}"
        case "mode":
            return None if value in DEFAULT_MODES else f"one of {', '.join(DEFAULT_MODES)}"
        case _:
            return None if isinstance(value, str) and value.strip() else "a path"
