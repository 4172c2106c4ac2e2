"""Writes to standard error: text or, with `--log-format json`, one JSON object per line.

Every object has `event` and `time` (UTC). Later releases may add keys to an event, but never change existing ones.
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


def _store(ctx: click.Context, _option: click.Parameter, value: str) -> None:
    ctx.meta[_FORMAT] = value  # the command group reads the format when it reports an error


log_format_option = click.option(
    "--log-format",
    cls=Option,
    section="Output",
    type=click.Choice(["text", "json"]),
    default="text",
    is_eager=True,
    expose_value=False,
    callback=_store,
    help="Format of standard error; json is one JSON object per line.",
)


def logs_json(ctx: click.Context | None = None) -> bool:
    """Whether the current command logs JSON. *ctx* may be omitted in the command's thread."""
    ctx = ctx or click.get_current_context(silent=True)
    return ctx is not None and ctx.meta.get(_FORMAT) == "json"


def log_event(name: str, **fields: object) -> None:
    """Write an event as one line of JSON."""
    event = {"event": name, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
    click.echo(json.dumps(event, default=str), err=True)


def say(message: str) -> None:
    """Print a message, or log it as the event `note`."""
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
