"""Durations on the command line: 90, 90s, 1.5m, 2h, 1d."""

import re

import click

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    """Return the duration in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d{1,3})?) ?([smhd]?)", text.strip(), re.ASCII)
    if not match:
        raise click.BadParameter(f"{text!r} is not a duration; write it as 90s, 30m, 2h or 1d")
    return float(match[1]) * _SECONDS[match[2]]


def parse_timeout(ctx: click.Context, option: click.Parameter, text: str) -> float:
    """Return the duration in seconds, which must be positive."""
    seconds = parse_duration(ctx, option, text)
    if not seconds:
        raise click.BadParameter("must be longer than 0; write it as 90s, 30m, 2h or 1d")
    return seconds


def duration_words(seconds: float) -> str:
    """Return *seconds* as text that `parse_duration` reads, exact to a millisecond."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
