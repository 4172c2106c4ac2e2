"""The SQL between staged files and an events table; all of it runs inside the caller's transaction, or beside it.

The load reads a group of chunks into a temporary table and moves from there what is to be kept; Python sees no
event. It cuts `properties` out of each line as text, since every JSON function of DuckDB would write numbers and
escapes anew. A line that is not of Mixpanel's shape, or that DuckDB refuses, is counted against its chunk, which is
then mended line by line.

Duplicates are left behind in the temporary table, which is not compressed: rows that a transaction has inserted and
deletes again would have the whole insert written anew by its commit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb

from mixpanel_export._database import first_moment, in_utc, last_moment, quoted
from mixpanel_export._duplicates import find_within
from mixpanel_export._ledger import Loaded
from mixpanel_export._lines import Canonical, canonical
from mixpanel_export._settings import in_order, threads_for
from mixpanel_export._staging import Staged, Staging, blank_lines, staged_lines

_PAGE = 1 << 20  # bytes of lines that are looked at together while a chunk is mended

# `cut` is where `,"properties":{` begins: in valid JSON that starts with `{"event":"`, with no closing quote
# before `cut`, this is the key of the event's own properties; that the rest less the last brace is valid JSON
# shows that it is also the last key. A line that DuckDB refuses arrives as NULL, so it is not sound.
_LINES = """
SELECT json, batch, raw, properties,
       coalesce(
           starts_with(json, '{{"event":"') AND cut > 11 AND properties IS NOT NULL
           AND (NOT contains(raw, '"') OR regexp_full_match(raw, '(?s)([^"\\\\]|\\\\.)*')), false) AS sound
FROM (
    SELECT json, batch, cut, json[11 : cut - 2] AS raw, TRY_CAST(json[cut + 14 : -2] AS JSON) AS properties
    FROM (
        SELECT json, instr(json, ',"properties":{{') AS cut,
               CAST(split_part(parse_filename(filename), '.', 1) AS INTEGER) AS batch
        FROM read_ndjson_objects(
            {files}, ignore_errors = true, filename = true, hive_partitioning = false,
            maximum_object_size = {longest})
    )
)
"""
_READ = """
CREATE OR REPLACE TEMP TABLE _export_incoming AS
SELECT CASE WHEN sound AND contains(raw, '\\') THEN json_extract_string('"' || raw || '"', '$') ELSE raw END AS event_name,
       CASE WHEN year(time) BETWEEN 1 AND 9999 THEN time END AS event_time, -- Python has no other years
       found[2] AS distinct_id, found[3] AS insert_id, properties, if(sound, batch, -batch) AS export_batch
FROM (
    SELECT *,
           CASE WHEN abs(clock) < 1e11 AND clock >= -62135596800
                THEN {seconds}
                WHEN abs(clock) >= 1e11 AND clock BETWEEN -62135596800000 AND 253402300799999
                THEN {milliseconds}
                WHEN regexp_matches(found[1], '^\\d{{4}}-\\d\\d-\\d\\d') THEN {iso}
           END AS time
    FROM (
        SELECT *, CASE WHEN NOT regexp_matches(found[1], '[_\\s]') THEN TRY_CAST(found[1] AS DOUBLE) END AS clock
        FROM (
            SELECT *, json_extract_string(properties, ['$.time', '$.distinct_id', '$."$insert_id"']) AS found
            FROM ({lines})
        )
    )
)
"""
# Text without an offset is local too; only such text can be cast with a zone put after it.
_LOCAL_ISO = """
coalesce(TRY_CAST(found[1] || ' {zone}' AS TIMESTAMPTZ), TRY_CAST(found[1] || ' 00:00:00 {zone}' AS TIMESTAMPTZ),
         TRY_CAST(found[1] AS TIMESTAMPTZ))::TIMESTAMP
"""
_DOUBTFUL = """
SELECT number, json IS NULL FROM (SELECT row_number() OVER () AS number, json, sound FROM ({lines})) WHERE NOT sound
"""
_HELD = """
SELECT batch, count(*), count(*) FILTER (outside), min(event_time) FILTER (outside),
       max(event_time) FILTER (outside), count(*) FILTER (event_time IS NULL)
FROM (
    SELECT batch, event_time, event_time NOT BETWEEN first AND last AS outside
    FROM ({rows}) JOIN (VALUES {days}) AS _days(batch, first, last) ON export_batch = batch
)
GROUP BY batch
"""


class OddLinesError(Exception):
    """Some batches have lines that the load does not take; the transaction must be rolled back."""

    def __init__(self, batches: set[int]) -> None:
        super().__init__()
        self.batches = batches


class LoadError(Exception):
    """DuckDB did not read what was staged."""


def load(
    connection: duckdb.DuckDBPyConnection, table: str, group: Sequence[Staged], *, zone: str, dedupe: bool
) -> dict[int, Loaded]:
    """Insert the chunks of *group* into *table* and return what it then holds of each batch.

    Times are on the clock of *zone*. With *dedupe*, of the rows of a batch with the same identity only the
    winner is inserted.

    Raises:
        OddLinesError: Chunks must be mended first.
        LoadError: DuckDB did not read every line.
    """
    files = [file for staged in group for file in staged.files]
    if not files:
        return {}
    longest = max(staged.longest for staged in group)
    connection.execute(_READ.format(lines=_lines(files, longest), **_times(zone)))
    read = _count(connection)
    odd = {-batch for batch in read if batch < 0}
    if odd:
        raise OddLinesError(odd)
    for staged in group:
        _check_lines(staged, read.get(staged.batch, 0))
    rows = "SELECT * FROM _export_incoming"
    if dedupe and find_within(connection, "_export_incoming", [staged.batch for staged in group]):
        rows = "SELECT _rows.* FROM _export_incoming AS _rows ANTI JOIN _export_losers ON _rows.rowid = id"
    loaded = _loaded(connection, rows, group, read, zone)
    with threads_for(connection, sum(held.rows for held in loaded.values())):
        connection.execute(f"INSERT INTO {quoted(table)} {rows}")
    connection.execute("DROP TABLE _export_incoming")
    return loaded


def mend(connection: duckdb.DuckDBPyConnection, staged: Staged, staging: Staging) -> Staged:
    """Bring every line of the chunk into the canonical shape, outside any transaction.

    The original text of lines that are no event, and of those that had to be repaired, is set aside.
    """
    if staged.set_aside:
        raise LoadError(f"DuckDB refuses lines of {staged.chunk} that were mended before; please report this")
    doubtful = _doubtful_lines(connection, staged)
    blank = blank_lines(staged.files)
    aside = staging.side_file(staged)
    counts = {"rejected": 0, "repaired": 0}

    def lines() -> Iterator[bytes]:
        with aside.open("wb") as file:
            for line, shaped in _shaped(connection, staged, doubtful):
                if shaped is None or shaped.repaired:
                    reason = "rejected" if shaped is None else "repaired"
                    counts[reason] += 1
                    file.write(f"{reason},{line.hex()}\n".encode())
                if shaped is not None:
                    yield shaped.line

    mended = replace(staging.rewrite(staged, lines()), set_aside=aside)
    if mended.lines + counts["rejected"] + blank != staged.end.lines:
        staging.discard(mended)
        raise LoadError(f"of {staged.end.lines} lines of {staged.chunk} some were lost; please report this")
    return replace(mended, rejects=counts["rejected"], repaired=counts["repaired"])


def _shaped(
    connection: duckdb.DuckDBPyConnection, staged: Staged, doubtful: dict[int, bool]
) -> Iterator[tuple[bytes, Canonical | None]]:
    """Yield each line with its canonical shape; None where it is no event, or DuckDB refuses it even so."""
    for page in _pages(enumerate(staged_lines(staged.files), 1)):
        shapes = {number: canonical(line) for number, line in page if number in doubtful}
        refused = {number: shape for number, shape in shapes.items() if shape and doubtful[number]}
        sound = _are_json(connection, [shape.line for shape in refused.values()])
        shapes |= {number: None for number, is_json in zip(refused, sound, strict=True) if not is_json}
        for number, line in page:
            yield line, shapes.get(number, Canonical(line, repaired=False))


def _pages(lines: Iterable[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    page: list[tuple[int, bytes]] = []
    size = 0
    for number, line in lines:
        page.append((number, line))
        size += len(line)
        if size > _PAGE:
            yield page
            page, size = [], 0
    yield page


def load_set_aside(connection: duckdb.DuckDBPyConnection, staged: Staged) -> None:
    """Insert what `mend` set aside of the chunk into `_export_rejects`."""
    if staged.set_aside is None:
        return
    connection.execute(
        "INSERT INTO _export_rejects SELECT ?, reason, unhex(text) FROM read_csv(?, auto_detect = false, "
        "header = false, delim = ',', quote = '', escape = '', max_line_size = ?, "
        "columns = {'reason': 'VARCHAR', 'text': 'VARCHAR'})",
        [staged.batch, str(staged.set_aside), 2 * staged.longest + 100],
    )


def _lines(files: Sequence[Path], longest: int) -> str:
    names = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    return _LINES.format(files=f"[{names}]", longest=max(longest, 1 << 20) + 1)


def _times(zone: str) -> dict[str, str]:
    """Return the SQL of each form of `time`, on the clock of *zone*, as UTC."""
    return {
        "seconds": in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000000)", zone),
        "milliseconds": in_utc("make_timestamp(CAST(trunc(clock) AS BIGINT) * 1000)", zone),
        "iso": "TRY_CAST(found[1] AS TIMESTAMPTZ)::TIMESTAMP"
        if zone == "UTC"
        else _LOCAL_ISO.format(zone=zone),
    }


def _count(connection: duckdb.DuckDBPyConnection) -> dict[int, int]:
    """Return the rows read of each batch; lines that are not sound count for the batch's negative."""
    counted = connection.execute("SELECT export_batch, count(*) FROM _export_incoming GROUP BY export_batch")
    return dict(counted.fetchall())


def _check_lines(staged: Staged, rows: int) -> None:
    """Compare what DuckDB loaded with the lines fetched; only where they differ are blank lines looked for.

    A mended chunk has no blank lines any more, and was compared when it was mended.
    """
    expected = staged.lines if staged.set_aside else staged.end.lines
    if rows != expected and (staged.set_aside or rows != expected - blank_lines(staged.files)):
        raise LoadError(f"of {expected} lines of {staged.chunk} DuckDB read {rows}; please report this")


def _loaded(
    connection: duckdb.DuckDBPyConnection,
    rows: str,
    group: Sequence[Staged],
    read: dict[int, int],
    zone: str,
) -> dict[int, Loaded]:
    """Return what *rows*, SQL, are of each batch, of which so many were *read*."""
    days = ", ".join(
        f"({staged.batch}, "
        + first_moment(f"DATE '{staged.chunk.first}'", zone)
        + ", "
        + last_moment(f"DATE '{staged.chunk.last}'", zone)
        + ")"
        for staged in group
    )
    found = connection.execute(_HELD.format(rows=rows, days=days)).fetchall()
    return {
        batch: Loaded(kept, read[batch] - kept, outside, first, last, timeless)
        for batch, kept, outside, first, last, timeless in found
    }


def _doubtful_lines(connection: duckdb.DuckDBPyConnection, staged: Staged) -> dict[int, bool]:
    """Return the numbers, from 1, of lines that are not sound, and whether DuckDB refuses them."""
    doubtful: dict[int, bool] = {}
    start = 0
    with in_order(connection):
        for file in staged.files:
            found = connection.execute(_DOUBTFUL.format(lines=_lines([file], staged.longest))).fetchall()
            doubtful |= {start + number: refused for number, refused in found}
            start += sum(1 for _ in staged_lines([file]))
    return doubtful


def _are_json(connection: duckdb.DuckDBPyConnection, lines: Sequence[bytes]) -> list[bool]:
    if not lines:
        return []
    with in_order(connection):
        found = connection.execute(
            "SELECT json_valid(line) FROM (SELECT unnest(?) AS line)", [[line.decode() for line in lines]]
        ).fetchall()
    return [is_json for (is_json,) in found]
