"""Zones of legacy projects, whose `time` is a wall clock dressed as seconds since 1970. Pure.

A zone is its IANA name; "UTC" stands for every project whose times are what they say.
"""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, available_timezones


def checked_zone(*names: str | None) -> str:
    """Return the first of *names* that is given, "UTC" where none is.

    Raises:
        ValueError: It is no zone. Names are those of the zone database, never paths into it, and never the
            zone of this machine, which is another one elsewhere.
    """
    name = next((name for name in names if name is not None), "UTC")
    if name != "UTC" and name not in available_timezones() - {"localtime"}:
        raise ValueError(f"project_timezone must be an IANA name such as US/Pacific, got {name!r}")
    return name


def to_utc(local: datetime, zone: str) -> datetime:
    """Return the moment, aware, at which clocks in *zone* show *local* (naive).

    A time that clocks show twice, or skip, is the later of its two readings, which is what DuckDB's `timezone`
    makes of it too: the second occurrence, or the time as far beyond the gap as it lies in it.

    Raises:
        OverflowError: The moment lies outside the years 1 to 9999.
    """
    clock = _clock(zone)
    return max(local.replace(tzinfo=clock, fold=fold).astimezone(UTC) for fold in (0, 1))


def in_zone(moment: datetime, zone: str) -> datetime:
    """Return *moment* (aware) as clocks in *zone* show it."""
    return moment.astimezone(_clock(zone))


def _clock(zone: str) -> tzinfo:
    return UTC if zone == "UTC" else ZoneInfo(zone)
