"""Reads the sections `[sync.NAME]` of the configuration file: the tables that `mpx sync NAME` keeps up to date."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from mixpanel_export._config.config_file import read_config
from mixpanel_export.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSection:
    """The values of one section. A missing value is None."""

    account: str | None = None
    project_id: str | None = None
    region: str | None = None
    db: str | None = None
    table: str | None = None
    events: tuple[str, ...] | None = None
    where: str | None = None
    since: str | None = None
    """The first day. If it is before the table's first day, the sync adds the days in between."""
    lookback: int | None = None
    budget: int | None = None
    flatten: bool | None = None
    publish: str | None = None
    """The destination of the data set that is updated after the sync."""
    profiles: str | None = None
    """The table for profiles; empty if no profiles are exported."""
    publish_profiles: str | None = None
    """The destination of the data set of the profiles."""


KEYS = tuple(field.name for field in fields(SyncSection))


def read_sync_sections(path: Path) -> dict[str, SyncSection]:
    """Return the sections of the configuration file *path* by name, in the order of the file.

    Raises:
        ConfigError: The file cannot be read, or a section has an unknown key or an invalid value.
    """
    tables = read_config(path).get("sync", {})
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ConfigError(
            f"`sync` in {path} does not consist of tables", advice="write each section as [sync.NAME]"
        )
    return {name: _section(table, f"[sync.{name}] in {path}") for name, table in tables.items()}


def _section(table: Mapping[str, object], place: str) -> SyncSection:
    values: dict[str, object] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise ConfigError(f"{place} has the unknown key {key!r}", advice=f"use {', '.join(KEYS)}")
        if (expected := _expected(key, value)) is not None:
            raise ConfigError(
                f"`{key}` of {place} must be {expected}, got {value!r}", advice="correct or remove it"
            )
        match value:
            case list():
                values[key] = tuple(value)
            case bool() if key == "profiles":
                values[key] = "profiles" if value else ""
            case bool() | int() if key not in {"project_id", "since"}:
                values[key] = value
            case _:
                values[key] = str(value).strip()
    return SyncSection(**values)  # type: ignore[arg-type] # checked above


def _expected(key: str, value: object) -> str | None:
    """Return a description of valid values; None if *value* is valid."""
    is_text = isinstance(value, str) and bool(value.strip())
    is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    match key:
        case "events":
            valid = (
                isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)
            )
            return None if valid else "a list of event names"
        case "lookback" | "budget":
            return None if is_number else "a number, 0 or more"
        case "flatten":
            return None if isinstance(value, bool) else "true or false"
        case "project_id":
            return None if is_text or is_number else "a project's number"
        case "since":
            return None if is_text or hasattr(value, "isoformat") else "a day, such as 2024-01-31"
        case _:
            is_table = key == "profiles"
            text = "true, false or the name of a table" if is_table else "a non-empty string"
            return None if is_text or (is_table and isinstance(value, bool)) else text
