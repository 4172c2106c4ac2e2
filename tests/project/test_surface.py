"""What is public, and which modules may import which."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import mixpanel_export
from mixpanel_export import errors

PACKAGE = Path(mixpanel_export.__file__).parent

# Folder or module: what of ours it may import, and which third-party libraries. Imports point up this table.
LAYERS = {
    "_error_base": ("", ""),
    "errors": ("_error_base", ""),
    "_tracebacks": ("_error_base", ""),
    "_files": ("", ""),
    "_process": ("", ""),
    "_config": ("_files errors", "keyring"),
    "_display": ("", "pandas"),
    "results": ("_display errors", "pandas"),
    "changes": ("_display results", ""),
    "profiles": ("_display", ""),
    "inspection": ("_display _files results", "pandas"),
    "verification": ("_display", ""),
    "publication": ("_display _error_base errors", ""),
    "_model": ("", ""),
    "_ndjson": ("", ""),
    "_concurrency": ("", "anyio"),
    "_timezones": ("errors", ""),
    "_loop_thread": ("", "anyio"),
    "_planning": ("_model errors", ""),
    "_suggestions": ("", ""),
    "_compat": ("_config _error_base _model _planning _timezones errors profiles results", ""),
    "_quota": ("_config _files errors", "anyio platformdirs"),
    "credentials": ("_config _suggestions _timezones errors", ""),
    "exceptions": ("errors", ""),
    "types": ("inspection profiles results", ""),
    "progress": ("profiles publication results", "tqdm"),
    "_source": (
        "_concurrency _config _model _ndjson _quota _timezones credentials errors",
        "anyio h2 httpx isal",
    ),
    "_database": ("_concurrency _config _files _model _suggestions changes errors", "anyio duckdb"),
    "_flat": ("_concurrency _database _suggestions _tracebacks errors results", "duckdb"),
    "_publish": (
        "_concurrency _config _database _files _flat _suggestions _tracebacks errors publication",
        "deltalake duckdb obstore",
    ),
    "_report": ("_database _flat _model", "altair jinja2 markupsafe vl_convert"),
    "_writer": (
        "_concurrency _database _files _model _ndjson _planning _timezones changes errors",
        "duckdb isal nanoarrow numpy",
    ),
    "_verify": (
        "_concurrency _config _database _model _planning _quota _source _timezones _tracebacks credentials errors verification",
        "duckdb httpx",
    ),
    "_export": (
        (
            "_concurrency _database _flat _loop_thread _model _planning _quota _source _timezones _tracebacks _writer changes "
            "credentials errors results"
        ),
        "anyio httpx",
    ),
    "_profiles": (
        (
            "_concurrency _config _database _flat _model _ndjson _quota _source _timezones _tracebacks credentials errors "
            "profiles results"
        ),
        "anyio httpx numpy",
    ),
    "sync": ("_concurrency _loop_thread", "anyio"),
    "batches": (
        "_compat _concurrency _database _export _loop_thread _source _tracebacks _writer credentials errors results",
        "anyio httpx pyarrow",
    ),
    "_local": (
        "_concurrency _config _database _display _error_base _files _flat _model _ndjson _quota _report _source _suggestions _timezones _tracebacks credentials errors inspection results sync",
        "duckdb pandas tomlkit",
    ),
    "auth": ("_config _local credentials", ""),
    "_project": (
        (
            "_compat _config _database _local _profiles _publish _source _timezones _tracebacks _verify credentials errors "
            "profiles progress publication results sync verification"
        ),
        "",
    ),
    "workspace": (
        (
            "_compat _database _export _local _project _source _tracebacks changes credentials inspection progress results "
            "sync"
        ),
        "",
    ),
    "__init__": (
        (
            "_export _flat _local _planning _profiles _publish _source _verify batches changes credentials errors inspection "
            "profiles publication results sync verification workspace"
        ),
        "",
    ),
    "simulator": ("", "anyio h11 httpx isal"),
    "integrations": (
        "_export _model _planning _quota _timezones batches credentials errors sync",
        "pyarrow pyspark",
    ),
    "cli": (
        (
            "_compat _config _database _error_base _export _flat _local _model _planning _process _profiles _publish _quota _source _suggestions _timezones _verify batches changes credentials "
            "errors inspection profiles progress publication results simulator sync verification workspace"
        ),
        "anyio click",
    ),
    "__main__": ("_process cli", ""),
}
PUBLIC = {"simulator", "cli", "integrations"}  # packages without an underscore

LIBRARIES = {
    "altair",
    "anyio",
    "click",
    "deltalake",
    "duckdb",
    "h11",
    "h2",
    "httpx",
    "isal",
    "jinja2",
    "keyring",
    "markupsafe",
    "nanoarrow",
    "numpy",
    "obstore",
    "pandas",
    "platformdirs",
    "pyarrow",
    "pyspark",
    "tomlkit",
    "tqdm",
    "trio",
    "vl_convert",
}


def modules_named_in(source: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in it."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                yield from (name.name for name in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                # `from mixpanel_export import errors` names a module, `from mixpanel_export import Progress` not.
                inside = {f"{module}.{name.name}" for name in names if is_module(f"{module}.{name.name}")}
                yield from inside or {module}
            case ast.ImportFrom():
                yield "a relative import"


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or folder of the package."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name.startswith("mixpanel_export.") and (path.with_suffix(".py").exists() or path.is_dir())


def module_name(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(source: Path) -> tuple[set[str], set[str]]:
    """Return the package's modules and other top-level names that the file imports, without the standard library."""
    ours: set[str] = set()
    theirs: set[str] = set()
    for module in modules_named_in(source):
        first, _, rest = module.partition(".")
        if first == "mixpanel_export":
            ours.add(rest.partition(".")[0] or "__init__")
        elif first not in sys.stdlib_module_names:
            theirs.add(first)
    return ours, theirs


def sources_of(layer: str) -> list[Path]:
    """Return the source files of a folder or module."""
    folder = PACKAGE / layer
    return list(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{layer}.py"]


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_one_way(layer: str) -> None:
    """A folder imports only what its row in the table allows, and of this package only folders above it."""
    may_ours, may_theirs = LAYERS[layer]
    for source in sources_of(layer):
        ours, theirs = imports_of(source)
        assert ours - {layer} <= set(may_ours.split()), source
        assert theirs <= set(may_theirs.split()), source
    names = list(LAYERS)
    assert set(may_ours.split()) <= set(names[: names.index(layer)])


@pytest.mark.parametrize("layer", LAYERS)
def test_every_allowance_is_used(layer: str) -> None:
    """Everything that a row allows is imported by some module of the folder, so the table is accurate."""
    sources = [imports_of(source) for source in sources_of(layer)]
    may_ours, may_theirs = LAYERS[layer]
    assert set(may_ours.split()) <= set().union(*(ours for ours, _ in sources))
    assert set(may_theirs.split()) <= set().union(*(theirs for _, theirs in sources))


def test_every_module_has_a_layer() -> None:
    """Each module and folder has a row."""
    modules = {path.stem for path in PACKAGE.glob("*.py")}
    packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert modules | packages == set(LAYERS)


def test_no_folder_has_an_import_circle() -> None:
    """Inside each folder, and between all modules, imports have an order; function-level imports count too."""
    modules = {module_name(path): path for path in PACKAGE.rglob("*.py")}
    graph = {
        name: {module for module in modules_named_in(path) if module in modules and module != name}
        for name, path in modules.items()
        if name != "mixpanel_export"
    }
    TopologicalSorter(graph).prepare()


def test_the_source_needs_neither_duckdb_nor_numpy() -> None:
    """Importing all of `_source` loads neither, so that other engines can use it."""
    modules = [module_name(path) for path in sources_of("_source")]
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "httpx" in loaded
    assert {"duckdb", "numpy"}.isdisjoint(loaded)


def test_all_is_sorted_and_complete() -> None:
    """`__all__` is sorted and equals the public names: those the package defines or offers to be imported."""
    names = mixpanel_export.__all__
    assert names == sorted(names)
    assert len(names) == len(set(names))
    offered = {name for name in dir(mixpanel_export) if not name.startswith("_")} | {"__version__"}
    borrowed = {"Any", "TYPE_CHECKING", "import_module"}
    assert {name for name in offered if not is_module(f"mixpanel_export.{name}")} - borrowed == set(names)


def test_every_public_name_can_be_had() -> None:
    """Every name of `__all__` exists, and any other name is an AttributeError."""
    for name in mixpanel_export.__all__:
        assert getattr(mixpanel_export, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        mixpanel_export.no_such_name  # noqa: B018


def test_every_error_is_public() -> None:
    """Every error that an export raises on purpose has a public name."""
    defined = {
        name for name, value in vars(errors).items() if isinstance(value, type) and name.endswith("Error")
    }
    assert defined <= set(mixpanel_export.__all__)


def test_importing_the_package_loads_no_library() -> None:
    """`import mixpanel_export` and naming an error load no other library."""
    code = "import sys, mixpanel_export; mixpanel_export.MixpanelDataError; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert LIBRARIES.isdisjoint(done.stdout.split())
