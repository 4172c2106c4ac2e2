"""The values that an export of profiles returns or passes to callbacks. Their first fields match mixpanel_data's."""

from dataclasses import asdict, dataclass
from datetime import datetime

from mixpanel_export._display import html_pairs


@dataclass(frozen=True, slots=True)
class ProfileProgress:
    """A page of profiles that has arrived, or that could not be fetched.

    Rows appear in the table only after the last page has arrived. If the export starts again, pages are reported again.
    """

    page_index: int
    """Counts from 0. Pages may arrive in another order."""
    total_pages: int | None
    """None if page 0 failed."""
    rows: int
    """Profiles on the page; 0 if it failed."""
    success: bool
    error: str | None
    cumulative_rows: int
    """Profiles on all pages that have arrived so far."""

    def to_dict(self) -> dict[str, object]:
        """Return the fields in order, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ParallelProfileResult:
    """The result of an export of profiles. The fields after `fetched_at` are not in `to_dict()`.

    A result means that all profiles are in the table. If a page fails, the export raises an error instead.
    """

    table: str
    total_rows: int
    """The rows by which the table grew; with `mode="replace"`, the rows of the new table."""
    successful_pages: int
    failed_pages: int
    """Always 0."""
    failed_page_indices: tuple[int, ...]
    duration_seconds: float
    fetched_at: datetime
    """In UTC."""
    profiles: int = 0
    """The profiles that Mixpanel has for the selection. All of them are in the table, except for `rejects`."""
    updated_rows: int = 0
    """With `mode="append"`, the number of profiles that were already in the table and have been replaced."""
    duplicates: int = 0
    """Additional copies of profiles that were on several pages. The copy on the last of these pages was stored."""
    short_pages: int = 0
    """Pages before the last one that were not full. The set of profiles is nevertheless complete."""
    rejects: int = 0
    """Entries that are not profiles. They are in `_export_rejects`, not in the table."""
    repaired: int = 0
    """Profiles whose JSON was repaired so that DuckDB accepts it. `_export_rejects` has the original text."""
    restarts: int = 0
    """How often the export started again from page 0."""
    requests: int = 0
    bytes_read: int = 0
    """Compressed bytes received, including failed attempts."""

    @property
    def has_failures(self) -> bool:
        """Whether any page failed; always false."""
        return self.failed_pages > 0

    def to_dict(self) -> dict[str, object]:
        """Return mixpanel_data's keys in its order, ready for JSON."""
        return {
            "table": self.table,
            "total_rows": self.total_rows,
            "successful_pages": self.successful_pages,
            "failed_pages": self.failed_pages,
            "failed_page_indices": list(self.failed_page_indices),
            "duration_seconds": self.duration_seconds,
            "fetched_at": self.fetched_at.isoformat(),
            "has_failures": self.has_failures,
        }

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        rows: list[tuple[str, object]] = [
            ("table", self.table),
            ("rows added", f"{self.total_rows:,}"),
            ("pages", f"{self.successful_pages:,}"),
            ("seconds", f"{self.duration_seconds:.1f}"),
        ]
        counts = {
            "rows updated": self.updated_rows,
            "duplicates removed": self.duplicates,
            "short pages": self.short_pages,
            "rejects": self.rejects,
            "repaired": self.repaired,
            "restarts": self.restarts,
        }
        rows += [(name, f"{count:,}") for name, count in counts.items() if count]
        return html_pairs(rows, "profiles exported")
