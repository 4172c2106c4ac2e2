"""Checks that optional packages are installed. If one is missing, `ConfigError` is raised, and `mpx` exits with 3."""

from collections.abc import Sequence
from importlib.util import find_spec

from mixpanel_export.errors import ConfigError


def check_extra(feature: str, extra: str, modules: Sequence[str]) -> None:
    """Check that *modules* are installed. *feature* is the part of the program that needs them.

    Raises:
        ConfigError: A module is missing. The advice is to install the optional dependency *extra*.
    """
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        packages = (
            f"package {missing[0]}, which is"
            if len(missing) == 1
            else f"packages {', '.join(missing)}, which are"
        )
        raise ConfigError(
            f"{feature} needs the {packages} not installed",
            advice=f"run `pip install 'mpx-export[{extra}]'`",
        )
