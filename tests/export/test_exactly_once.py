"""Every event exactly once, whatever the server and the user do between two exports."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import anyio
import httpx
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import ACCOUNT, COLUMNS, NOW, Body, answering, query

from mixpanel_export import (
    ParallelFetchResult,
    SelectionError,
    TableExistsError,
    TableNotFoundError,
    export_events,
)

FIRST = date(2024, 3, 1)
DAYS = [FIRST + timedelta(days=day) for day in range(4)]
NAMES = ("a", "b")
Mode = Literal["create", "append", "replace", "resume"]


class Line(NamedTuple):
    """An event as the server has it; `hour` counts from the first day, None for an event without a time."""

    event: str
    hour: int | None
    distinct_id: str
    insert_id: str | None
    processed: int | None
    note: str = ""

    @property
    def properties(self) -> str:
        """The text of the event's properties."""
        members: dict[str, Any] = {"distinct_id": self.distinct_id, "note": self.note}
        if self.hour is not None:
            members["time"] = _second(self.hour)
        if self.insert_id is not None:
            members["$insert_id"] = self.insert_id
        if self.processed is not None:
            members["mp_processing_time_ms"] = self.processed
        return json.dumps(members)

    @property
    def row(self) -> tuple[Any, ...]:
        """The event as the table has it."""
        time = None if self.hour is None else datetime.fromtimestamp(_second(self.hour), UTC)
        return (
            self.event,
            time and time.replace(tzinfo=None),
            self.distinct_id,
            self.insert_id,
            self.properties,
        )


def _second(hour: int) -> int:
    return int(datetime(FIRST.year, FIRST.month, FIRST.day, tzinfo=UTC).timestamp()) + 3600 * hour


def winners(lines: Iterable[Line]) -> list[Line]:
    """Of the lines with one identity the one processed last, then the one with the greatest text."""
    best: dict[object, Line] = {}
    for number, line in enumerate(lines):
        key = (line.event, line.hour, line.distinct_id, line.insert_id) if line.insert_id else number
        held = best.get(key)
        if held is None or _rank(line) > _rank(held):
            best[key] = line
    return list(best.values())


def _rank(line: Line) -> tuple[int, str]:
    return (-1 if line.processed is None else line.processed, line.properties)


@dataclass
class Server:
    """A project whose days hold what a test puts there; it notes what it was asked for."""

    days: dict[date, list[Line]] = field(default_factory=lambda: {day: [] for day in DAYS})
    asked: list[tuple[date, date]] = field(default_factory=list)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._answer)

    def lines(self, first: date, last: date, names: Iterable[str] | None) -> list[Line]:
        wanted = NAMES if names is None else names
        return [
            line
            for day in self.days
            if first <= day <= last
            for line in self.days[day]
            if line.event in wanted
        ]

    def _answer(self, request: httpx.Request) -> httpx.Response:
        params = request.url.params
        first, last = (date.fromisoformat(params[name]) for name in ("from_date", "to_date"))
        self.asked.append((first, last))
        names = json.loads(params["event"]) if "event" in params else None
        body = b"".join(
            f'{{"event":"{line.event}","properties":{line.properties}}}\n'.encode()
            for line in self.lines(first, last, names)
        )
        return httpx.Response(200, stream=Body([body]))


def run(server: Server, db: Path, first: date, last: date, **options: Any) -> ParallelFetchResult:
    """Export days of *server*, with requests of one day each unless told otherwise."""
    usual: dict[str, Any] = {
        "credentials": ACCOUNT,
        "transport": server.transport(),
        "api_url": "http://127.0.0.1",
        "per_second": 0,
        "per_hour": 0,
        "now": lambda: NOW,
        "chunk_days": 1,
    }

    async def exported() -> ParallelFetchResult:
        return await export_events(first, last, db=db, **(usual | options))

    return anyio.run(exported)


def table(db: Path) -> Counter[tuple[Any, ...]]:
    """Return the rows of the table as a multiset."""
    return Counter(query(db, f"SELECT {COLUMNS} FROM events"))


def rows(lines: Iterable[Line]) -> Counter[tuple[Any, ...]]:
    """Return what a table with these events holds."""
    return Counter(line.row for line in lines)


def counts(db: Path) -> list[tuple[Any, ...]]:
    """Return rows and removed duplicates of the batches, by date."""
    return query(db, 'SELECT "rows", removed_duplicates FROM _export_batches ORDER BY from_date, batch')


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "test.duckdb"


STRAY = Line("a", 24, "d", "i", 1)  # of the second day, sent with the first too


def test_an_event_that_two_batches_have_is_shown_once(db: Path) -> None:
    """The row whose time lies outside its batch's days gives way, and both batches count what they hold."""
    server = Server()
    server.days[DAYS[0]] = [STRAY, Line("a", 1, "d", "j", 1)]
    server.days[DAYS[1]] = [STRAY]
    result = run(server, db, DAYS[0], DAYS[1])
    assert table(db) == rows([STRAY, Line("a", 1, "d", "j", 1)])
    assert counts(db) == [(1, 1), (1, 0)]
    assert (result.total_rows, result.removed_duplicates) == (2, 1)


@pytest.mark.parametrize("late", [0, 1])
def test_the_better_of_two_versions_wins_across_batches(db: Path, late: int) -> None:
    """The version that was processed last is shown, whichever batch has it and comes first."""
    server = Server()
    versions = [STRAY, STRAY._replace(processed=2, note="newer")]
    server.days[DAYS[0]], server.days[DAYS[1]] = [versions[late]], [versions[1 - late]]
    run(server, db, DAYS[1 - late], DAYS[1 - late])
    run(server, db, DAYS[late], DAYS[late], mode="append")
    assert table(db) == rows([versions[1]])


def test_a_row_that_lost_comes_back_with_the_winner_gone(db: Path) -> None:
    """What a batch delivered is shown again when the batch with the better version is replaced without it."""
    server = Server()
    server.days[DAYS[0]] = [STRAY]
    server.days[DAYS[1]] = [STRAY._replace(processed=2)]
    run(server, db, DAYS[0], DAYS[1])
    server.days[DAYS[1]] = []
    run(server, db, DAYS[1], DAYS[1], mode="append")
    assert table(db) == rows([STRAY])
    assert counts(db) == [(1, 0), (0, 0)]


def test_an_event_that_belongs_to_neither_of_its_batches_is_shown_once(db: Path) -> None:
    """Batches are compared where their outside times meet, though no batch has the day itself."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY], DAYS[3]: [STRAY._replace(processed=2)]}
    run(server, db, DAYS[0], DAYS[0])
    run(server, db, DAYS[3], DAYS[3], mode="append")
    assert table(db) == rows([STRAY._replace(processed=2)])


def test_the_best_that_is_left_is_shown(db: Path) -> None:
    """Of three versions in three batches the best is shown, and the next best when its batch is replaced."""
    server = Server()
    versions = [STRAY._replace(processed=processed) for processed in (3, 1, 2)]
    server.days |= {day: [line] for day, line in zip(DAYS[1:], versions, strict=True)}
    run(server, db, DAYS[1], DAYS[3])
    for day, left in ((DAYS[1], versions[2]), (DAYS[3], versions[1])):
        server.days[day] = []
        run(server, db, day, day, mode="append")
        assert table(db) == rows([left])


def test_an_event_without_a_time_is_shown_once(db: Path) -> None:
    """Events that no day can claim are compared across all batches."""
    server = Server()
    timeless = Line("a", None, "d", "i", 1)
    server.days |= {DAYS[0]: [timeless], DAYS[3]: [timeless]}
    run(server, db, DAYS[0], DAYS[3])
    assert table(db) == rows([timeless])


@pytest.mark.parametrize("lost", [0, 1], ids=["one is shown", "one is hidden"])
@pytest.mark.parametrize("change", ["DROP TABLE _export_timeless", "DELETE FROM _export_timeless"])
def test_ids_that_are_not_noted_are_made_up_for(db: Path, change: str, lost: int) -> None:
    """A file of the first ledger is gone on with: its events without a time are known to what comes, also hidden ones.

    That the table is out of the way while another one is exported into changes nothing.
    """
    server = Server()
    first, second = (Line("a", None, "d", "i", processed) for processed in (1, 2))
    server.days |= {DAYS[0]: [first], DAYS[1]: [second] * lost}
    run(server, db, DAYS[0], DAYS[1])
    query(db, change)
    query(db, "COMMENT ON TABLE _export_batches IS 'mixpanel_export ledger 1'")
    query(db, "ALTER TABLE events RENAME TO kept")
    run(server, db, DAYS[0], DAYS[0], table="other")
    query(db, "ALTER TABLE kept RENAME TO events")
    server.days |= {DAYS[1]: [], DAYS[3]: [second]}
    run(server, db, DAYS[1], DAYS[3], mode="append")
    assert table(db) == rows([second])


def test_events_without_an_insert_id_are_all_kept(db: Path) -> None:
    """Nothing says that two such events are one, inside a batch or across."""
    server = Server()
    nameless = STRAY._replace(insert_id=None)
    server.days |= {DAYS[0]: [nameless, nameless], DAYS[1]: [nameless]}
    run(server, db, DAYS[0], DAYS[1])
    assert table(db) == rows([nameless] * 3)


def test_without_dedupe_every_line_is_a_row(db: Path) -> None:
    """`dedupe=False` keeps all copies, inside a batch and across, also beside batches that were deduplicated."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY, STRAY], DAYS[1]: [STRAY]}
    run(server, db, DAYS[0], DAYS[0], dedupe=False)
    run(server, db, DAYS[1], DAYS[1], mode="append")
    assert table(db) == rows([STRAY] * 3)


def test_projects_have_events_of_their_own(db: Path) -> None:
    """Two projects in one table may have events of one identity."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY], DAYS[1]: [STRAY]}
    run(server, db, DAYS[0], DAYS[0])
    other = type(ACCOUNT)("someone", "secret", "4711")
    run(server, db, DAYS[1], DAYS[1], mode="append", credentials=other)
    assert table(db) == rows([STRAY] * 2)


def test_a_number_is_compared_as_it_was_sent(db: Path) -> None:
    """Times that only differ beyond a double's precision are two events; other numbers of the event do not matter."""
    times = ["1709251200.50", "1709251200.5", "1709251200.50", "1709251200.5000000000000001"]
    body = b"".join(
        b'{"event":"a","properties":{"nested":{"time":%d.5},"time":%s,"distinct_id":"d","$insert_id":"i"}}\n'
        % (number, time.encode())
        for number, time in enumerate(times)
    )

    async def exported() -> ParallelFetchResult:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Body([body])))
        return await export_events(
            FIRST, FIRST, db=db, credentials=ACCOUNT, transport=transport, api_url="http://127.0.0.1"
        )

    assert anyio.run(exported).removed_duplicates == 1
    assert Counter(
        json.loads(text)["nested"]["time"] for (text,) in query(db, "SELECT properties FROM events")
    ) == {
        1.5: 1,
        2.5: 1,
        3.5: 1,
    }


def test_an_answer_that_was_empty_once_is_whole_the_second_time(db: Path) -> None:
    """What the second answer brings is what the table gets."""
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
def test_an_empty_answer_after_a_broken_one_is_not_believed_at_once(
    db: Path, first: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an earlier attempt brought events, an answer without a byte does not make the day empty."""
    monkeypatch.setattr("mixpanel_export._quota.retry._SHORTEST_PAUSE", 0.0)
    body = _body(_rows_of(5))
    answers = iter([first.encode().replace(b"{rows}", body), b"", body])
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: next(answers)))
    assert table(db) == rows(_rows_of(5))


def test_an_empty_answer_for_days_that_have_rows_is_not_believed_at_once(db: Path) -> None:
    """Rows that the table has of a day are not dropped for one answer without a byte, but for two they are."""
    held = _rows_of(3)
    answers = iter([_body(held), b"", _body(held), b"", b""])
    transport = answering(lambda _: next(answers))
    run(Server(), db, DAYS[0], DAYS[0], transport=transport)
    run(Server(), db, DAYS[0], DAYS[0], transport=transport, mode="append")
    assert table(db) == rows(held)
    run(Server(), db, DAYS[0], DAYS[0], transport=transport, mode="append")
    assert table(db) == rows([])


def test_what_a_shared_second_look_brings_is_fetched_day_by_day(db: Path) -> None:
    """Where the common look is not empty, each of its days is asked for again."""
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
    "name", ["days", "suspects", "losers", "keys", "twice", "strays", "events", "events_2"]
)
def test_a_table_may_have_any_name(db: Path, name: str) -> None:
    """No name that a table may have means something else on the way."""
    server = Server()
    server.days |= {DAYS[0]: [STRAY, STRAY], DAYS[1]: [STRAY._replace(processed=2, note="x"), STRAY]}
    assert run(server, db, DAYS[0], DAYS[1], table=name).total_rows == 1


@pytest.mark.parametrize(
    "ids", [('{"a":1.50}', '{"a":1.5}'), ("[1.00000000000000001]", "[1.0]"), ("-0", "0")]
)
def test_ids_are_compared_as_they_were_sent(db: Path, ids: tuple[str, str]) -> None:
    """Ids that DuckDB would write alike are two, if they were sent as two."""
    body = b"".join(
        b'{"event":"a","properties":{"time":1,"distinct_id":%s,"$insert_id":"i"}}\n' % one.encode()
        for one in (*ids, *ids)
    )
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: body))
    assert sum(table(db).values()) == 2


def test_json_that_only_duckdb_takes_is_compared_too(db: Path) -> None:
    """An identity in JSON that Python would not read is compared as it was sent, like any other."""
    odd = b'{"event":"a","properties":{"time":1.5,"distinct_id":"d","$insert_id":"i","x":[1,],"y":%s}}\n'
    body = odd % b"1" + odd % b"2" + b'{"event":"end","properties":{}}\n'
    run(Server(), db, DAYS[0], DAYS[0], transport=answering(lambda _: body))
    assert sum(table(db).values()) == 2


@pytest.mark.parametrize("kilobytes,number", [(1024, 60), (64, 1500), (6 << 10, 12)])
def test_duplicates_of_any_size_are_found(db: Path, kilobytes: int, number: int) -> None:
    """Pairs of long events that only their text tells apart fit into the memory that DuckDB is given."""
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


class Batch(NamedTuple):
    """What one request delivered that still counts."""

    first: date
    last: date
    names: tuple[str, ...] | None
    lines: tuple[Line, ...]


LINES = st.lists(
    st.builds(
        Line,
        st.sampled_from(NAMES),
        st.sampled_from([24, 30, 71, 96, None]),  # few, so that days have events in common
        st.just("d"),
        st.sampled_from(["i", "i", "i", "j", "", None]),
        st.sampled_from([1, 2, None]),
        st.sampled_from(["", "n"]),
    ),
    max_size=5,
)
DAY = st.sampled_from(DAYS)


def test_rows_keep_their_text_where_some_lose_inside_a_batch_and_some_across(tmp_path: Path) -> None:
    """Duplicates of both kinds in one commit leave the text of every other row as it was sent."""
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


class Exports(RuleBasedStateMachine):
    """The server changes, exports of all modes follow, and a model says what the table must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.db = Path(self.folder.name, "test.duckdb")
        self.server = Server()
        self.batches: list[Batch] | None = None

    def teardown(self) -> None:
        self.folder.cleanup()

    @initialize(days=st.lists(LINES, min_size=len(DAYS), max_size=len(DAYS)))
    def begin(self, days: list[list[Line]]) -> None:
        self.server.days = dict(zip(DAYS, days, strict=True))

    @rule(day=DAY, lines=LINES)
    def events_come_and_go(self, day: date, lines: list[Line]) -> None:
        self.server.days[day] = lines

    @rule(day=DAY, name=st.sampled_from(["d", "e"]))
    def people_are_merged(self, day: date, name: str) -> None:
        self.server.days[day] = [line._replace(distinct_id=name) for line in self.server.days[day]]

    @rule(one=DAY, other=DAY)
    def a_day_leaks_into_another(self, one: date, other: date) -> None:
        self.server.days[other] = (self.server.days[other] + self.server.days[one])[:8]

    @rule(
        mode=st.sampled_from(["create", "append", "append", "replace", "resume"]),
        ends=st.one_of(st.tuples(DAY, DAY), DAY.map(lambda day: (day, day))),
        names=st.sampled_from([None, None, None, ("a",), ("b",)]),
        chunk_days=st.sampled_from([1, 1, 2, 3]),
    )
    def export(
        self, mode: Mode, ends: tuple[date, date], names: tuple[str, ...] | None, chunk_days: int
    ) -> None:
        first, last = min(ends), max(ends)
        self.server.asked.clear()
        try:
            run(
                self.server,
                self.db,
                first,
                last,
                mode=mode,
                events=names,
                chunk_days=chunk_days,
                allow_empty=True,
            )
        except TableExistsError:
            assert mode == "create"
            assert self.batches is not None
        except TableNotFoundError:
            assert mode == "append"
            assert self.batches is None
        except SelectionError:
            assert any(self._conflicts(batch, first, last, names) for batch in self.batches or ())
        else:
            self._exported(mode, first, last, names)

    def _conflicts(self, batch: Batch, first: date, last: date, names: tuple[str, ...] | None) -> bool:
        disjoint = names and batch.names and not set(names) & set(batch.names)
        return batch.names != names and not disjoint and batch.first <= last and first <= batch.last

    def _exported(self, mode: Mode, first: date, last: date, names: tuple[str, ...] | None) -> None:
        held = [] if mode in {"create", "replace"} or self.batches is None else self.batches
        asked = sorted(chunk for chunk in set(self.server.asked) if not self._is_second_look(*chunk))
        days = {first + timedelta(days=day) for day in range((last - first).days + 1)}
        mine = [batch for batch in held if batch.names == names]
        wanted = days - {day for batch in mine for day in _days(batch.first, batch.last) if mode == "resume"}
        touched = [batch for batch in mine if wanted & set(_days(batch.first, batch.last))]
        wanted |= {day for batch in touched for day in _days(batch.first, batch.last)}
        assert sorted(day for chunk in asked for day in _days(*chunk)) == sorted(wanted)
        self.batches = [batch for batch in held if batch not in touched]
        self.batches += [
            Batch(*chunk, names, tuple(winners(self.server.lines(*chunk, names)))) for chunk in asked
        ]

    def _is_second_look(self, first: date, last: date) -> bool:
        """Whether neighbours that came empty were asked for once more, together."""
        return any(
            first <= start and end <= last
            for start, end in self.server.asked
            if (start, end) != (first, last)
        )

    @precondition(lambda self: self.batches is not None)
    @invariant()
    def the_table_is_what_the_batches_delivered(self) -> None:
        assert self.batches is not None
        expected = winners(line for batch in self.batches for line in batch.lines)
        assert table(self.db) == rows(expected)

    @precondition(lambda self: self.batches is not None)
    @invariant()
    def the_ledger_agrees_with_the_table(self) -> None:
        differing = query(
            self.db,
            'SELECT batch, "rows", n FROM _export_batches FULL JOIN '
            "(SELECT export_batch AS batch, count(*) AS n FROM events GROUP BY ALL) USING (batch) "
            'WHERE table_name IS NULL OR "rows" <> coalesce(n, 0)',
        )
        assert differing == []
        delivered = sum(len(batch.lines) for batch in self.batches or ())
        hidden = query(self.db, "SELECT count(*) FROM _export_duplicates")[0][0]
        assert hidden == delivered - sum(table(self.db).values())
        noted = "SELECT batch, insert_id FROM _export_timeless"
        nameless = "SELECT export_batch, insert_id FROM events WHERE event_time IS NULL AND insert_id <> ''"
        assert query(self.db, f"{nameless} EXCEPT {noted}") == []
        assert query(self.db, "FROM _export_timeless ANTI JOIN _export_batches USING (batch)") == []


def _chunks(asked: Iterable[tuple[date, date]]) -> list[tuple[date, date]]:
    """Return what was asked for, each once, without second looks at several empty chunks in one request."""
    chunks = set(asked)
    return sorted(
        (first, last)
        for first, last in chunks
        if not any(first <= other[0] and other[1] <= last for other in chunks - {(first, last)})
    )


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=day) for day in range((last - first).days + 1))


Exports.TestCase.settings = settings(max_examples=20, stateful_step_count=12)
TestExports = Exports.TestCase
