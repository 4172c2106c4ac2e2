"""The tracker knows which chunks are decided; compared with a model that recounts everything after each step."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._export.tracker import Tracker
from mixpanel_export._model import Chunk, Committed
from mixpanel_export._planning.planner import Plan
from mixpanel_export.errors import MixpanelDataError, ServerError

FIRST = date(2024, 3, 1)
NOW = datetime(2024, 6, 1, tzinfo=UTC)
STEPS = st.lists(
    st.tuples(st.sampled_from(["commit", "empty", "fail", "split", "postpone", "resume"]), st.integers(0, 99))
)


def chunk(first: int, days: int = 4) -> Chunk:
    return Chunk(FIRST + timedelta(days=first), FIRST + timedelta(days=first + days - 1))


@dataclass
class Model:
    """The pieces of each batch, and the outcome of each decided piece."""

    batches: tuple[Chunk, ...]
    pieces: dict[Chunk, list[Chunk]]
    outcomes: dict[Chunk, str] = field(default_factory=dict)
    postponed: set[Chunk] = field(default_factory=set)
    taken: set[Chunk] = field(default_factory=set)
    """Batches that the tracker has returned as decided."""

    @property
    def pending(self) -> list[Chunk]:
        every = [piece for batch in self.batches for piece in self.pieces[batch]]
        return [piece for piece in every if piece not in self.outcomes]

    def batch_of(self, piece: Chunk) -> Chunk:
        return next(batch for batch in self.batches if piece in self.pieces[batch])

    def outcomes_of(self, batch: Chunk) -> list[str | None]:
        return [self.outcomes.get(piece) for piece in self.pieces[batch]]

    def take(self, step: str, number: int, tracker: Tracker) -> None:
        """Do one step with one of the chunks that allow it, in the tracker and here."""
        if step == "resume":
            assert tracker.resume() == sorted(self.postponed)
            self.postponed.clear()
            return
        free = [piece for piece in self.pending if piece not in self.postponed]
        if not free:
            return
        piece = free[number % len(free)]
        if step == "postpone":
            tracker.postpone(piece)
            self.postponed.add(piece)
        elif step == "split" and piece.length > 1:
            middle = piece.first + timedelta(days=piece.length // 2)
            halves = [Chunk(piece.first, middle - timedelta(days=1)), Chunk(middle, piece.last)]
            batch = self.batch_of(piece)
            tracker.record_split(piece, halves)
            self.pieces[batch] = sorted([*(one for one in self.pieces[batch] if one != piece), *halves])
        elif step == "fail":
            tracker.record_failure(piece, ServerError(f"{piece} failed"))
            self.outcomes[piece] = "failed"
        else:
            rows = 0 if step == "empty" else number
            tracker.record_commit(
                Committed(piece, rows, rejects=1, repaired=2), empty_response=step == "empty"
            )
            self.outcomes[piece] = step

    def check(self, tracker: Tracker) -> None:
        """Compare all values of the tracker."""
        outcomes = {batch: self.outcomes_of(batch) for batch in self.batches}
        decided = [batch for batch in self.batches if None not in outcomes[batch]]
        failed = [batch for batch in self.batches if "failed" in outcomes[batch]]
        assert tracker.batches == len(self.batches)
        assert tracker.pending == set(self.pending)
        assert tracker.active_count == len(self.pending) - len(self.postponed)
        assert tracker.batches_failed == len(failed)
        assert tracker.batches_done == len(set(decided) - set(failed))
        assert tracker.empty_batches == sorted(batch for batch in self.batches if "empty" in outcomes[batch])
        for batch in self.batches:
            for piece in self.pieces[batch]:
                first_time = batch in decided and batch not in self.taken
                assert tracker.take_decided_batch(piece) == (batch if first_time else None)
                self.taken |= {batch} if first_time else set()


@given(count=st.integers(1, 4), steps=STEPS)
def test_every_number_is_that_of_a_recount(count: int, steps: list[tuple[str, int]]) -> None:
    """After any steps, all values of the tracker agree with a recount of all chunks."""
    batches = tuple(chunk(4 * number) for number in range(count))
    tracker = Tracker(Plan(batches, batches))
    model = Model(batches, {batch: [batch] for batch in batches})
    for step, number in steps:
        model.take(step, number, tracker)
        model.check(tracker)


def test_a_batch_is_reported_with_all_its_pieces() -> None:
    """Rows are summed, errors listed in order of date, and the index is that of the plan."""
    batches = chunk(0), chunk(4)
    tracker = Tracker(Plan(batches, batches))
    halves = chunk(4, 2), chunk(6, 2)
    quarters = chunk(6, 1), chunk(7, 1)
    tracker.record_split(batches[1], halves)
    tracker.record_split(halves[1], quarters)
    errors: list[MixpanelDataError] = [ServerError("first"), ServerError("second")]
    tracker.record_failure(quarters[1], errors[1])
    tracker.record_failure(quarters[0], errors[0])
    tracker.record_commit(Committed(halves[0], 5), empty_response=False)
    progress = tracker.progress(batches[1])
    assert (progress.batch_index, progress.total_batches, progress.rows) == (1, 2, 5)
    assert (progress.from_date, progress.to_date) == ("2024-03-05", "2024-03-08")
    assert not progress.success
    assert progress.error == "first; second"


def test_a_batch_whose_pieces_are_decided_together_is_taken_once() -> None:
    """Each piece could be the last one; only the first call gets the batch."""
    batch, halves = chunk(0), (chunk(0, 2), chunk(2, 2))
    tracker = Tracker(Plan((batch,), (batch,)))
    tracker.record_split(batch, halves)
    for half in halves:
        tracker.record_commit(Committed(half, 1), empty_response=False)
    assert [tracker.take_decided_batch(half) for half in halves] == [batch, None]


def test_the_result_sums_up() -> None:
    """Counts are those of the committed chunks, and failures are in order of date."""
    batches = chunk(0), chunk(4), chunk(8)
    tracker = Tracker(Plan(batches, batches, added=(chunk(0, 1),)))
    errors = ServerError("late"), ServerError("early")
    tracker.record_commit(Committed(batches[1], 7, rejects=2, repaired=3), empty_response=False)
    tracker.record_failure(batches[2], errors[0])
    tracker.record_failure(batches[0], errors[1])
    result = tracker.result("events", 9, 4, seconds=1.5, finished_at=NOW)
    assert (result.table, result.total_rows, result.removed_duplicates) == ("events", 9, 4)
    assert (result.successful_batches, result.failed_batches, result.empty_batches) == (1, 2, 0)
    assert result.failed_date_ranges == (("2024-03-01", "2024-03-04"), ("2024-03-09", "2024-03-12"))
    assert result.errors == (errors[1], errors[0])
    assert result.added_date_ranges == (("2024-03-01", "2024-03-01"),)
    assert (result.rejects, result.repaired, result.duration_seconds, result.fetched_at) == (2, 3, 1.5, NOW)
    assert tracker.rows == 7
