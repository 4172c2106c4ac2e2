"""The documents of the tests are correct: tests, folders and options that they name exist, and none is missing."""

import ast
import dataclasses
import inspect
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import pytest

from mixpanel_export.simulator import Fault, ProfileRules, Rules, Simulator
from mixpanel_export.simulator.events import Profile

TESTS = Path(__file__).parents[1]
CHECKLIST = (TESTS / "checklist.md").read_text(encoding="utf-8")
NAMED = re.compile(r"(?P<file>test_\w+\.py)?(?:::)?(?P<test>test_\w+)?")


@cache
def defined_in(file: Path) -> set[str]:
    """Return the names of the tests in a file."""
    nodes = ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    functions = (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return {node.name for node in functions if node.name.startswith("test_")}


def named_tests(text: str) -> Iterator[tuple[str, str]]:
    """Yield each test in *text* with its file: the file in the same quotes, or the last one before."""
    file = ""
    for span in re.findall(r"`([^`\n]+)`", text):
        match = NAMED.fullmatch(span)
        if match is None:
            continue
        file = match["file"] or file
        if match["test"]:
            yield file, match["test"]


@pytest.mark.parametrize("table", ["README.md", "checklist.md"])
def test_every_named_test_exists(table: str) -> None:
    """Every test in a document is in the file that the document names."""
    defined = {file.name: defined_in(file) for file in TESTS.rglob("test_*.py")}
    named = list(named_tests((TESTS / table).read_text(encoding="utf-8")))
    assert len(named) > 20
    assert [f"{file}::{test}" for file, test in named if test not in defined.get(file, set())] == []


def test_the_overview_has_every_folder() -> None:
    """README.md has one row for each folder with tests, and no row for any other; the helpers that it names exist."""
    readme = (TESTS / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \|", readme, re.MULTILINE)
    assert sorted(rows) == sorted({file.parent.name for file in TESTS.glob("*/*.py")})
    helpers = [name for name in re.findall(r"`(\w+\.py)`", readme) if not name.startswith("test_")]
    assert {"support.py", "shell.py"} <= set(helpers)
    assert [name for name in helpers if not (TESTS / name).is_file()] == []


def test_the_checklist_is_complete() -> None:
    """Every number from 1 to 56, and from 60 to 71 without 61, has one row with a test."""
    rows = dict(re.findall(r"^\| (\d+) \|.*?\|.*\| (.*) \|$", CHECKLIST, re.MULTILINE))
    assert [int(number) for number in rows] == [*range(1, 57), 60, *range(62, 72)]
    assert [number for number, tests in rows.items() if "::test_" not in tests] == []


def test_every_kind_of_fault_is_in_the_checklist() -> None:
    """Every kind of fault is in the checklist, beside the test that shows how an export reacts."""
    kinds = set(get_args(Fault.__annotations__["kind"]))
    assert kinds
    assert kinds <= set(re.findall(r"`(\w+)`", CHECKLIST))


def test_every_option_in_the_checklist_exists() -> None:
    """Each is an option of the simulator or of its events, a field of `Fault`, `Rules` or `ProfileRules`, or a kind of fault."""
    fields = {
        field.name for kind in (Fault, Profile, ProfileRules, Rules) for field in dataclasses.fields(kind)
    }
    existing = {*get_args(Fault.__annotations__["kind"]), *fields, *inspect.signature(Simulator).parameters}
    rows = re.findall(r"^\| \d+ \|.*?\| ([^|]*) \| [^|]* \|$", CHECKLIST, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)", row)}
    assert len(rows) == 67
    assert named - existing == set()
