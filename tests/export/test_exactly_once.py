"""Every event is in the table exactly once, whatever the server and the user do between two exports."""

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from changing_days import DAYS, FIRST, Line, Server, rows, run, table, winners
from examples import slow
from support import ACCOUNT, Body, answering, export_from, query


def counts(db: Path) -> list[tuple[Any, ...]]:
    """Return rows and removed duplicates of the batches, by date."""
    return query(db, 'SELECT "rows", removed_duplicates FROM _export_batches ORDER BY from_date, batch')


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


STRAY = Line("a", 24, "d", "i", 1)  # of the second day, sent with the first too


def test_an_event_that_two_batches_have_is_shown_once(db: Path) -> None:
    """The row whose time is outside its batch's days is hidden, and both batches count their rows."""
    server = Server()
    server.days[DAYS[0]] = [STRAY, Line("a", 1, "d", "j", 1)]
    server.days[DAYS[1]] = [STRAY]
    result = run(server, db, DAYS[0], DAYS[1])
    assert table(db) == rows([STRAY, Line("a", 1, "d", "j", 1)])
    assert counts(db) == [(1, 1), (1, 0)]
    assert (result.total_rows, result.removed_duplicates) == (2, 1)


@pytest.mark.parametrize("late", [0, 1])
def test_the_better_of_two_versions_wins_across_batches(db: Path, late: int) -> None:
    """The version that Mixpanel processed last is visible, whichever batch has it, in any order."""
    server = Server()
    versions = [STRAY, STRAY._replace(processed=2, note="newer")]
    server.days[DAYS[0]], server.days[DAYS[1]] = [versions[late]], [versions[1 - late]]
    run(server, db, DAYS[1 - late], DAYS[1 - late])
    run(server, db, DAYS[late], DAYS[late], mode="append")
    assert table(db) == rows([versions[1]])


def test_a_row_that_lost_comes_back_with_the_winner_gone(db: Path) -> None:
    """A duplicate becomes visible again if the batch with the better version is replaced without it."""
    server = Server()
    server.days[DAYS[0]] = [STRAY]
    server.days[DAYS[1]] = [STRAY._replace(processed=2)]
    run(server, db, DAYS[0], DAYS[1])
    server.days[DAYS[1]] = []
    run(server, db, DAYS[1], DAYS[1], mode="append")
    assert table(db) == rows([STRAY])
    assert counts(db) == [(1, 0), (0, 0)]


def test_an_event_that_belongs_to_neither_of_its_batches_is_shown_once(db: Path) -> None:
    """Batches are compared at the times of their strays, even if neither batch has the day itself."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY], DAYS[3]: [STRAY._replace(processed=2)]}
    run(server, db, DAYS[0], DAYS[0])
    run(server, db, DAYS[3], DAYS[3], mode="append")
    assert table(db) == rows([STRAY._replace(processed=2)])


def test_the_best_that_is_left_is_shown(db: Path) -> None:
    """Of three versions in three batches, the best is visible, and the next best when its batch is replaced."""
    server = Server()
    versions = [STRAY._replace(processed=processed) for processed in (3, 1, 2)]
    server.days |= {day: [line] for day, line in zip(DAYS[1:], versions, strict=True)}
    run(server, db, DAYS[1], DAYS[3])
    for day, left in ((DAYS[1], versions[2]), (DAYS[3], versions[1])):
        server.days[day] = []
        run(server, db, day, day, mode="append")
        assert table(db) == rows([left])


def test_an_event_without_a_time_is_shown_once(db: Path) -> None:
    """Events without a time are compared across all batches."""
    server = Server()
    timeless = Line("a", None, "d", "i", 1)
    server.days |= {DAYS[0]: [timeless], DAYS[3]: [timeless]}
    run(server, db, DAYS[0], DAYS[3])
    assert table(db) == rows([timeless])


OLDER_LEDGERS = {
    1: [],
    2: [
        "CREATE TABLE _export_timeless AS SELECT batch, insert_id FROM _export_strays WHERE event_time IS NULL"
    ],
}
"""What an older version of the ledger had in place of `_export_strays`."""


@pytest.mark.parametrize("hidden", [*slow([0]), 1], ids=["visible", "hidden"])
@pytest.mark.parametrize("hour", [24 * 3, *slow([None, 1_000_000])], ids=["a later day", "no time", "no day"])
@pytest.mark.parametrize("version", [2, *slow([1])])
def test_a_file_with_an_older_ledger_knows_its_strays(
    db: Path, version: int, hour: int | None, hidden: int
) -> None:
    """The first export into a table records the strays that an older release left there, visible or hidden.

    An export into another table of the file leaves that to it.
    """
    server = Server()
    first, second = (Line("a", hour, "d", "i", processed) for processed in (1, 2))
    server.days |= {DAYS[0]: [first], DAYS[1]: [second] * hidden}
    run(server, db, DAYS[0], DAYS[1])
    strays = query(db, "FROM _export_strays ORDER BY ALL")
    comment = f"COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger {version}'"
    for statement in (*OLDER_LEDGERS[version], "DROP TABLE _export_strays", comment):
        query(db, statement)
    query(db, "ALTER TABLE events RENAME TO kept")
    server.days |= {DAYS[2]: []}
    run(server, db, DAYS[2], DAYS[2], table="other")
    query(db, "ALTER TABLE kept RENAME TO events")
    run(server, db, DAYS[0], DAYS[1], mode="resume")
    assert query(db, "FROM _export_strays ORDER BY ALL") == strays
    assert query(db, "FROM duckdb_tables() WHERE table_name = '_export_timeless'") == []
    server.days |= {DAYS[1]: [], DAYS[3]: [second]}
    run(server, db, DAYS[1], DAYS[3], mode="append")
    assert table(db) == rows([second])


def test_events_without_an_insert_id_are_all_kept(db: Path) -> None:
    """Two such events cannot be identified as one, within a batch or across batches."""
    server = Server()
    nameless = STRAY._replace(insert_id=None)
    server.days |= {DAYS[0]: [nameless, nameless], DAYS[1]: [nameless]}
    run(server, db, DAYS[0], DAYS[1])
    assert table(db) == rows([nameless] * 3)


def test_without_dedupe_every_line_is_a_row(db: Path) -> None:
    """`dedupe=False` keeps all copies, within and across batches, along with batches that were deduplicated."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY, STRAY], DAYS[1]: [STRAY]}
    run(server, db, DAYS[0], DAYS[0], dedupe=False)
    run(server, db, DAYS[1], DAYS[1], mode="append")
    assert table(db) == rows([STRAY] * 3)


def test_projects_have_events_of_their_own(db: Path) -> None:
    """Two projects in one table may have events with the same identity."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY], DAYS[1]: [STRAY]}
    run(server, db, DAYS[0], DAYS[0])
    other = type(ACCOUNT)("someone", "secret", "4711")
    run(server, db, DAYS[1], DAYS[1], mode="append", credentials=other)
    assert table(db) == rows([STRAY] * 2)


def test_a_number_is_compared_as_it_was_sent(db: Path) -> None:
    """Times that differ only beyond a double's precision are two events; other numbers do not matter."""
    times = ["1709251200.50", "1709251200.5", "1709251200.50", "1709251200.5000000000000001"]
    body = b"".join(
        b'{"event":"a","properties":{"nested":{"time":%d.5},"time":%s,"distinct_id":"d","$insert_id":"i"}}\n'
        % (number, time.encode())
        for number, time in enumerate(times)
    )
    exported = anyio.run(export_from, answering(lambda _: body), db, FIRST, FIRST)
    assert exported.removed_duplicates == 1
    assert Counter(
        json.loads(text)["nested"]["time"] for (text,) in query(db, "SELECT properties FROM events")
    ) == {
        1.5: 1,
        2.5: 1,
        3.5: 1,
    }


def test_an_answer_that_was_empty_once_is_whole_the_second_time(db: Path) -> None:
    """The table gets the events of the second response."""
    server = Server()
    server.days |= {day: [Line("a", 24 * number, "d", "i", 1)] for number, day in enumerate(DAYS[:3])}
    kept, answer = dict(server.days), server._answer

    def empty_once(request: httpx.Request) -> httpx.Response:
        middle = request.url.params["from_date"] == str(DAYS[1]) and (DAYS[1], DAYS[1]) not in server.asked
        server.days = {} if middle else kept
        return answer(request)

    run(server, db, DAYS[0], DAYS[2], transport=httpx.MockTransport(empty_once))
    assert table(db) == rows(line for lines in kept.values() for line in lines)


def _rows_of(number: int, hour: int = 0) -> list[Line]:
    return [Line("a", hour, "d", str(n), 1) for n in range(number)]


def _body(lines: Iterable[Line]) -> bytes:
    return b"".join(f'{{"event":"{line.event}","properties":{line.properties}}}\n'.encode() for line in lines)


@pytest.mark.parametrize("first", ["{rows}terminated early", "garbage\n{rows}"])
def test_an_empty_answer_after_a_broken_one_is_not_believed_at_once(db: Path, first: str) -> None:
    """If an earlier attempt received events, an empty response does not make the day empty."""
    body = _body(_rows_of(5))
    answers = iter([first.encode().replace(b"{rows}", body), b"", body])
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: next(answers)))
    assert table(db) == rows(_rows_of(5))


def test_an_empty_answer_for_days_that_have_rows_is_not_believed_at_once(db: Path) -> None:
    """One empty response does not delete a day's rows in the table; two do."""
    held = _rows_of(3)
    answers = iter([_body(held), b"", _body(held), b"", b""])
    transport = answering(lambda _: next(answers))
    run(Server(), db, DAYS[0], DAYS[0], transport=transport)
    run(Server(), db, DAYS[0], DAYS[0], transport=transport, mode="append")
    assert table(db) == rows(held)
    run(Server(), db, DAYS[0], DAYS[0], transport=transport, mode="append")
    assert table(db) == rows([])


def test_what_a_shared_second_look_brings_is_fetched_day_by_day(db: Path) -> None:
    """If the shared second response is not empty, each of its days is requested again."""
    server, answer = Server(), Server._answer
    server.days = {day: [Line("a", 24 * number, "d", "i", 1)] for number, day in enumerate(DAYS)}

    def empty_once(request: httpx.Request) -> httpx.Response:
        middle = request.url.params["from_date"] in {str(DAYS[1]), str(DAYS[2])}
        if middle and server.asked.count((DAYS[1], DAYS[2])) == 0 and len(server.asked) < 4:
            server.asked.append((DAYS[0], DAYS[0]))
            return httpx.Response(200, stream=Body([b""]))
        return answer(server, request)

    run(server, db, DAYS[0], DAYS[3], transport=httpx.MockTransport(empty_once))
    assert table(db) == rows(line for lines in server.days.values() for line in lines)


@pytest.mark.parametrize(
    "name", ["strays", *slow(["days", "suspects", "losers", "keys", "twice", "events", "my_export_lines"])]
)
def test_a_table_may_have_any_name(db: Path, name: str) -> None:
    """Every allowed table name works in all SQL."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY, STRAY], DAYS[1]: [STRAY._replace(processed=2, note="x"), STRAY]}
    assert run(server, db, DAYS[0], DAYS[1], table=name).total_rows == 1


@pytest.mark.parametrize(
    "ids", [('{"a":1.50}', '{"a":1.5}'), *slow([(("[1.00000000000000001]", "[1.0]"),), (("-0", "0"),)])]
)
def test_ids_are_compared_as_they_were_sent(db: Path, ids: tuple[str, str]) -> None:
    """Ids that DuckDB would write in the same way are different if they were sent differently."""
    body = b"".join(
        b'{"event":"a","properties":{"time":1,"distinct_id":%s,"$insert_id":"i"}}\n' % one.encode()
        for one in (*ids, *ids)
    )
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: body))
    assert sum(table(db).values()) == 2


def test_ids_in_duckdbs_dialect_of_json_are_compared_as_they_were_sent(db: Path) -> None:
    """Text that DuckDB accepts and other JSON parsers reject neither hides nor creates a duplicate."""
    odd = b'{"event":"a","properties":{"time":%s,"distinct_id":"d","$insert_id":"i","x":[1,],"y":%d}}\n'
    body = odd % (b"1.5", 1) + odd % (b"1.50", 2) + odd % (b"1.5", 3) + b'{"event":"end","properties":{}}\n'
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: body))
    kept = query(db, "SELECT (properties->'y')::INTEGER AS y FROM events WHERE event_name = 'a' ORDER BY y")
    assert kept == [(2,), (3,)]


@pytest.mark.parametrize("kilobytes,number", [(6 << 10, 12), *slow([(1024, 60), (64, 1500)])])
def test_duplicates_of_any_size_are_found(db: Path, kilobytes: int, number: int) -> None:
    """Pairs of long events that differ only in their text fit into DuckDB's memory limit."""
    text = "0123456789abcdef" * (kilobytes * 64)
    body = b"".join(
        b'{"event":"a","properties":{"time":1709251200,"$insert_id":"%d","n":%d,"text":"%s"}}\n'
        % (line // 2, line, text.encode())
        for line in range(number)
    )
    result = run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: body))
    assert result.errors == ()
    assert (result.total_rows, result.removed_duplicates) == (number // 2, number // 2)
    assert query(db, "SELECT count(*) FROM events WHERE (properties->'n')::INTEGER % 2 = 0") == [(0,)]


def test_rows_keep_their_text_where_some_lose_inside_a_batch_and_some_across(tmp_path: Path) -> None:
    """Duplicates of both kinds in one commit do not change the text of any other row."""
    server, db = Server(), tmp_path / "e.duckdb"

    def line(hour: int, number: int, processed: int = 1) -> Line:
        return Line("a", hour, f"d{number}", f"i{number}", processed, f"{number:032x}" * 25)

    server.days[DAYS[0]] = [line(1, number) for number in range(14)]
    server.days[DAYS[1]] = [line(30, number) for number in range(14, 240)]
    server.days[DAYS[1]] += [line(30, number, processed=2) for number in range(14, 240, 13)]
    server.days[DAYS[1]] += [line(1, number, processed=number % 2 * 3) for number in range(14)]
    run(server, db, DAYS[0], DAYS[0])
    expected = rows(winners(line for day in DAYS[:2] for line in server.days[day]))
    for _ in range(4):
        run(server, db, DAYS[1], DAYS[1], mode="append")
        assert table(db) == expected
