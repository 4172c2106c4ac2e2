"""What may be seen from outside, and what may see what inside."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mixpanel_export
from mixpanel_export import errors

PACKAGE = Path(mixpanel_export.__file__).parent

# Module: what of ours it may import, what of others'. Imports point up this table.
LAYERS = {
    "errors": ("", ""),
    "_html": ("", ""),
    "_frames": ("", "pandas"),
    "results": ("_frames _html errors", "pandas"),
    "_stream": ("", ""),
    "_lines": ("", ""),
    "_zone": ("", ""),
    "_expect": ("", ""),
    "_plan": ("_expect _stream", ""),
    "_retry": ("errors", ""),
    "_limits": ("_retry", "anyio"),
    "_clock": ("", ""),
    "_quota": ("_clock _limits", "platformdirs"),
    "_decode": ("_lines errors", "isal"),
    "_event": ("_lines _zone", ""),
    "inspection": ("_frames _html results", "pandas"),
    "_arguments": ("_plan _stream errors results", ""),
    "credentials": ("_zone errors", ""),
    "_accounts": ("credentials errors", "tomlkit"),
    "progress": ("results", "tqdm"),
    "_connections": ("_stream errors", "h2 httpx"),
    "_fetch": ("_connections _stream credentials _decode errors", "anyio httpx"),
    "_turns": ("", "anyio"),
    "_attempts": ("_fetch _limits _retry _stream _turns errors", "anyio httpx numpy"),
    "_settings": ("errors", "duckdb"),
    "_database": ("_settings errors", "duckdb"),
    "_rivals": ("_lines", ""),
    "_duplicates": ("_database _rivals", "duckdb"),
    "_schema": ("_database errors", "duckdb"),
    "_ledger": ("_database _duplicates _plan _schema _stream errors", "duckdb"),
    "_state": ("_database _ledger _plan _schema _stream errors", "duckdb"),
    "_tables": ("_database _ledger _schema _state errors inspection", "duckdb"),
    "_inspect": ("_database _tables errors inspection", "duckdb"),
    "_local": ("_database _frames _inspect _tables errors inspection", "duckdb pandas"),
    "_upgrade": ("_database _ledger _local _schema _stream errors inspection", "duckdb"),
    "_coverage": ("_ledger _stream", ""),
    "_room": ("", ""),
    "_staging": ("_room _settings _stream errors", "isal"),
    "_cut": ("", "numpy"),
    "_arrow": ("_cut _room", "duckdb nanoarrow numpy"),
    "_find": ("_arrow _cut _database _ledger _room _staging", "duckdb numpy"),
    "_load": ("_arrow _cut _database _find _ledger _rivals _staging", "duckdb numpy"),
    "_mend": ("_find _lines _staging", "duckdb"),
    "_tasks": ("", "anyio"),
    "_skew": ("", ""),
    "_examine": ("_find _load _mend _settings _skew _staging _state _stream", "duckdb"),
    "_store": (
        "_database _duplicates _examine _ledger _load _mend _plan _schema _settings _staging _state _stream _tasks _zone errors",
        "duckdb",
    ),
    "_outcome": ("_plan _stream errors results", ""),
    "_reports": ("_attempts _limits _outcome _stream _tasks results", "anyio"),
    "_second_look": ("_attempts _outcome _stream _tasks errors", "anyio"),
    "_run": (
        (
            "_attempts _limits _load _outcome _plan _reports _second_look _settings _staging _store _stream _tasks errors "
            "results"
        ),
        "anyio",
    ),
    "_job": ("_fetch _ledger _limits _plan _quota _state _stream _zone credentials errors", ""),
    "_dry_run": ("_database _job _state _stream results", "anyio"),
    "_engine": (
        "_attempts _connections _database _fetch _job _reports _run _staging _state _store _tasks credentials results",
        "anyio httpx",
    ),
    "_check": ("_attempts _connections _fetch _job _stream _tasks credentials errors", "httpx"),
    "_reach": ("_connections", "anyio httpx"),
    "_doctor": ("_database _ledger _quota _reach _schema _stream credentials errors", ""),
    "sync": ("_tasks", "anyio"),
    "_reading": ("_coverage _database _ledger _schema _state _stream _tasks errors sync", "duckdb"),
    "workspace": (
        "_arguments _check _engine _event _fetch _local _zone credentials errors inspection progress results sync",
        "",
    ),
    "__init__": (
        "_engine _fetch _plan _upgrade credentials errors inspection results sync workspace",
        "",
    ),
}
# Package: the same for all its modules together, imports of each other aside.
PACKAGES = {
    "simulator": ("", "anyio h11 httpx isal"),
    "cli": (
        "__init__ _accounts _arguments _doctor _coverage _dry_run _engine _fetch _job _ledger _plan _quota _reach _reading _stream _upgrade credentials errors inspection progress results simulator sync workspace",
        "anyio click",
    ),
}

LIBRARIES = {
    "anyio",
    "click",
    "duckdb",
    "h11",
    "h2",
    "httpx",
    "isal",
    "pandas",
    "platformdirs",
    "tomlkit",
    "tqdm",
    "trio",
}


def modules_named_in(source: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                # `from mixpanel_export import errors` names a module, `from mixpanel_export import Progress` not.
                inside = {f"mixpanel_export.{name.name}" for name in names if is_module(name.name)}
                yield from inside if module == "mixpanel_export" and inside else {module}
            case ast.ImportFrom():
                yield "a relative import"


def is_module(name: str) -> bool:
    return (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()


def imports_of(source: Path) -> tuple[set[str], set[str]]:
    """What of ours and what of others' the file imports: top-level names, the standard library left out."""
    ours: set[str] = set()
    theirs: set[str] = set()
    for module in modules_named_in(source):
        first, _, rest = module.partition(".")
        if first == "mixpanel_export":
            ours.add(rest.partition(".")[0] or "__init__")
        elif first not in sys.stdlib_module_names:
            theirs.add(first)
    return ours, theirs


@pytest.mark.parametrize("module", LAYERS)
def test_imports_point_one_way(module: str) -> None:
    """A module imports only what its layer allows, and of ours only what stands above it in the table."""
    may_ours, may_theirs = LAYERS[module]
    ours, theirs = imports_of(PACKAGE / f"{module}.py")
    assert ours <= set(may_ours.split())
    assert theirs <= set(may_theirs.split())
    names = list(LAYERS)
    assert set(may_ours.split()) <= set(names[: names.index(module)])


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_import_what_they_may(package: str) -> None:
    """A package imports only what its layer allows; the simulator nothing of ours, so that it can disagree."""
    may_ours, may_theirs = PACKAGES[package]
    for source in (PACKAGE / package).rglob("*.py"):
        ours, theirs = imports_of(source)
        assert ours - {package} <= set(may_ours.split()), source.name
        assert theirs <= set(may_theirs.split()), source.name


def test_every_module_has_a_layer() -> None:
    """No module stands outside the tables."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules == set(LAYERS)
    assert packages == set(PACKAGES)


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted and equals the public names: those the package defines or offers to be imported."""
    names = mixpanel_export.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    offered = {name for name in dir(mixpanel_export) if not name.startswith("_")} | {"__version__"}
    borrowed = {"Any", "TYPE_CHECKING", "import_module"}
    assert {name for name in offered if not is_module(name)} - borrowed == set(names)


def test_every_public_name_can_be_had() -> None:
    """Every name of `__all__` exists, and a name that is not there is an AttributeError."""
    for name in mixpanel_export.__all__:
        assert getattr(mixpanel_export, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        mixpanel_export.no_such_name  # noqa: B018


def test_every_error_is_public() -> None:
    """Whatever an export raises on purpose can be caught by a name of the package."""
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")
    }
    assert defined <= set(mixpanel_export.__all__)


def test_importing_the_package_loads_no_library() -> None:
    """`import mixpanel_export` and naming an error load no other library."""
    code = "import sys, mixpanel_export; mixpanel_export.MixpanelDataError; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert LIBRARIES.isdisjoint(done.stdout.split())
