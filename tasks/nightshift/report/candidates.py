"""The candidates of a night beside each other: accuracy against latency in a figure, and the rows of a table.

Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any colour vision.
"""

import io
import itertools
import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from nightshift.config import PromotionPolicy
from nightshift.records import Benchmark, Machine
from nightshift.records.evaluation import Comparison
from nightshift.report.label_placement import Box, Point, place

WIDTH, HEIGHT, DPI = 8.8, 6.0, 100
USUAL: Final = "#0072B2"
CHOSEN: Final = "#D55E00"
SOFT: Final = "#5A5A5A"
LARGEST, SMALLEST = 900.0, 30.0  # areas in square points of the largest file, and of any that is seen
LETTERS: Final = 120  # of a line below the figure
STEPS: Final = 40  # pieces of the front that names keep clear of


class Row(NamedTuple):
    """One line of the table; a candidate that was not made has nothing but its name and why."""

    name: str
    accuracy: float | None
    loss: float | None
    speed: Benchmark | None
    details: Mapping[str, float | int | str]
    pair_sum: int  # 0 where nothing is computed in integers
    state: str  # chosen, rejected or empty
    front: bool
    note: str


def rows(comparison: Comparison) -> list[Row]:
    """The candidates from the quickest to the slowest, then those that were not made."""
    quickest = sorted(comparison.candidates, key=lambda name: comparison.speeds[name].full.latency_ms_p50)
    missing = [name for name in comparison.rejected if name not in comparison.candidates]
    found = [
        Row(
            name,
            comparison.accuracy[name],
            comparison.loss(name),
            comparison.speeds[name],
            comparison.candidates[name].details,
            comparison.candidates[name].pair_sum,
            "chosen" if name == comparison.chosen else "rejected" if name in comparison.rejected else "",
            name in comparison.front,
            _note(comparison, name),
        )
        for name in quickest
    ]
    return found + [
        Row(name, None, None, None, {}, 0, "not made", False, _note(comparison, name)) for name in missing
    ]


def _note(comparison: Comparison, name: str) -> str:
    """The sentence of a candidate that is rejected, without its name, which stands in the row."""
    return comparison.rejected.get(name, "").removeprefix(f"{name} ")


def machine_line(machine: Machine) -> str:
    """What the times were measured on, in one line."""
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    versions = [f"{name} {version}" for name, version in machine.versions.items()]
    return ", ".join([machine.processor, cores, f"{threads} for a model", *machine.features, *versions])


def figure(comparison: Comparison, policy: PromotionPolicy) -> bytes:
    """Validation accuracy against latency, the Pareto front joined by a line; a PNG of 880 by 600 pixels."""
    names = list(comparison.candidates)
    latency = {name: comparison.speeds[name].full.latency_ms_p50 for name in names}
    percent = {name: 100 * comparison.accuracy[name] for name in names}
    areas = _areas({name: comparison.speeds[name].size for name in names})
    drawing = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(drawing)
    axes = drawing.add_axes((0.09, 0.24, 0.88, 0.70))
    front = comparison.front
    axes.plot([latency[n] for n in front], [percent[n] for n in front], color=SOFT, linewidth=1.2, zorder=1)
    for name in sorted(names, key=lambda name: -areas[name]):  # small ones on top
        colour = CHOSEN if name == comparison.chosen else USUAL
        inside = "white" if name in comparison.rejected else colour
        axes.scatter(
            latency[name],
            percent[name],
            s=areas[name],
            facecolors=inside,
            edgecolors=colour if name in comparison.rejected else "white",
            linewidths=1.6,
            zorder=2,
        )
    _scale(axes, list(latency.values()), list(percent.values()))
    if policy.max_latency_ms is not None:
        _draw_limit(axes, policy.max_latency_ms)
    axes.set_title("Candidates on the validation images", fontsize=11, loc="left")
    drawing.text(0.09, 0.135, _key(comparison), fontsize=8.5, color=SOFT, va="top", linespacing=1.4)
    _draw_names(axes, canvas, comparison, {n: (latency[n], percent[n], areas[n]) for n in names})
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _areas(sizes: Mapping[str, int]) -> dict[str, float]:
    largest = max(sizes.values())
    return {name: max(SMALLEST, LARGEST * size / largest) for name, size in sizes.items()}


def _scale(axes: Any, latency: list[float], percent: list[float]) -> None:
    """Axes with room for the names around the outermost points, and not so narrow that they magnify noise."""
    fast, slow = math.log(min(latency)), math.log(max(latency))
    low, high = min(percent), max(percent)
    across, up = _room(slow - fast, math.log(1.2)), _room(high - low, 0.5)
    axes.set_xscale("log")
    axes.set_xlim(math.exp(fast - across), math.exp(slow + across))
    axes.set_ylim(low - up, high + up)
    wide = slow - fast > math.log(5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value <= 100 else ""))
    axes.set_xlabel("one image alone, all threads: median milliseconds")
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _room(spread: float, least: float) -> float:
    """What an axis leaves at either end of its points."""
    return 0.2 * spread + max(0.0, least - spread) / 2


def _draw_limit(axes: Any, limit: float) -> None:
    low, high = axes.get_xlim()
    if low < limit < high:
        axes.axvline(limit, color=SOFT, linestyle=":", linewidth=1.2, zorder=0)
        axes.text(
            limit,
            0.01,
            f" {limit:g} ms allowed",
            transform=axes.get_xaxis_transform(),
            fontsize=8.5,
            color=SOFT,
        )


def _draw_names(
    axes: Any,
    canvas: FigureCanvasAgg,
    comparison: Comparison,
    points: Mapping[str, tuple[float, float, float]],
) -> None:
    """Each name beside its point; a thin line leads to one that had to go further away."""
    canvas.draw()
    renderer = canvas.get_renderer()
    texts, found = [], []
    for name, (x, y, area) in points.items():
        weight = "bold" if name == comparison.chosen else "normal"
        text = axes.text(0, 0, name, transform=None, fontsize=10, fontweight=weight, va="bottom", zorder=4)
        extent = text.get_window_extent(renderer)
        column, row = axes.transData.transform((x, y))
        radius = math.sqrt(area) / 2 * DPI / 72  # matplotlib's area is that of the square around
        texts.append(text)
        found.append(Point(column, row, radius, extent.width, extent.height))
    inside = Box(*axes.get_window_extent(renderer).bounds)
    joined = [axes.transData.transform(points[name][:2]) for name in comparison.front]
    for text, point, box in zip(texts, found, place(found, inside, _pieces(joined)), strict=True):
        text.set_position((box.left, box.bottom))
        near = (
            min(max(point.x, box.left), box.left + box.width),
            min(max(point.y, box.bottom), box.bottom + box.height),
        )
        distance = math.dist(near, (point.x, point.y))
        if distance > point.radius + 12:
            edge = [
                point.x + (near[0] - point.x) * point.radius / distance,
                point.y + (near[1] - point.y) * point.radius / distance,
            ]
            axes.plot(
                [edge[0], near[0]], [edge[1], near[1]], transform=None, color=SOFT, linewidth=0.7, zorder=3
            )


def _pieces(joined: list[Any]) -> list[Box]:
    """Small boxes along the line through points in pixels."""
    return [
        Box(
            start[0] + (end[0] - start[0]) * step / STEPS - 1.5,
            start[1] + (end[1] - start[1]) * step / STEPS - 1.5,
            3,
            3,
        )
        for start, end in itertools.pairwise(joined)
        for step in range(STEPS + 1)
    ]


def _key(comparison: Comparison) -> str:
    sizes = [comparison.speeds[name].size / 1e6 for name in comparison.candidates]
    marks = (
        f"Area: size of the file, {min(sizes):.2f} to {max(sizes):.2f} MB. Orange: chosen. "
        "Hollow: rejected. Line: Pareto front."
    )
    lines = [*textwrap.wrap(marks, LETTERS), *textwrap.wrap(machine_line(comparison.machine), LETTERS)]
    return "\n".join(lines)
