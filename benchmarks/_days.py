"""The days that a benchmark serves: made once, and read from disk by whoever needs the same ones later."""

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
    """Make *simulator* ready to serve the days for next to nothing, and return the truth of each.

    Raises:
        ValueError: the profile sends events with the day before or after, so that days have no truth of their own.
    """
    profile = simulator.profile
    if profile.leaks or profile.strays:
        raise ValueError("days with events of their neighbours have no truth of their own")
    if callable(profile.events_per_day):  # which has no name to keep it by
        simulator.prepare(first, last)
        return {day: simulator.truth(day, day) for day in _days(first, last)}
    folder = DATA / _version() / _digest(repr(profile).encode())
    folder.mkdir(parents=True, exist_ok=True)
    for old in DATA.iterdir():  # of other versions of the simulator
        if old.name != _version():
            rmtree(old, ignore_errors=True)
    return {day: _truth(simulator, day, folder / f"{day}.pickle") for day in _days(first, last)}


def _truth(simulator: Simulator, day: date, file: Path) -> Truth:
    compressed = simulator._source.cache  # noqa: SLF001 - the simulator has no disk, and needs none elsewhere
    if file.exists():
        truth: Truth
        truth, segments = pickle.loads(file.read_bytes())  # noqa: S301 - we wrote it
        compressed.put(day, segments)
        return truth
    simulator.prepare(day, day)
    truth = simulator.truth(day, day)
    if segments := compressed.get(day):
        begun = file.with_suffix(".new")
        begun.write_bytes(pickle.dumps((truth, segments)))
        begun.replace(file)  # so that a file is whole, or not there
    return truth


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(number) for number in range((last - first).days + 1))


@cache
def _version() -> str:
    """Return what changes when the simulator does."""
    sources = sorted(Path(package.__path__[0]).glob("*.py"))
    return _digest(b"".join(source.read_bytes() for source in sources))


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
