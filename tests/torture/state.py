"""What the model knows and expects: batches, exports, and how these ended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date

from mixpanel_export import MixpanelDataError, ParallelFetchResult
from mixpanel_export.simulator.events import Record

from .contents import Entry
from .project import days_of, distinct_id_of, names_person


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of an export: a *result*, the class and message of an *error*, or neither after a signal."""

    result: ParallelFetchResult | None = None
    error: type[Exception] | None = None
    message: str = ""

    @property
    def failed(self) -> set[tuple[date, date]]:
        """The ranges of days that the result reports as failed."""
        ranges = self.result.failed_date_ranges if self.result else ()
        return {(date.fromisoformat(first), date.fromisoformat(last)) for first, last in ranges}


@dataclass(frozen=True, slots=True)
class Batch:
    """A ledger row, and what the server had for its days at the time of the request, without forgotten persons.

    Attributes:
        entry: The ledger row.
        fingerprint: That of the export.
        sent: The records.
        rejects: The number of lines that are not events.
        repaired: The lines that needed repair.
        more_rejects: Whether a fault may have added lines that are not events.
        forgotten_duplicates: The events of forgotten persons that never were rows, which the ledger still counts.
    """

    entry: Entry
    fingerprint: tuple[object, ...]
    sent: Sequence[Record] = ()
    rejects: int = 0
    repaired: Sequence[bytes] = ()
    more_rejects: bool = False
    forgotten_duplicates: int = 0

    def without(self, person: str, *, duplicates: int) -> "Batch":
        """Return the batch without *person*, of whose events *duplicates* never were rows."""
        return replace(
            self,
            sent=[record for record in self.sent if distinct_id_of(record) != person],
            repaired=[line for line in self.repaired if not names_person(line, person)],
            forgotten_duplicates=self.forgotten_duplicates + duplicates,
        )

    @property
    def visible(self) -> bool:
        """Whether the rows of the batch are in the table."""
        return self.entry.status != "failed"

    @property
    def days(self) -> set[date]:
        """The days of the batch."""
        return days_of(self.entry.first, self.entry.last)


@dataclass(frozen=True, slots=True)
class Expected:
    """The expected behaviour of an export: a refusal, or requests for *days* beside the existing *batches*.

    If the export begins *anew*, it discards what its table held.
    """

    refusal: type[MixpanelDataError] | None
    batches: Sequence[Batch]
    days: set[date]
    anew: bool
