"""Standard error: lines for people or, with `--log-format json`, one JSON object a line for machines.

Every object has `event` and `time` (UTC); the other keys of an event may grow and do not change.
"""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from mixpanel_export.cli.help import Option

Command = Callable[..., Any]

_FORMAT = "mixpanel_export.log_format"


def _note(ctx: click.Context, _option: click.Parameter, value: str) -> None:
    ctx.meta[_FORMAT] = value  # which the group sees, too, when it reports an error


log_format_option = click.option(
    "--log-format",
    cls=Option,
    section="Output",
    type=click.Choice(["text", "json"]),
    default="text",
    is_eager=True,
    expose_value=False,
    callback=_note,
    help="Format of standard error; json is one JSON object per line.",
)


def logs_json(ctx: click.Context | None = None) -> bool:
    """Whether standard error is for machines in this command; asked in the thread that runs it."""
    ctx = ctx or click.get_current_context(silent=True)
    return ctx is not None and ctx.meta.get(_FORMAT) == "json"


def log_event(name: str, **fields: object) -> None:
    """Write one event."""
    event = {"event": name, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    click.echo(json.dumps(event, default=str), err=True)


def say(message: str) -> None:
    """Tell people, or machines that people may read."""
    if logs_json():
        log_event("note", message=message)
    else:
        click.echo(message, err=True)


class JSONFormatter(logging.Formatter):
    """Formats a log record as an event."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {"event": "log", "time": at, "level": record.levelname, "message": record.getMessage()}
        return json.dumps(fields)
