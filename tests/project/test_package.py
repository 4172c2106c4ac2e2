"""The built package: one version number, exactly the right files, and correct metadata."""

import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

import mixpanel_export

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_stands_once() -> None:
    """The program and the package read it from the metadata."""
    files = [path for path in (ROOT / "mixpanel_export").rglob("*.py") if "simulator" not in path.parts]
    texts = [ROOT / "noxfile.py", ROOT / "README.md", *files]
    assert mixpanel_export.__version__ == version(PROJECT["name"])
    assert [path for path in texts if PROJECT["version"] in path.read_text(encoding="utf-8")] == []


def test_the_supported_pythons_are_classified() -> None:
    """The classifiers start with the oldest version that can install the package."""
    prefix = "Programming Language :: Python :: 3."
    minors = [int(text.removeprefix(prefix)) for text in PROJECT["classifiers"] if text.startswith(prefix)]
    oldest = int(PROJECT["requires-python"].removeprefix(">=3."))
    assert minors == list(range(oldest, oldest + len(minors)))
    assert sys.version_info.minor in minors


def test_every_requirement_has_a_lower_bound() -> None:
    """`nox -s lowest` runs the tests with these versions."""
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    for requirement in [*PROJECT["dependencies"], *extras]:
        assert re.fullmatch(r"[a-z0-9-]+(\[[a-z0-9]+\])?>=[0-9.]+", requirement), requirement


@pytest.mark.slow
def test_the_wheel_is_complete(tmp_path: Path) -> None:
    """It has the marker for type checkers, the licence and every file of the package, and nothing else."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        headers = Parser().parsestr(archive.read(metadata).decode())
    folder = metadata.removesuffix("METADATA")
    assert f"{folder}licenses/LICENSE" in names
    assert (headers["Version"], headers["License-Expression"]) == (PROJECT["version"], "MIT")
    files = (path for path in (ROOT / "mixpanel_export").rglob("*") if "__pycache__" not in path.parts)
    expected = {path.relative_to(ROOT).as_posix() for path in files if path.is_file()}
    assert "mixpanel_export/py.typed" in expected
    assert {name for name in names if not name.startswith(folder)} == expected
