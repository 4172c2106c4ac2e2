"""Errors: one sentence for people, and its parts as data."""

import ast
import copy
import inspect
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixpanel_export
from mixpanel_export import ArgumentError, MixpanelDataError, RateLimitError, Workspace
from mixpanel_export._error_base import ARGUMENTS, Advice, Problem
from mixpanel_export.errors import AdvisoryWarning

PACKAGE = Path(mixpanel_export.__file__).parent
SPENT = RateLimitError(
    "Mixpanel responded with status 429",
    advice="wait, or lower $per_second and $per_hour",
    argument="per_hour",
    days="2024-01-01 to 2024-01-03",
)


def option(name: str) -> str:
    return f"--{name}"


def test_an_error_is_one_sentence() -> None:
    """Days, reason and advice form one sentence, each part can be omitted, and argument names can be converted."""
    whole = (
        "2024-01-01 to 2024-01-03: Mixpanel responded with status 429; wait, or lower per_second and per_hour"
    )
    assert str(SPENT) == SPENT.message == SPENT.to_dict()["message"] == whole
    assert (
        SPENT.text(days=False) == "Mixpanel responded with status 429; wait, or lower per_second and per_hour"
    )
    assert SPENT.text(days=False, advice=False) == SPENT.reason == "Mixpanel responded with status 429"
    assert SPENT.text(days=False, name=option).endswith("; wait, or lower --per_second and --per_hour")
    assert (str(SPENT.advice), SPENT.argument) == ("wait, or lower per_second and per_hour", "per_hour")


def test_an_error_may_be_a_reason_alone() -> None:
    """Without advice and days, the sentence is the reason."""
    error = MixpanelDataError("it broke", detail=1)
    assert (str(error), error.advice, error.argument, error.days) == ("it broke", None, None, None)
    assert error.to_dict() == {"code": "UNKNOWN_ERROR", "message": "it broke", "details": {"detail": 1}}


def test_an_argument_error_is_a_value_error() -> None:
    """The text starts with the argument's name, which can be converted."""
    error = ArgumentError("limit", "must be at most 5, got 6", advice="lower $limit")
    assert isinstance(error, ValueError)
    assert str(error) == "limit must be at most 5, got 6; lower limit"
    assert error.text(name=option) == "--limit must be at most 5, got 6; lower --limit"


def test_a_warning_has_the_same_parts() -> None:
    """A warning is shown as one sentence, and its parts are data."""
    warning = AdvisoryWarning("others may read it", advice="lock it")
    assert isinstance(warning, UserWarning)
    assert (str(warning), warning.advice) == ("others may read it; lock it", "lock it")


@pytest.mark.parametrize("problem", [SPENT, ArgumentError("limit", "is wrong", advice="lower $limit")])
def test_advice_survives_copies_and_processes(problem: Problem) -> None:
    """Copying, pickling and passing advice on to another error keep its template."""
    for twin in (copy.deepcopy(problem), pickle.loads(pickle.dumps(problem))):  # noqa: S301 - its own bytes
        assert twin.text(name=option) == problem.text(name=option)
    again = MixpanelDataError("once more", advice=problem.advice)
    assert again.text(name=option).endswith(problem.advice.worded(option) if problem.advice else "")


def test_advice_leaves_other_dollars() -> None:
    """Only the names of arguments are replaced."""
    assert Advice("see $HOME, $insert_id, $from_dates, $$") == "see $HOME, $insert_id, $from_dates, $$"


def test_advice_names_arguments_that_there_are() -> None:
    """Every argument that advice may name belongs to a public call, and advice names no other."""
    calls = (
        mixpanel_export.export_events,
        Workspace.fetch_events,
        Workspace.__init__,
        Workspace.drop,
        Workspace.flatten,
        Workspace.publish,
    )
    public = {name for call in calls for name in inspect.signature(call).parameters}
    assert public >= ARGUMENTS
    assert {name for name in names_in_advice() if name not in ARGUMENTS} == set()


def names_in_advice() -> Iterator[str]:
    """Every `$name` in a string of the package that is an advice."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "advice":
                texts = [part.value for part in ast.walk(node.value) if isinstance(part, ast.Constant)]
                yield from (
                    word[1:].rstrip(",;.")
                    for text in texts
                    if isinstance(text, str)
                    for word in text.split()
                    if word.startswith("$")
                )
