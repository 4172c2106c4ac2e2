"""Sessions for developers: `nox` runs the checks; `nox --list` shows the others, such as `build` and `torture`."""

import shutil
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.download_python = "never"
nox.options.error_on_external_run = True
nox.options.error_on_missing_interpreters = False
nox.options.sessions = ["lint", "types", "tests", "coverage"]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
DEV = nox.project.dependency_groups(PROJECT, "dev")
EXTRAS = sorted(PROJECT["project"]["optional-dependencies"])
DIST = Path("dist").absolute()
BENCHMARKS = [
    "engine",
    "network",
    "memory",
    "growth",
    "empty",
    "cores",
    "startup",
    "flatten",
    "profiles",
    "publish",
]


def _tools(*names: str) -> list[str]:
    """Return the requirements of the development group that begin with one of *names*."""
    return [requirement for requirement in DEV if requirement.startswith(names)]


@nox.session
def lint(session: nox.Session) -> None:
    """Run the linter and the formatter."""
    session.install(*_tools("ruff"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, also in tests and benchmarks, and those of the package for other systems."""
    session.install(".", *DEV)
    session.run("mypy")
    for system in ("win32", "darwin"):
        # mypy treats code for other systems as unreachable.
        session.run("mypy", "--platform", system, "--no-warn-unreachable", "mixpanel_export")


@nox.session(python=PYTHONS, tags=["tests"])
def tests(session: nox.Session) -> None:
    """Run the tests against the installed package, on each available Python. `-- -m ''` adds the slow tests."""
    session.install(".", *DEV)
    # Outside the checkout, so that the installed wheel is imported.
    session.run("python", "-P", "-m", "pytest", "-n", "4", *session.posargs)


@nox.session(venv_backend="uv")
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest libraries that pyproject.toml allows."""
    session.install("--resolution", "lowest-direct", f".[{','.join(EXTRAS)}]")
    session.install(*DEV)  # keeps the libraries that are installed
    session.run("python", "-P", "-m", "pytest", "-n", "2", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """Build an sdist, and a wheel from it, into dist/. Then each available Python installs both and runs the demo."""
    shutil.rmtree(DIST, ignore_errors=True)
    session.install("build", "twine")
    session.run("python", "-m", "build")
    session.run("twine", "check", "--strict", *map(str, DIST.iterdir()))
    for python in PYTHONS:
        for package in ("whl", "tar.gz"):
            session.notify(f"install-{python}(package='{package}')")
    for extra in EXTRAS:
        session.notify(f"extra(name='{extra}')")


@nox.session(python=PYTHONS, default=False)
@nox.parametrize("package", ["whl", "tar.gz"])
def install(session: nox.Session, package: str) -> None:
    """Install a file that `build` has built into a new environment, and run the demo."""
    (file,) = DIST.glob(f"*.{package}")
    session.install(str(file))
    session.chdir(session.create_tmp())  # outside the checkout, so that the installed package is imported
    session.run("mpx", "demo", "--days", "9")


@nox.session(default=False)
@nox.parametrize("name", EXTRAS)
def extra(session: nox.Session, name: str) -> None:
    """Install the wheel that `build` has built with one extra into a new environment, and run the demo."""
    (file,) = DIST.glob("*.whl")
    session.install(f"{file}[{name}]")
    session.chdir(session.create_tmp())
    session.run("mpx", "demo", "--days", "9")


@nox.session
def coverage(session: nox.Session) -> None:
    """Run the tests under coverage, and fail if it is lower than pyproject.toml requires."""
    session.install("-e", ".", *DEV)
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", "-n", "4", *session.posargs)
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session
def mutation(session: nox.Session) -> None:
    """Run mutation tests on the pure modules."""
    session.install("-e", ".", *DEV, *nox.project.dependency_groups(PROJECT, "mutation"))
    session.run("mutmut", "run", *session.posargs)
    session.run("mutmut", "results")


@nox.session
def torture(session: nox.Session) -> None:
    """Kill exports, send them wrong responses, and check the results. `nox -s torture -- --help` shows the options."""
    session.install("-e", ".", *DEV)
    session.run("python", "-m", "tests.torture", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks: `nox -s bench` runs all, `nox -s bench -- engine --scale 1` one script of benchmarks/."""
    everything = not session.posargs or session.posargs[0].startswith("-")
    scripts = BENCHMARKS if everything else session.posargs[:1]
    package = ".[spark]" if "spark" in scripts else "."
    session.install(package, *nox.project.dependency_groups(PROJECT, "bench"))
    for script in [*scripts, "bars"]:
        session.run("python", f"benchmarks/{script}.py", *session.posargs[not everything :])


@nox.session
def browser(session: nox.Session) -> None:
    """Open reports in Chromium, which the system must have, with axe-core from npm. Prints where the screenshots are."""
    session.install(".", *DEV)
    folder = session.create_tmp()
    packages = ("puppeteer-core@24", "axe-core@4")
    session.run("npm", "install", "--silent", "--prefix", folder, *packages, external=True)
    environment = {"NODE_PATH": f"{folder}/node_modules", "MPX_SCREENSHOTS": folder}
    session.run(
        "python", "-P", "-m", "pytest", "tests/report/in_browser.py", *session.posargs, env=environment
    )
    session.log(f"The screenshots are in {folder}.")


@nox.session
def spark(session: nox.Session) -> None:
    """Read with Spark, which needs Java 17: on Debian, `apt-get install openjdk-17-jre-headless`."""
    session.install(".[spark]", *DEV)
    ignored = ("ignore:PySpark does not yet fully support pandas:FutureWarning", "ignore::ResourceWarning")
    warnings = [word for text in ignored for word in ("-W", text)]
    alone = ("tests/spark/in_spark.py", "tests/export/test_stream_batches.py")
    cluster = ("tests/spark/in_cluster.py",)
    for tests in (alone, cluster):  # the settings of a process's first session apply to its later ones, too
        session.run("python", "-P", "-m", "pytest", *warnings, *tests, *session.posargs)


@nox.session
def lake(session: nox.Session) -> None:
    """Publish to servers like S3 and Azure, and to Delta tables, and read them with other libraries. It needs npm."""
    session.install(".[lake]", *DEV, "moto[server]>=5.1", "polars>=1.30", "pyarrow>=20")
    folder = session.create_tmp()
    session.run("npm", "install", "--silent", "--prefix", folder, "azurite@3", external=True)
    environment = {"MPX_AZURITE": folder}
    session.run("python", "-P", "-m", "pytest", "tests/publish/in_lake.py", *session.posargs, env=environment)


@nox.session
def demo(session: nox.Session) -> None:
    """Export 90 days from the simulator, as the README's first command does."""
    session.install(".")
    session.run("mpx", "demo", *session.posargs)
