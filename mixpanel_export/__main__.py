"""`mpx`, also as `python -m mixpanel_export`: Ctrl-C is handled before the rest of the program is imported."""

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
    from mixpanel_export.cli import main as run  # noqa: PLC0415 - after the signals are handled

    run(signals)


if __name__ == "__main__":
    main()
