"""Accuracy on parts of the images, by what is known about each: a model may be good on average only."""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nightshift.records import Slice

MOST_VALUES: Final = 20  # of a text column that are slices of their own
FEWEST_IMAGES: Final = 5
PARTS: Final = 4  # of a column of numbers
MISSING, OTHERS = "missing", "others"


class Answers(NamedTuple):
    """Of one model: whether it is right about each image, and whether it knows the class, bool [N]."""

    right: NDArray[np.bool_]
    known: NDArray[np.bool_]


def slices(columns: Mapping[str, Sequence[Any]], answers: Mapping[str, Answers]) -> tuple[Slice, ...]:
    """Slices of N images by each column of N values; None stands for a value that is not known.

    Texts, truth values and few whole numbers are sliced by value, other numbers into quarters of equally many
    images. A slice of a model's known images gives its accuracy; one of fewer than 5 images is left out.
    """
    found = []
    for column, values in columns.items():
        for value, rows in _groups(values):
            if len(rows) >= FEWEST_IMAGES:
                shares = {
                    name: float(each.right[rows][each.known[rows]].mean())
                    for name, each in answers.items()
                    if each.known[rows].any()
                }
                found.append(Slice(column=column, value=value, images=len(rows), accuracy=shares))
    return tuple(found)


def _groups(values: Sequence[Any]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    there = [value for value in values if value is not None]
    numeric = bool(there) and all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in there
    )
    if numeric and len(set(there)) > MOST_VALUES:
        names = _quarters(values)
    else:
        common = {str(value) for value, _ in Counter(map(str, there)).most_common(MOST_VALUES)}
        names = [MISSING if v is None else str(v) if str(v) in common else OTHERS for v in values]
    order = dict.fromkeys(names) if numeric and len(set(there)) > MOST_VALUES else sorted(set(names))
    every = np.array(names, dtype=object)
    for name in sorted(order, key=lambda each: (each in (MISSING, OTHERS), *_place(each))):
        yield name, np.flatnonzero(every == name)


def _quarters(values: Sequence[Any]) -> list[str]:
    """The name of each number's quarter; equal numbers share one."""
    numbers = np.array([np.nan if value is None else float(value) for value in values])
    edges = np.unique(np.nanquantile(numbers, np.linspace(0, 1, PARTS + 1)))
    places = np.clip(np.searchsorted(edges, numbers, side="right") - 1, 0, max(0, len(edges) - 2))
    names = [f"{low:.4g} to {high:.4g}" for low, high in itertools.pairwise(edges)]
    names = names or [f"{edges[0]:.4g}"]
    return [
        MISSING if np.isnan(number) else names[place] for number, place in zip(numbers, places, strict=True)
    ]


def _place(name: str) -> tuple[float, str]:
    """Sorts numbers and quarters by size, and texts by their letters after them."""
    try:
        return float(name.split(" to ")[0]), ""
    except ValueError:
        return float("inf"), name
