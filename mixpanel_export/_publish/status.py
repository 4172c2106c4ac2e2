"""The publications of a database, and how far they are behind its tables."""

from dataclasses import dataclass

from mixpanel_export._database.connection import Connection
from mixpanel_export._database.publications import Publication, read_days, read_publications
from mixpanel_export._publish.plan import days_behind
from mixpanel_export._publish.source import find_source
from mixpanel_export.errors import TableError


@dataclass(frozen=True, slots=True)
class PublicationState:
    """A publication, compared with its table. Nothing is read from the destination."""

    publication: Publication
    by_day: bool
    """Whether each day has a file. If false, one file has all rows, and counts as a day."""
    days: int
    """The number of days in the data set."""
    behind: int
    """The number of days that the next publication would examine, because their version in the table has changed."""


def publication_states(connection: Connection) -> list[PublicationState]:
    """Return the state of each publication, ordered by destination."""
    return [_state(connection, publication) for publication in read_publications(connection)]


def _state(connection: Connection, publication: Publication) -> PublicationState:
    days = read_days(connection, publication.destination)
    try:
        source = find_source(connection, publication.table)
    except TableError:  # it was dropped
        return PublicationState(publication, True, len(days), len(days))
    versions = source.versions(connection)
    behind = days_behind(versions, days) if source.schema == publication.schema else len(versions)
    return PublicationState(publication, bool(source.parts.columns), len(days), behind)
