"""A little of the torture, on every run of the tests; `nox -s torture` has the rest."""

import os

import pytest
from torture.fuzz import decoding, writing
from torture.kills import kills
from torture.schedules import schedule


@pytest.mark.parametrize("seed", range(8))
def test_the_table_is_exact_after_every_step(seed: int) -> None:
    """Exports of all modes, each under faults of its own, leave exactly the truth, and whole batches between."""
    tally = schedule(seed)
    assert tally.failures == []
    assert tally.exports


if os.name == "posix":  # what kills need: SIGKILL, and processes that fork

    @pytest.mark.parametrize("seed", range(8))
    def test_a_killed_export_leaves_whole_batches_and_is_completed(seed: int) -> None:
        """Wherever an export is killed, its file holds whole batches, and the next run fetches exactly the rest."""
        tally = kills(seed)
        assert tally.failures == []
        assert tally.kills or tally.missed


def test_a_mutated_body_is_an_error_or_exactly_its_lines() -> None:
    """Whatever happens to the bytes of a body, no line is lost, doubled or changed without an error."""
    tally = decoding(1, 2000)
    assert tally.failures == []
    assert tally.mutations == 2000


@pytest.mark.parametrize("seed", range(4))
def test_a_mutated_body_is_in_the_table_exactly_or_not_at_all(seed: int) -> None:
    """Of an answer with mutated bytes the table has each line, or nothing and a failed batch."""
    assert writing(seed).failures == []
