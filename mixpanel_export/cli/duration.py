"""Durations as people type them: 90, 90s, 1.5m, 2h, 1d."""

import re

import click

_SECONDS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def parse_duration(_ctx: click.Context, _option: click.Parameter, text: str) -> float:
    """Return the seconds; a usage error says what may be typed."""
    found = re.fullmatch(r"(\d+(?:\.\d{1,3})?) ?([smhd]?)", text.strip(), re.ASCII)
    if not found:
        raise click.BadParameter(f"{text!r} is no duration; write it as 90s, 30m, 2h or 1d")
    return float(found[1]) * _SECONDS[found[2]]


def parse_timeout(ctx: click.Context, option: click.Parameter, text: str) -> float:
    """Return the seconds, which are more than none."""
    seconds = parse_duration(ctx, option, text)
    if not seconds:
        raise click.BadParameter(f"{text!r} leaves no time at all")
    return seconds


def duration_words(seconds: float) -> str:
    """Return *seconds* so that they are read as the same, to a thousandth."""
    return f"{seconds:.3f}".rstrip("0").rstrip(".") + "s"
