"""What a benchmark leaves behind: a Markdown table, a plot, and what it measured against each bar."""

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
    """What must be reached: *limit* is the least, or with *at_most* the greatest, that the median may be.

    Bars are stated at `--scale 1`. *aim* is what is hoped for; it decides nothing.
    """

    name: str
    limit: float
    at_most: bool
    unit: str = ""
    aim: float | None = None

    def met(self, value: float) -> bool:
        """Whether *value*, not rounded, is on the right side of the limit."""
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        hoped = f" (aim {self.aim:g})" if self.aim else ""
        return f"{'≤' if self.at_most else '≥'} {self.limit:g} {self.unit}".strip() + hoped


@dataclass(frozen=True, slots=True)
class Reached:
    """What was measured of a bar, round by round."""

    bar: Bar
    values: tuple[float, ...]
    scale: float = 1.0

    def row(self) -> list[str]:
        """Return the bar's row of a table: name, limit, values, whether it is met, the scale of the run."""
        met = "met" if self.bar.met(median(self.values)) else "**missed**"
        return [self.bar.name, str(self.bar), spread(self.values), met, f"{self.scale:g}"]


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are figures."""
    lines = [header, ["---", *("---:" for _ in header[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def bars_table(reached: Iterable[Reached]) -> str:
    """Return a table that says of each bar whether it is met."""
    return markdown(
        ["bar", "must be", "median (least to greatest)", "", "scale"], (each.row() for each in reached)
    )


def publish(
    name: str,
    title: str,
    given: Namespace,
    tables: Sequence[str],
    *,
    reached: Sequence[tuple[Bar, Sequence[float]]] = (),
    draw: Callable[["Figure"], None] | None = None,
) -> None:
    """Print the tables, and write `name.md`, `name.png` and `name.json` into the folder of results.

    *given* is the command line as `options` returns it. *tables* are Markdown; *reached* holds what was measured of
    each bar, a value a round; *draw* gets an empty figure.
    """
    folder: Path = given.results
    folder.mkdir(parents=True, exist_ok=True)
    found = [Reached(bar, tuple(values), given.scale) for bar, values in reached]
    parts = [given.about, *tables]
    if found:
        parts.append(bars_table(found))
    print("\n\n".join(parts[1:]), flush=True)
    picture = [f"![{title}]({name}.png)"] if draw else []
    (folder / f"{name}.md").write_text("\n\n".join([f"# {title}", *parts, *picture]) + "\n", "utf-8")
    kept = [asdict(each) for each in found]
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if draw:
        _plot(folder / f"{name}.png", title, given.about, draw)


def published(name: str, folder: Path = RESULTS) -> list[Reached]:
    """Return what a benchmark measured of its bars when it was last run; nothing if it never was."""
    file = folder / f"{name}.json"
    kept: list[dict[str, Any]] = json.loads(file.read_text("utf-8")) if file.exists() else []
    return [Reached(Bar(**each["bar"]), tuple(each["values"]), each["scale"]) for each in kept]


def _plot(file: Path, title: str, about: str, draw: Callable[["Figure"], None]) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - its memory would be in that of the processes we measure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=13, x=0.01, ha="left", weight="bold")
    figure.supxlabel(about, fontsize=7, color="#555555", x=0.01, ha="left")
    draw(figure)
    figure.savefig(file, dpi=120)


def horizontal(
    axes: "Axes", title: str, unit: str, bars: Sequence[tuple[str, Sequence[float]]], digits: int = 1
) -> None:
    """Draw a bar for the median of each row of values, a whisker from the least to the greatest, and the figure."""
    middles = [median(values) for _, values in bars]
    whiskers = [
        [middle - min(values) for middle, (_, values) in zip(middles, bars, strict=True)],
        [max(values) - middle for middle, (_, values) in zip(middles, bars, strict=True)],
    ]
    places = range(len(bars))
    colours = [COLOURS[place % len(COLOURS)] for place in places]
    axes.barh(
        places,
        middles,
        xerr=whiskers,
        color=colours,
        height=0.6,
        error_kw={"ecolor": "#333333", "capsize": 3},
    )
    widest = max((max(values) for _, values in bars), default=1.0)
    for place, (_, values) in enumerate(bars):
        axes.text(
            max(values) + widest * 0.02, place, f"{median(values):,.{digits}f}", va="center", fontsize=9
        )
    axes.set_yticks(places, [label for label, _ in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, widest * 1.2)
    axes.set_xlabel(unit)
    axes.set_title(title, fontsize=10)
    plain(axes, "x")


def plain(axes: "Axes", grid: Literal["both", "x", "y"] = "both") -> None:
    """Take away what says nothing, and give the axes of figures a light grid."""
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
    """Draw the medians of *runs* over *sizes*, each with a whisker from the least to the greatest."""
    middles = [median(values) for values in runs]
    whiskers = [
        [middle - min(values) for middle, values in zip(middles, runs, strict=True)],
        [max(values) - middle for middle, values in zip(middles, runs, strict=True)],
    ]
    axes.errorbar(sizes, middles, yerr=whiskers, marker="o", capsize=3, color=colour, label=label)
