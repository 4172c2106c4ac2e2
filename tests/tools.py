"""Programs, and other releases of libraries, that tests install from the package index."""

import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest


def tools_folder(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Path:
    """Return a folder that pytest's cache keeps, or a temporary one without the cache."""
    cache = getattr(request.config, "cache", None)  # `-p no:cacheprovider` leaves none
    return Path(cache.mkdir("tools")) if cache else factory.mktemp("tools")


def install(folder: Path, name: str, *arguments: str) -> Path:
    """Install what *arguments* of `pip install` name below *folder*, and return where it is.

    *name* identifies it. It is installed once, however many processes try at once.
    """
    home = folder / f"{name}-{sys.implementation.cache_tag}"
    if home.is_dir():
        return home
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        target = Path(beside, "release")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        command += ["--only-binary", ":all:", "--target", str(target), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"cannot install {name}: {done.stderr}"
        with suppress(OSError):  # another process was quicker
            target.rename(home)
    assert home.is_dir()
    return home
