"""The `mpx` program, also run by `python -m mixpanel_export`. It handles Ctrl-C before it imports its other modules."""

from mixpanel_export._process import Signals, drop_empty_variables, open_standard_streams

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> "NoReturn":
    """Run `mpx`."""
    open_standard_streams()
    drop_empty_variables()
    signals = Signals()
    signals.listen()
    from mixpanel_export.cli import main as run  # noqa: PLC0415 - imported when Ctrl-C can already be handled

    run(signals)


if __name__ == "__main__":
    main()
