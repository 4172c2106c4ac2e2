"""A small share of the torture; `nox -s torture` runs all of it."""

import os

import pytest
from examples import slow
from torture.fuzz import decode_mutations, export_mutation
from torture.kills import kills
from torture.schedules import schedule


@pytest.mark.parametrize("seed", [*range(3), *slow(range(3, 8))])
def test_the_table_is_exact_after_every_step(seed: int) -> None:
    """Exports in all modes, each under random faults, leave complete batches and in the end exactly the truth."""
    tally = schedule(seed)
    assert tally.failures == []
    assert tally.exports


if os.name == "posix":  # kills need SIGKILL and fork

    @pytest.mark.parametrize("seed", [*range(3), *slow(range(3, 8))])
    def test_a_killed_export_leaves_complete_batches(seed: int) -> None:
        """Wherever an export is killed, its file has complete batches, and the next export fetches exactly the rest."""
        tally = kills(seed)
        assert tally.failures == []
        assert tally.kills or tally.missed


def test_a_mutated_body_is_an_error_or_exactly_its_lines() -> None:
    """Whatever happens to the bytes of a body, no line is lost, doubled or changed without an error."""
    tally = decode_mutations(1, 2000)
    assert tally.failures == []
    assert tally.mutations == 2000


@pytest.mark.parametrize("seed", [*range(2), *slow(range(2, 4))])
def test_a_mutated_body_is_stored_exactly_or_not_at_all(seed: int) -> None:
    """The table has each line of a mutated body, or nothing and a failed batch."""
    assert export_mutation(seed).failures == []
