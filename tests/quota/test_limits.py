"""Quota limits that the user sets."""

import pytest

from mixpanel_export._quota.limits import Quota
from mixpanel_export.errors import ArgumentError, ConfigError


@pytest.mark.parametrize("limits, argument", [((-1, 60), "per_second"), ((3, -1), "per_hour")])
def test_negative_limits_are_refused(limits: tuple[int, int], argument: str) -> None:
    """A limit below zero is an error that names the argument."""
    with pytest.raises(ArgumentError) as caught:
        Quota.resolved(*limits)
    assert caught.value.argument == argument


@pytest.mark.parametrize(
    "value, per_hour", [(None, 60), ("", 60), (" ", 60), ("0", 0), ("17", 17), (" 5 ", 5)]
)
def test_the_environment_sets_what_no_argument_does(
    value: str | None, per_hour: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without arguments, the variables apply; if one is unset or empty, Mixpanel's own limit applies."""
    monkeypatch.delenv("MPX_PER_SECOND", raising=False)
    monkeypatch.delenv("MPX_PER_HOUR", raising=False)
    if value is not None:
        monkeypatch.setenv("MPX_PER_HOUR", value)
    assert Quota.resolved(max_wait=9.0) == Quota(3, per_hour, 9.0)
    assert Quota.resolved(2, 4) == Quota(2, 4)


@pytest.mark.parametrize("value", ["many", "-1", "1.5", "²"])
def test_a_variable_that_is_no_number_is_an_error(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is one of the configuration."""
    monkeypatch.setenv("MPX_PER_SECOND", value)
    with pytest.raises(ConfigError, match="MPX_PER_SECOND"):
        Quota.resolved()
