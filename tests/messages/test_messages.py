"""The wording of every error, warning and usage error, in one file: `messages.txt`.

After a change of wording, `UPDATE_MESSAGES=1 pytest tests/messages` writes the file anew. A new message needs a case in
`cases.py`. Other tests assert classes and data.
"""

import ast
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import click
import pytest
from cases import CASES
from click.testing import Result
from steps import Place

import mixpanel_export
from mixpanel_export import errors, publication
from mixpanel_export._error_base import Problem
from mixpanel_export.cli import in_options

MESSAGES = Path(__file__).with_name("messages.txt")
PACKAGE = Path(mixpanel_export.__file__).parent
KINDS = {
    name
    for module in (errors, publication)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Problem)
}
ERRORS = {"errors.py", "publication.py", "_error_base.py", "exceptions.py"}
USAGE = {"UsageError", "BadParameter", "ClickException"}
PROXIES = {"https_proxy", "all_proxy", "no_proxy"}

Site = tuple[str, int]
"""File and line where a message is made."""

HEADER = """Every message, as Python and as the command line words it. `mpx:` lines stand where the two differ,
and for what only the command line says. Written by `UPDATE_MESSAGES=1 pytest tests/messages`."""

NOT_PROVOKED = {
    "_writer/batch_writer.py: converting_errors": "DuckDB would have to fail in memory",
    "_export/fetch_tasks.py: _fetch_until_committed": "DuckDB would have to read other lines than were staged",
    "_publish/delta.py: _check_partitions": "the package deltalake is in the extra `lake`",
    "_publish/delta.py: _converting_errors": "the package deltalake is in the extra `lake`",
    "_writer/staging.py: writing": "the staged files would have to vanish at the right moment",
    "cli/add_account.py: _new_name": "standard input would have to be a terminal",
    "cli/account_questions.py: check": "standard input would have to be a terminal",
    "cli/account_questions.py: _zone": "standard input would have to be a terminal",
    "cli/query.py: _check_parquet": "standard output would have to be a terminal",
}
"""Places that make a message and that no case reaches, with the reason."""


@pytest.mark.timeout(600)
def test_every_message_reads_as_it_is_recorded(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Errors have the recorded wording, and each place that creates a message is reached by a case."""
    sites: set[Site] = set()
    entries = [HEADER]
    for number, name in enumerate(CASES):
        folder = tmp_path_factory.mktemp(f"case{number}")
        with pytest.MonkeyPatch.context() as monkeypatch:
            prepare(folder, monkeypatch, sites)
            lines = [cleaned(line, folder) for line in messages_of(name, Place(folder, monkeypatch))]
        assert lines, f"nothing went wrong: {name}"
        entries.append("\n".join([name, *lines]))
    text = "\n\n".join(entries) + "\n"
    if os.environ.get("UPDATE_MESSAGES"):
        MESSAGES.write_text(text, encoding="utf-8")
    assert text == MESSAGES.read_text(encoding="utf-8")
    differences = set(not_provoked(sites)) ^ NOT_PROVOKED.keys()
    assert not differences, "\n".join(sorted(differences))


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch, sites: set[Site]) -> None:
    """Make *folder* the only source of settings, and record in *sites* where messages are created."""
    for name in [name for name in os.environ if name.startswith(("MP_", "MPX_")) or name.lower() in PROXIES]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setenv("MPX_STATE_DIR", str(folder / "state"))
    monkeypatch.setenv("MP_CONFIG_PATH", str(folder / "config.toml"))
    monkeypatch.chdir(folder)
    for kind in (Problem, click.ClickException):  # only their constructors know where they are called
        monkeypatch.setattr(kind, "__init__", noting(kind.__init__, sites))


def noting(constructor: Callable[..., None], sites: set[Site]) -> Callable[..., None]:
    def note(self: object, *args: object, **kwargs: object) -> None:
        sites.add(site_of_caller())
        constructor(self, *args, **kwargs)

    return note


def site_of_caller() -> Site:
    """Return where the object is made whose constructor has called the caller."""
    frame = sys._getframe(2)
    while Path(frame.f_code.co_filename).name in ERRORS and frame.f_back:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno


def messages_of(name: str, place: Place) -> Iterator[str]:
    """Let the case happen, and yield the lines that show what went wrong."""
    problems: Iterable[object] = ()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            problems = CASES[name](place)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is recorded
            problems = [error]
    if isinstance(problems, Result):
        yield "  mpx: " + problems.stderr.strip().replace("\n", "\n       ").removeprefix("Error: ")
        return
    messages = [warning.message for warning in caught]
    for problem in [*messages, *(problems if isinstance(problems, list | tuple) else ())]:
        if isinstance(problem, Exception):
            yield f"  {type(problem).__name__}: {problem}"
            if (words := in_options(problem)) != str(problem):
                yield f"  {'mpx':>{len(type(problem).__name__)}}: {words}"


def cleaned(line: str, folder: Path) -> str:
    """Return *line* without what differs from run to run."""
    line = line.replace(str(folder), "FOLDER")
    for pattern, stands in (
        (r"process \d+", "process 123"),
        (r"another \d+ (s|min)", "another 59 min"),
        (r"127\.0\.0\.1:\d+", "127.0.0.1:8080"),
        (r"port \d+", "port 8080"),
        (r"computed checksum .* location \d+", "(DuckDB's text)"),
        (
            r"(IO|Catalog|Binder|Constraint|Parser|TransactionContext) Error: .*?(?=\), so|\); |; |$)",
            "(DuckDB's text)",
        ),
    ):
        line = re.sub(pattern, stands, line)
    return line


def not_provoked(sites: set[Site]) -> Iterator[str]:
    """Yield file and function of each call that makes a message and is not among *sites*."""
    for path in PACKAGE.rglob("*.py"):
        # tests/spark provokes the errors of the data source.
        if not {"simulator", "spark"}.isdisjoint(path.parts) or path.name in {"errors.py", "_error_base.py"}:
            continue
        lines = {line for file, line in sites if file == str(path)}
        for function, call in calls_in(ast.parse(path.read_text(encoding="utf-8"))):
            if lines.isdisjoint(range(call.lineno, (call.end_lineno or call.lineno) + 1)):
                yield f"{path.relative_to(PACKAGE).as_posix()}: {function}"


def calls_in(node: ast.AST, function: str = "") -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        name = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
        match child:
            case ast.Call(func=ast.Name(id=called)) if called in KINDS:
                yield name, child
            case ast.Call(func=ast.Attribute(value=ast.Name(id="click"), attr=called)) if called in USAGE:
                yield name, child
        yield from calls_in(child, name)
