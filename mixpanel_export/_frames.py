"""DataFrames, where pandas is installed."""

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


def need_pandas(instead: str) -> None:
    """Raise `ImportError`, which names the extra and what to use *instead*, where pandas is not installed."""
    if find_spec("pandas") is None:
        raise ImportError(
            f"DataFrames need pandas, the extra of mpx-export[pandas]: pip install pandas; or use {instead}"
        )


def frame(columns: Sequence[str], rows: Sequence[Sequence[object]], *, instead: str) -> "pd.DataFrame":
    """Return the rows as a DataFrame, with its columns even where there is no row."""
    need_pandas(instead)
    import pandas as pd  # noqa: PLC0415 - an extra

    return pd.DataFrame(list(rows), columns=list(columns))
