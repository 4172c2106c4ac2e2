"""The options of the data source, as values that travel to the executors."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from tempfile import gettempdir
from typing import Any, TypeVar

from mixpanel_export._export.job import ExportArguments
from mixpanel_export._model import Chunk
from mixpanel_export._timezones import checked_zone
from mixpanel_export.credentials import Credentials, resolve_credentials
from mixpanel_export.errors import ArgumentError

T = TypeVar("T")

_SECRETS = {"secret", "password", "username", "token", "credentials", "mp_secret", "mp_username"}
_OPTIONS = {
    "account", "api_url", "chunk_days", "dedupe", "events", "folder", "from_date", "keep", "max_wait", "max_workers",
    "per_hour", "per_second", "project_timezone", "retries", "to_date", "wait_for_quota", "where",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The options of a read, without credentials."""

    from_date: str
    to_date: str | None
    account: str | None = None
    events: tuple[str, ...] | None = None
    where: str | None = None
    project_timezone: str | None = None
    chunk_days: int | None = None
    max_workers: int = 10
    dedupe: bool = True
    retries: int = 5
    max_wait: float = 86_400.0
    per_second: int | None = None
    per_hour: int | None = None
    api_url: str | None = None
    folder: str | None = None
    keep: str | None = None
    wait_for_quota: bool = True

    @classmethod
    def from_options(cls, options: Mapping[str, str]) -> "Settings":
        """Return the settings for a data source's options.

        Raises:
            ArgumentError: An option is unknown, missing or invalid.
        """
        values = {name.lower(): value for name, value in options.items()}
        for name in values.keys() - _OPTIONS - {"path"}:
            if name in _SECRETS:
                raise ArgumentError(
                    name,
                    "is not an option, because Spark writes options into its logs",
                    advice="set the credentials in the environment or in the configuration file of each machine",
                )
            raise ArgumentError(name, "is not an option", advice=f"use {', '.join(sorted(_OPTIONS))}")
        if "from_date" not in values:
            raise ArgumentError("from_date", "is missing", advice="pass it as an option")
        return cls(
            from_date=values["from_date"],
            to_date=values.get("to_date"),
            account=values.get("account"),
            events=_names(values.get("events")),
            where=values.get("where"),
            project_timezone=values.get("project_timezone"),
            chunk_days=_number(values, "chunk_days", int, None),
            max_workers=_number(values, "max_workers", int, 10),
            dedupe=_flag(values, "dedupe"),
            retries=_number(values, "retries", int, 5),
            max_wait=_number(values, "max_wait", float, 86_400.0),
            per_second=_number(values, "per_second", int, None),
            per_hour=_number(values, "per_hour", int, None),
            api_url=values.get("api_url"),
            folder=values.get("folder"),
            keep=values.get("keep"),
            wait_for_quota=_flag(values, "wait_for_quota"),
        )

    def credentials(self) -> Credentials:
        """Return the credentials of this machine."""
        return resolve_credentials(self.account)

    def zone(self) -> str:
        """Return the project's time zone."""
        return checked_zone(self.project_timezone, self.credentials().project_timezone)

    def arguments(self, days: Chunk) -> ExportArguments:
        """Return the arguments for planning the requests for *days*, on the driver."""
        return ExportArguments(
            from_date=days.first,
            to_date=days.last,
            db=Path(gettempdir(), "batches"),
            mode="resume",
            **self._shared(),
            max_workers=self.max_workers,
            chunk_days=self.chunk_days,
        )

    def stream_arguments(self, days: Chunk) -> dict[str, Any]:
        """Return the arguments of `stream_batches` for fetching *days*, on an executor."""
        return {
            "from_date": days.first,
            "to_date": days.last,
            "one_request": True,
            "folder": self.folder or _local_folder(),
            **self._shared(),
        }

    def fingerprint(self) -> str:
        """Return a string that identifies the selection and the options that change its events."""
        selection = [
            self.credentials().project_id,
            self.events and sorted(self.events),
            self.where,
            self.zone(),
            self.dedupe,
        ]
        return blake2b(json.dumps(selection).encode(), digest_size=16).hexdigest()

    def _shared(self) -> dict[str, Any]:
        return {
            "credentials": self.credentials(),
            "events": self.events,
            "where": self.where,
            "project_timezone": self.project_timezone,
            "dedupe": self.dedupe,
            "retries": self.retries,
            "max_wait": self.max_wait,
            "per_second": self.per_second,
            "per_hour": self.per_hour,
            "api_url": self.api_url,
        }


def _local_folder() -> str | None:
    """Return this executor's folder for temporary files; None if Spark does not set one.

    Spark deletes the folder with the application, including files of tasks that were killed.
    """
    folder, _, _ = os.environ.get("SPARK_LOCAL_DIRS", "").partition(",")
    return folder if folder and Path(folder).is_dir() else None


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ArgumentError("events", f'must be a JSON list such as ["Sign Up"], got {text}')
    return tuple(names)


def _number(options: Mapping[str, str], name: str, kind: Callable[[str], T], default: T | None) -> Any:
    if name not in options:
        return default
    try:
        return kind(options[name])
    except ValueError as error:
        expected = "a whole number" if kind is int else "a number"
        raise ArgumentError(name, f"must be {expected}, got {options[name]}") from error


def _flag(options: Mapping[str, str], name: str) -> bool:
    text = options.get(name, "true").lower()
    if text not in {"true", "false"}:
        raise ArgumentError(name, f"must be true or false, got {text}")
    return text == "true"
