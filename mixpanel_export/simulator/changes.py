"""Changes to stored events: late arrival, removal, restoration, and merged users."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal


@dataclass(frozen=True, slots=True)
class Change:
    """A change, at the time *at*, to a share of the events from *first* to *last*.

    Events that are sent in an unusual form, such as awkward events, can only be removed.

    Args:
        kind: `late`: the events arrive only at that time, through `/import`. `removed`: the events disappear.
            `merged`: users with only a device id get a user id. All events of these users change, and contain the
            former id as `$distinct_id_before_identity`.
        at: Time of the change, timezone-aware.
        until: Time at which removed events reappear; None for never.
        share: Share of the events, or, for `merged`, of the devices; from 0 to 1.
        first: First affected day; None for no lower bound.
        last: Last affected day; None for no upper bound.
    """

    kind: Literal["late", "removed", "merged"]
    at: datetime
    until: datetime | None = None
    share: float = 0.1
    first: date | None = None
    last: date | None = None

    def applies_to(self, day: date) -> bool:
        """Return whether the change affects events on *day*."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def settled_from(self) -> datetime:
        """Return the time after which this change causes no further differences."""
        return max(self.at, self.until or self.at)

    def in_effect(self, moment: datetime | None) -> bool:
        """Return whether the change is in effect at *moment*; None means the distant future."""
        if moment is None:
            return self.until is None
        return self.at <= moment and (self.until is None or moment < self.until)
