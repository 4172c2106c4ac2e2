"""The error for a missing optional package. `mpx` exits with 3 for it, as for every `ConfigError`."""

from collections.abc import Sequence
from importlib.util import find_spec

from mixpanel_export.errors import ConfigError


def check_extra(feature: str, extra: str, modules: Sequence[str]) -> None:
    """Check that the *modules* of an optional dependency are installed. *feature* is the part of the program that needs them.

    Raises:
        ConfigError: A module is missing. The advice is the command that installs the *extra*.
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
