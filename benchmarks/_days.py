"""The days that a benchmark serves: generated once, then read from disk."""

import pickle
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from hashlib import blake2b
from pathlib import Path
from shutil import rmtree

from mixpanel_export import simulator as package
from mixpanel_export.simulator import Simulator, Truth

DATA = Path(__file__).parent / "data"


def truths(first: date, last: date, simulator: Simulator) -> dict[date, Truth]:
    """Load the days into the cache of *simulator*, from disk if possible, and return the truth about each day.

    Raises:
        ValueError: The profile sends events with the day before or after, so a day has no truth of its own.
    """
    profile = simulator.profile
    if profile.leaks or profile.strays:
        raise ValueError("days with events of neighbouring days have no separate truths")
    if callable(profile.events_per_day):  # a function cannot be part of a file name
        simulator.prepare(first, last)
        return {day: simulator.truth(day, day) for day in _days(first, last)}
    folder = DATA / _version() / _digest(repr(profile).encode())
    folder.mkdir(parents=True, exist_ok=True)
    for old in DATA.iterdir():  # of other versions of the simulator
        if old.name != _version():
            rmtree(old, ignore_errors=True)
    return {day: _truth(simulator, day, folder / f"{day}.pickle") for day in _days(first, last)}


def _truth(simulator: Simulator, day: date, file: Path) -> Truth:
    cache_of_days = simulator._source.cache  # noqa: SLF001 - only benchmarks store days on disk
    if file.exists():
        truth: Truth
        truth, segments = pickle.loads(file.read_bytes())  # noqa: S301 - written below
        cache_of_days.put(day, segments)
        return truth
    simulator.prepare(day, day)
    truth = simulator.truth(day, day)
    if segments := cache_of_days.get(day):
        incomplete = file.with_suffix(".new")
        incomplete.write_bytes(pickle.dumps((truth, segments)))
        incomplete.replace(file)  # a file is complete or absent, even after a crash
    return truth


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(number) for number in range((last - first).days + 1))


@cache
def _version() -> str:
    """Return a hash of the simulator's sources."""
    sources = sorted(Path(package.__path__[0]).glob("*.py"))
    return _digest(b"".join(source.read_bytes() for source in sources))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
