"""The tables of this folder are true: what they name is there, and nothing of the checklist is left out."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from mixpanel_export.simulator import Fault, Rules, Simulator
from mixpanel_export.simulator.events import Profile

TESTS = Path(__file__).parents[1]
CHECKLIST = (TESTS / "checklist.md").read_text(encoding="utf-8")
NAMED = re.compile(r"(?P<file>test_\w+\.py)?(?:::)?(?P<test>test_\w+)?")


def defined_in(file: Path) -> set[str]:
    """Return the names of the tests that a file defines."""
    body = ast.parse(file.read_text(encoding="utf-8")).body
    functions = (node for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def named_tests(text: str) -> Iterator[tuple[str, str]]:
    """Yield each test that *text* names, with its file: the one in the same quotes, or the last one before."""
    file = ""
    for span in re.findall(r"`([^`\n]+)`", text):
        named = NAMED.fullmatch(span)
        if named is None:
            continue
        file = named["file"] or file
        if named["test"]:
            yield file, named["test"]


@pytest.mark.parametrize("table", ["README.md", "checklist.md"])
def test_every_test_that_is_named_exists(table: str) -> None:
    """What a table of this folder names, in the file where it says."""
    defined = {file.name: defined_in(file) for file in TESTS.rglob("test_*.py")}
    named = list(named_tests((TESTS / table).read_text(encoding="utf-8")))
    assert len(named) > 20
    assert [f"{file}::{test}" for file, test in named if test not in defined.get(file, set())] == []


def test_the_checklist_is_complete() -> None:
    """Every number from 1 to 56, and 60, has one row with a test."""
    rows = dict(re.findall(r"^\| (\d+) \|.*?\|.*\| (.*) \|$", CHECKLIST, re.MULTILINE))
    assert [int(number) for number in rows] == [*range(1, 57), 60]
    assert [number for number, tests in rows.items() if "::test_" not in tests] == []


def test_every_kind_of_fault_is_in_the_checklist() -> None:
    """What the simulator can do wrong stands beside the test that shows what an export makes of it."""
    kinds = set(get_args(Fault.__annotations__["kind"]))
    assert kinds
    assert kinds <= set(re.findall(r"`(\w+)`", CHECKLIST))


def test_every_switch_of_the_checklist_exists() -> None:
    """Each is an option of the simulator or of its events, a field of a fault or of the rules, or a kind of fault."""
    fields = {field.name for kind in (Fault, Profile, Rules) for field in dataclasses.fields(kind)}
    there = {*get_args(Fault.__annotations__["kind"]), *fields, *inspect.signature(Simulator).parameters}
    rows = re.findall(r"^\| \d+ \|.*?\| ([^|]*) \| [^|]* \|$", CHECKLIST, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(rows) == 57
    assert named - there == set()
