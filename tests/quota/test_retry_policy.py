"""What follows a failed attempt: each failure has its reaction, and each wait its limits."""

from collections.abc import Callable
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_export._quota.retry_policy import History, Step, Wait, next_step, pause_after_refusal
from mixpanel_export.errors import (
    APIError,
    AuthenticationError,
    ConfigError,
    DatabaseError,
    FutureDateError,
    LineTooLongError,
    MixpanelDataError,
    NetworkError,
    QueryError,
    ServerError,
    TruncatedError,
)

UNCONNECTED = NetworkError("x")
BROKEN = NetworkError("x", mid_answer=True)
TRUNCATED = TruncatedError("x", status_code=200)
SERVER = ServerError("x", status_code=503)
GATEWAY = ServerError("x", status_code=504)
TIMEOUT = ServerError("x", status_code=400)
PASSING = [UNCONNECTED, BROKEN, TRUNCATED, SERVER, GATEWAY, TIMEOUT]


def after(*errors: MixpanelDataError, draw: float = 0.5, retries: int = 5, splittable: bool = False) -> Step:
    """Return the step after these failures in a row."""
    history = reduce(History.after, errors, History())
    return next_step(history, retries=retries, splittable=splittable, draw=lambda: draw)


@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError("x"),
        QueryError("x"),
        FutureDateError("x"),
        APIError("x"),
        ConfigError("x"),
        DatabaseError("x", db_path="x"),
        MixpanelDataError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("splittable", [False, True])
def test_what_cannot_pass_is_given_up(error: MixpanelDataError, splittable: bool) -> None:
    """A failure that would occur again is not retried, neither as a whole nor in pieces."""
    assert after(error, splittable=splittable) == "give up"
    assert after(BROKEN, error, splittable=splittable) == "give up"


@pytest.mark.parametrize("error", [UNCONNECTED, BROKEN, TRUNCATED, SERVER])
@pytest.mark.parametrize(
    "failures,draw,pause",
    [
        (1, 1.0, 1.0),
        (1, 0.5, 0.5),
        (1, 0.25, 0.25),
        (1, 0.0, 0.25),
        (2, 1.0, 2.0),
        (3, 0.75, 3.0),
        (6, 1.0, 32.0),
        (7, 1.0, 60.0),
        (9, 0.5, 30.0),
        (2000, 1.0, 60.0),
    ],
)
def test_what_may_pass_is_tried_again_with_full_jitter(
    error: MixpanelDataError, failures: int, draw: float, pause: float
) -> None:
    """A pause is random, between 0 and a second that doubles up to a minute, but at least a quarter of a second."""
    assert after(*[error] * failures, draw=draw, retries=2000) == Wait(pause)


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_the_budget_is_the_number_of_retries(retries: int) -> None:
    """With *retries* = n there are n + 1 attempts."""
    steps = [after(*[SERVER] * failures, retries=retries) for failures in range(1, 9)]
    assert [step == "give up" for step in steps] == [False] * retries + [True] * (8 - retries)


@pytest.mark.parametrize("error", [BROKEN, TRUNCATED, GATEWAY, ServerError("x", status_code=408)])
def test_a_second_break_splits(error: MixpanelDataError) -> None:
    """A chunk whose response broke or timed out twice is too large, if it can be divided; other failures do not split it."""
    assert isinstance(after(error, splittable=True), Wait)
    assert after(error, error, splittable=True) == "split"
    assert after(error, SERVER, UNCONNECTED, error, splittable=True) == "split"
    assert isinstance(after(error, error, splittable=False), Wait)


@pytest.mark.parametrize("error", [UNCONNECTED, SERVER])
def test_failures_that_size_does_not_explain_never_split(error: MixpanelDataError) -> None:
    """A missing connection and an unavailable server are independent of the chunk."""
    steps = [after(*[error] * failures, splittable=True) for failures in range(1, 10)]
    assert "split" not in steps


def test_a_server_that_ran_out_of_time_splits_at_once() -> None:
    """Mixpanel's own timeout means that the range is too large; a chunk that cannot be split is retried."""
    assert after(TIMEOUT, splittable=True) == "split"
    assert isinstance(after(TIMEOUT, splittable=False), Wait)


def test_a_line_that_is_too_long_splits_at_once() -> None:
    """The pieces without the line succeed; a chunk that cannot be split is given up, because the line stays as long."""
    assert after(LineTooLongError("x"), splittable=True) == "split"
    assert after(LineTooLongError("x"), splittable=False) == "give up"


@pytest.mark.parametrize(
    "asked,pause", [(None, 0.5), (0.0, 0.5), (0.75, 0.75), (3600.0, 3600.0), (1e6, 3600.0)]
)
def test_a_server_error_may_name_the_pause(asked: float | None, pause: float) -> None:
    """With `Retry-After`, the pause is at least that long, up to an hour."""
    assert after(ServerError("x", status_code=503, retry_after=asked)) == Wait(pause)


@given(
    errors=st.lists(st.sampled_from(PASSING), min_size=1, max_size=30),
    draw=st.floats(0, 1, exclude_max=True),
    retries=st.integers(0, 30),
    splittable=st.booleans(),
)
def test_every_history_ends(
    errors: list[MixpanelDataError], draw: float, retries: int, splittable: bool
) -> None:
    """The export's own pause is between a quarter of a second and a minute, and the number of retries is limited."""
    match after(*errors, draw=draw, retries=retries, splittable=splittable):
        case Wait(seconds):
            assert 0.25 <= seconds <= 60
            assert len(errors) <= retries
        case "split":
            assert splittable
        case "give up":
            assert len(errors) > retries


@pytest.mark.parametrize(
    "retry_after,refusals,draw,pause",
    [
        (None, 1, 0.0, 60.0),
        (None, 1, 1.0, 66.0),
        (None, 2, 0.0, 120.0),
        (None, 3, 0.5, 252.0),
        (None, 7, 0.0, 3600.0),
        (None, 5000, 0.0, 3600.0),
        (0.0, 1, 0.0, 0.0),
        (7.0, 1, 0.0, 7.0),
        (7.0, 1, 1.0, 8.0),
        (7200.0, 1, 0.5, 7560.0),
        (0.0, 2, 0.0, 1.0),
        (0.5, 4, 0.0, 4.0),
        (5.0, 4, 0.0, 5.0),
        (1.0, 5000, 0.0, 60.0),
    ],
)
def test_a_refusal_is_a_pause(retry_after: float | None, refusals: int, draw: float, pause: float) -> None:
    """`Retry-After` is respected, slightly extended; without it, or if it is too short, the pause doubles."""
    assert pause_after_refusal(retry_after, refusals, draw=lambda: draw) == pytest.approx(pause)


@given(retry_after=st.none() | st.floats(0, 1e5), refusals=st.integers(1, 5000))
def test_draws_only_lengthen_a_refusal(retry_after: float | None, refusals: int) -> None:
    """The pause is never shorter than the server's, and a random part keeps clients from returning together."""
    shortest, longest = (
        pause_after_refusal(retry_after, refusals, draw=drawn) for drawn in _constants(0.0, 1.0)
    )
    assert shortest >= (retry_after or 0)
    assert longest - shortest == pytest.approx(max(1.0, shortest / 10))


def _constants(*values: float) -> list[Callable[[], float]]:
    return [lambda value=value: value for value in values]  # type: ignore[misc] # bound early
