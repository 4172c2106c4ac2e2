"""Every event is in the table exactly once after any sequence of exports of a changing project."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, NamedTuple

from changing_days import DAYS, NAMES, Line, Server, rows, run, table, winners
from examples import examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from support import query

from mixpanel_export import SelectionError, TableExistsError, TableNotFoundError

Mode = Literal["create", "append", "replace", "resume"]


class Batch(NamedTuple):
    """The result of one request that is still in the table."""

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


class Exports(RuleBasedStateMachine):
    """The server changes, exports of all modes follow, and a model determines the table's contents."""

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
        strays = (
            "SELECT export_batch, event_time, insert_id FROM events JOIN _export_batches ON export_batch = batch "
            "WHERE coalesce(event_time::DATE NOT BETWEEN from_date AND to_date, true)"
        )
        assert query(self.db, f"{strays} EXCEPT ALL FROM _export_strays") == []
        ((recorded,),) = query(self.db, "SELECT count(*) FROM _export_strays")
        assert [(recorded,)] == query(
            self.db, "SELECT sum(outside_rows + timeless_rows) FROM _export_batches"
        )


def _days(first: date, last: date) -> Iterator[date]:
    return (first + timedelta(days=day) for day in range((last - first).days + 1))


Exports.TestCase.settings = settings(examples(core=3, full=40), stateful_step_count=12)
TestExports = Exports.TestCase
