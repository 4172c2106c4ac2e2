"""How to provoke the messages of `stream_batches` and `mpx export --stdout`."""

from collections.abc import Callable
from typing import Any

from shell import NINE_DAYS
from steps import Place, shell
from support import ACCOUNT

from mixpanel_export import stream_batches


def streamed(**options: Any) -> Callable[[Place], Any]:
    """Return a case for wrong arguments of `stream_batches`."""
    return lambda _: stream_batches("2024-03-01", "2024-03-09", credentials=ACCOUNT, **options)


STREAM_CASES: dict[str, Callable[[Place], Any]] = {
    "temporary files in a folder that does not exist": streamed(folder="none"),
    "a stream into a table": shell("export", "signups", *NINE_DAYS, "--stdout"),
    "a stream in the mode append": shell("export", *NINE_DAYS, "--stdout", "--append"),
    "the result of a stream as JSON": shell("export", *NINE_DAYS, "--stdout", "--json"),
    "a stream without a first day": shell("export", "--stdout"),
    "an export in order": shell("export", *NINE_DAYS, "--ordered"),
}
"""Cases by name."""
