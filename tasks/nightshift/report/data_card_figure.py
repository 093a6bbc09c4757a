"""The picture of a data card: images per class, distributions per split, and samples of every class.

Everything is placed by hand in pixels, so that long names, many classes and images keep to their places.
Colours are those of Okabe and Ito (Color Universal Design, 2008), told apart with any colour vision.
"""

import io
import math
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
import pyarrow.compute as pc
from matplotlib import font_manager
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from nightshift.data import drift
from nightshift.records import SPLITS, Split
from nightshift.report.data_card import Card, ClassRow, class_rows

COLOURS: Final = dict(zip(SPLITS, ("#0072B2", "#E69F00", "#009E73"), strict=True))
LINES: Final = (("black", "--"), ("#8C2D6B", ":"))  # of the references
WIDTH: Final = 1200  # pixels, all of these
NAME: Final = 180
TITLE: Final = 44
BAR: Final = 20
PANEL: Final = 250
TILE: Final = 44
STEP: Final = TILE + 4
DPI: Final = 100

BARS: Final = 100  # classes with a bar
SHOWN: Final = 20  # classes with samples
SAMPLES: Final = 8
LETTERS: Final = 26  # of a name
LIMIT: Final = 300_000  # bytes

TICKS: Final = {
    "brightness": {value: f"{value:g}" for value in (0, 0.2, 0.4, 0.6, 0.8, 1)},
    "contrast": {value: f"{value:g}" for value in (0, 0.1, 0.2, 0.3, 0.4, 0.5)},
    "sharpness": {10**n: text for n, text in enumerate(("1", "10", "100", "1k", "10k", "100k"))},
    "pixels": {4**n: f"{2**n}²" for n in range(0, 16)},
}
UNITS: Final = {
    "brightness": "mean luma",
    "contrast": "deviation of the luma",
    "sharpness": "variance of the Laplacian",
    "pixels": "width times height of the file",
}


def figure(card: Card) -> bytes:
    """The picture as a PNG of at most 300,000 bytes."""
    rows = class_rows(card.dataset)
    numbers = {row.name: place for place, row in enumerate(rows, 1)}
    bars, tiles = _ends(rows, BARS), _ends(rows, SHOWN)
    bar_columns = 1 if len(bars) <= 12 else 2 if len(bars) <= 50 else 3
    tile_columns = 1 if len(tiles) <= 4 else 2
    heights = (
        TITLE + BAR * math.ceil(len(bars) / bar_columns) + 10,
        TITLE + PANEL,
        TITLE + STEP * math.ceil(len(tiles) / tile_columns) + 10,
    )
    page = _Page(sum(heights))
    page.start(heights[0], "Images per class" + _rest(len(bars), len(rows)))
    _draw_bars(page, bars, numbers, bar_columns)
    page.start(heights[1], "Distributions per split")
    _draw_distributions(page, card)
    page.start(heights[2], "Samples" + _rest(len(tiles), len(rows)))
    _draw_samples(page, card, tiles, numbers, tile_columns)
    return page.png()


class _Page:
    """A figure on which things are placed in pixels from the upper left."""

    def __init__(self, height: int) -> None:
        self.height = height
        self.top = 0  # of the section
        self._next = 0
        self.figure = Figure(figsize=(WIDTH / DPI, height / DPI), dpi=DPI)

    def start(self, height: int, title: str) -> None:
        self.top, self._next = self._next, self._next + height
        self.text(12, 18, title, ha="left", va="center", fontsize=12, fontweight="bold")

    def text(self, x: float, y: float, text: str, **how: Any) -> None:
        self.figure.text(x / WIDTH, 1 - (self.top + y) / self.height, text, **how)

    def axes(self, x: float, y: float, width: float, height: float) -> Any:
        bottom = 1 - (self.top + y + height) / self.height
        return self.figure.add_axes((x / WIDTH, bottom, width / WIDTH, height / self.height))

    def image(self, x: int, y: int, pixels: NDArray[np.uint8]) -> None:
        self.figure.figimage(pixels, x, self.height - self.top - y - len(pixels), origin="upper")

    def png(self) -> bytes:
        """The whole, in fewer colours when it would be too large."""
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
        whole = Image.open(buffer).convert("RGB")
        for colours in (256, 128, 64, 32):
            if len(buffer.getvalue()) <= LIMIT:
                break
            buffer = io.BytesIO()
            whole.quantize(colours, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
        return buffer.getvalue()


def _ends(rows: Sequence[ClassRow], most: int) -> list[ClassRow]:
    """The largest and the smallest classes, half of `most` each, when there are more."""
    return list(rows) if len(rows) <= most else [*rows[: most // 2], *rows[-(most // 2) :]]


def _rest(shown: int, total: int) -> str:
    half = shown // 2
    return f": the {half} largest and the {half} smallest of {total:,} classes" if shown < total else ""


def _draw_bars(page: _Page, rows: list[ClassRow], numbers: dict[str, int], columns: int) -> None:
    per_column, room = math.ceil(len(rows) / columns), WIDTH // columns
    most = max((row.total for row in rows), default=1)
    for column in range(columns):
        part = rows[column * per_column : (column + 1) * per_column]
        axes = page.axes(column * room + NAME, TITLE, room - NAME - 70, BAR * len(part))
        left = np.zeros(len(part))
        for place, split in enumerate(SPLITS):
            counts = np.array([row.counts[place] for row in part])
            axes.barh(range(len(part)), counts, left=left, color=COLOURS[split], height=0.75)
            left += counts
        axes.set(xlim=(0, most), ylim=(len(part) - 0.5, -0.5))
        axes.axis("off")
        for place, row in enumerate(part):
            y = TITLE + BAR * (place + 0.5)
            page.text(
                column * room + NAME - 8, y, _drawn(row.name, numbers), ha="right", va="center", fontsize=8
            )
            end = column * room + NAME + (room - NAME - 70) * row.total / most
            page.text(end + 5, y, f"{row.total:,}", ha="left", va="center", fontsize=8, color="#444444")
    for place, split in enumerate(SPLITS):
        _key(page, WIDTH - 290 + (0, 80, 190)[place], split, color=COLOURS[split], linewidth=7)


def _key(page: _Page, x: float, name: str, **line: Any) -> None:
    axes = page.axes(x, 12, 22, 12)
    axes.plot([0, 1], [0.5, 0.5], solid_capstyle="butt", **line)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.axis("off")
    page.text(x + 28, 18, name, ha="left", va="center", fontsize=9)


def _draw_distributions(page: _Page, card: Card) -> None:
    references = [reference for reference in card.references if reference.drift.of == "data"][: len(LINES)]
    for place, reference in enumerate(references):
        colour, style = LINES[place]
        name = f"({place + 1}) {reference.name}"
        _key(
            page, WIDTH - 340 * (len(references) - place), name, color=colour, linestyle=style, linewidth=1.6
        )
    kept = card.kept
    splits = {split: kept.filter(pc.equal(kept["split"], split)) for split in SPLITS}
    everything = {
        split: drift.profile(rows, np.ones(rows.num_rows, np.bool_))
        for split, rows in splits.items()
        if rows.num_rows
    }
    for place, name in enumerate(drift.SCALES):
        axes = page.axes(48 + place * 294, TITLE + 34, 246, PANEL - 85)
        shares = {split: _shares(profile.histograms[name]) for split, profile in everything.items()}
        earlier = [_shares(reference.profile.histograms[name]) for reference in references]
        _draw_panel(axes, name, shares, earlier)
        found = [reference.drift.psi[name] for reference in references if name in reference.drift.psi]
        marks = [f"{psi:.2f}" + (f" ({n})" if len(found) > 1 else "") for n, psi in enumerate(found, 1)]
        page.text(48 + place * 294, TITLE + 8, name, ha="left", va="center", fontsize=10)
        if marks:
            verdict = f": {drift.words(found[0])}" if len(found) == 1 else ""
            text = f"PSI {', '.join(marks)}{verdict}"
            page.text(48 + place * 294 + 246, TITLE + 8, text, ha="right", va="center", fontsize=9)


def _shares(counts: Sequence[int]) -> NDArray[np.float64]:
    """Percent of the images in each bin."""
    return 100 * np.array(counts, np.float64) / max(1, sum(counts))


def _draw_panel(
    axes: Any, name: str, shares: dict[Split, NDArray[np.float64]], earlier: list[NDArray[np.float64]]
) -> None:
    edges = np.arange(drift.BINS + 1)
    for split, values in shares.items():
        if split == "train":
            axes.stairs(values, edges, fill=True, color=COLOURS[split], alpha=0.25)
        axes.stairs(values, edges, color=COLOURS[split], linewidth=1.6)
    for values, (colour, style) in zip(earlier, LINES, strict=False):
        axes.stairs(values, edges, color=colour, linestyle=style, linewidth=1.4)
    occupied = np.flatnonzero(sum([*shares.values(), *earlier], np.zeros(len(edges) - 1)))
    low, high = (edges[occupied[0]], edges[occupied[-1] + 1]) if len(occupied) else (0, drift.BINS)
    low, high = max(0, min(low - 2, high - 12)), min(drift.BINS, max(high + 2, low + 12))
    ticks = {float(drift.SCALES[name].positions(np.array(v))): text for v, text in TICKS[name].items()}
    seen = {x: text for x, text in ticks.items() if low <= x <= high}
    axes.set(xlim=(low, high), ylim=(0, None))
    axes.set_xticks(list(seen), list(seen.values()), fontsize=8)
    axes.set_xlabel(UNITS[name], fontsize=8)
    axes.yaxis.set_major_formatter("{x:g} %")
    axes.tick_params(axis="y", labelsize=8)
    axes.locator_params(axis="y", nbins=5)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_samples(
    page: _Page, card: Card, rows: list[ClassRow], numbers: dict[str, int], columns: int
) -> None:
    per_column, room = math.ceil(len(rows) / columns), WIDTH // columns
    for place, row in enumerate(rows):
        column, line = divmod(place, per_column)
        x, y = column * room + NAME, TITLE + line * STEP
        page.text(x - 8, y + TILE / 2, _drawn(row.name, numbers), ha="right", va="center", fontsize=8)
        for turn, pixels in enumerate(card.pixels.get(row.name, ())[:SAMPLES]):
            tile = cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA)
            page.image(x + turn * STEP, y, tile)


def _drawn(name: str, numbers: dict[str, int]) -> str:
    """A name for the figure, without formulas; its number in the page's table when the font lacks letters."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    if not all(character.isprintable() and font.get_char_index(ord(character)) for character in name):
        return f"no. {numbers[name]}"
    half = LETTERS // 2
    return (name if len(name) <= LETTERS else f"{name[: half - 1]}…{name[-half:]}").replace("$", r"\$")
