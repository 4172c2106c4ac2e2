"""The simulator's README and docstring are correct: their blocks run in another project's test suite."""

import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import mixpanel_export.simulator as package
from mixpanel_export.simulator import Simulator

README = (Path(package.__path__[0]) / "README.md").read_text(encoding="utf-8")
CONFTEST, TESTS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_the_blocks_are_a_working_test_suite(tmp_path: Path) -> None:
    """The first block as conftest.py and the second as a test file pass under plain pytest."""
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    (tmp_path / "test_export.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", encoding="utf-8")
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]  # whose defaults warn
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_the_docstring_has_the_same_fixture() -> None:
    """The fixture in the docstring of the package is the one of the README, in at most ten lines of code."""
    assert package.__doc__ is not None
    assert dedent(CONFTEST).strip() in dedent(package.__doc__.replace("\n    ", "\n")).strip()
    assert len([line for line in CONFTEST.splitlines() if line]) <= 10


def test_every_name_in_the_overview_exists() -> None:
    """Classes, methods and options of the table are those of the package, and the modules at the end are files."""
    table, modules = README.split("## Overview")[1].split("## The modules")
    names = set(re.findall(r"`(?:simulator\.)?(\w+)(?:\([^`]*\))?`", table))
    options = set(Simulator(events_per_day=1).profile.__dataclass_fields__)
    assert names - {"where"} <= {*package.__all__, *dir(Simulator), *options}
    folder = Path(package.__path__[0])
    assert all((folder / f"{name}.py").is_file() for name in re.findall(r"`(\w+)`", modules))
