"""What happens to events that are already stored: they come late, disappear, come back, change their user."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """Something that happens to a share of the events of *first* to *last* at the moment *at*.

    Only `removed` concerns events that are sent in an unusual way, such as awkward ones.

    Args:
        kind: `late`: the events arrive only then, through `/import`. `removed`: they are not there any more.
            `merged`: users known by a device get an id; all events of such a user are rewritten alike, and
            keep the former id as `$distinct_id_before_identity`.
        at: When, aware.
        until: When removed events are there again; None for never.
        share: Of the events, of the devices where users are merged; from 0 to 1.
        first: First day it concerns; None for no bound.
        last: Last day it concerns; None for no bound.
    """

    kind: Literal["late", "removed", "merged"]
    at: datetime
    until: datetime | None = None
    share: float = 0.1
    first: date | None = None
    last: date | None = None

    def concerns(self, day: date) -> bool:
        """Whether it changes events of *day*."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def over(self) -> datetime:
        """From when on it changes nothing more."""
        return max(self.at, self.until or self.at)

    def holds(self, moment: datetime | None) -> bool:
        """Whether it has happened, and is not undone, by *moment*; None for the end of time."""
        if moment is None:
            return self.until is None
        return self.at <= moment and (self.until is None or moment < self.until)
