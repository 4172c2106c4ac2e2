"""The output of a benchmark: a Markdown table, a plot, and the measured values for each bar."""

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from _measure import RESULTS, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#1f5fa8", "#d9822b", "#6b8e3d", "#8a8a8a", "#7a4e9c")


@dataclass(frozen=True, slots=True)
class Bar:
    """A limit for the median of the rounds: a maximum with *at_most*, otherwise a minimum.

    Bars apply at `--scale 1`. *aim* is a better value that is not required.
    """

    name: str
    limit: float
    at_most: bool
    unit: str = ""
    aim: float | None = None

    def met(self, value: float) -> bool:
        """Return whether *value* meets the limit, without rounding."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        aim = f" (aim {self.aim:g})" if self.aim else ""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g} {self.unit}".strip() + aim


@dataclass(frozen=True, slots=True)
class BarResult:
    """The measured values for a bar, by round."""

    bar: Bar
    values: tuple[float, ...]
    scale: float = 1.0

    def row(self) -> list[str]:
        """Return the row of the bar in a table: name, limit, values, met or missed, and the scale of the run."""
        met = "met" if self.bar.met(median(self.values)) else "**missed**"
        return [self.bar.name, str(self.bar), spread(self.values), met, f"{self.scale:g}"]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with text in the first column and figures in the others."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars_table(results: Iterable[BarResult]) -> str:
    """Return a table of bars, met or missed."""
    return markdown(
        ["bar", "limit", "median (minimum to maximum)", "", "scale"], (result.row() for result in results)
    )


def publish(
    name: str,
    title: str,
    arguments: Namespace,
    tables: Sequence[str],
    *,
    bars: Sequence[tuple[Bar, Sequence[float]]] = (),
    draw: Callable[["Figure"], None] | None = None,
) -> None:
    """Print the tables, and write `name.md`, `name.png` and `name.json` into the folder of results.

    *arguments* is the command line as returned by `options`. *tables* are Markdown; *bars* has the values of each bar by
    round; *draw* draws into an empty figure.
    """
    folder: Path = arguments.results
    folder.mkdir(parents=True, exist_ok=True)
    results = [BarResult(bar, tuple(values), arguments.scale) for bar, values in bars]
    parts = [arguments.about, *tables]
    if results:
        parts.append(bars_table(results))
    print("\n\n".join(parts[1:]), flush=True)
    picture = [f"![{title}]({name}.png)"] if draw else []
    (folder / f"{name}.md").write_text("\n\n".join([f"# {title}", *parts, *picture]) + "\n", "utf-8")
    stored = [asdict(result) for result in results]
    (folder / f"{name}.json").write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if draw:
        _plot(folder / f"{name}.png", title, arguments.about, draw)


def load_results(name: str, folder: Path = RESULTS) -> list[BarResult]:
    """Return the bar results of the last run of a benchmark; empty if it has never run."""
    file = folder / f"{name}.json"
    stored: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else []
    return [BarResult(Bar(**each["bar"]), tuple(each["values"]), each["scale"]) for each in stored]


def _plot(file: Path, title: str, about: str, draw: Callable[["Figure"], None]) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - measured processes import this module, and should not have its memory

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", weight="bold")
    figure.supxlabel(about, fontsize=7, color="#555555", x=0.01, ha="left")
    draw(figure)
    figure.savefig(file, dpi=120)


def horizontal(
    axes: "Axes", title: str, unit: str, bars: Sequence[tuple[str, Sequence[float]]], digits: int = 1
) -> None:
    """Draw a bar for the median of each row of values, with a whisker from the minimum to the maximum, and the figure."""
    middles = [median(values) for _, values in bars]
    whiskers = [
        [middle - min(values) for middle, (_, values) in zip(middles, bars, strict=True)],
        [max(values) - middle for middle, (_, values) in zip(middles, bars, strict=True)],
    ]
    rows = range(len(bars))
    colours = [COLOURS[row % len(COLOURS)] for row in rows]
    axes.barh(
        rows,
        middles,
        xerr=whiskers,
        color=colours,
        height=0.6,
        error_kw={"ecolor": "#333333", "capsize": 3},
    )
    widest = max((max(values) for _, values in bars), default=1.0)
    for row, (_, values) in enumerate(bars):
        axes.text(max(values) + widest * 0.02, row, f"{median(values):,.{digits}f}", va="center", fontsize=9)
    axes.set_yticks(rows, [label for label, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    plain(axes, "x")


def plain(axes: "Axes", grid: Literal["both", "x", "y"] = "both") -> None:
    """Remove the frame, and add a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, axis=grid, color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def line(
    axes: "Axes",
    sizes: Sequence[float],
    runs: Sequence[Sequence[float]],
    label: str,
    colour: str = COLOURS[0],
) -> None:
    """Draw the medians of *runs* over *sizes*, with whiskers from the minimum to the maximum."""
    middles = [median(values) for values in runs]
    whiskers = [
        [middle - min(values) for middle, values in zip(middles, runs, strict=True)],
        [max(values) - middle for middle, values in zip(middles, runs, strict=True)],
    ]
    axes.errorbar(sizes, middles, yerr=whiskers, marker="o", capsize=3, color=colour, label=label)
