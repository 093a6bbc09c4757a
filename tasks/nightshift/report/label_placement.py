"""Where the names of points in a figure go, so that none covers another name or a point."""

import itertools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

DISTANCES: Final = (5.0, 14.0, 28.0, 46.0, 68.0, 95.0)  # pixels from the edge of a point to its name
DIRECTIONS: Final = tuple(math.pi * turn / 8 for turn in range(16))
GAP: Final = (10.0, 2.0)  # beside and above a name, so that two in a row don't read as one
SWEEPS: Final = 4  # a name that came early gives way to later ones


class Box(NamedTuple):
    """A rectangle in pixels, the origin below left."""

    left: float
    bottom: float
    width: float
    height: float

    def common(self, other: "Box") -> float:
        """The area that both cover."""
        wide = min(self.left + self.width, other.left + other.width) - max(self.left, other.left)
        high = min(self.bottom + self.height, other.bottom + other.height) - max(self.bottom, other.bottom)
        return max(0.0, wide) * max(0.0, high)

    def grown(self, wide: float, high: float) -> "Box":
        """With so much more on every side."""
        return Box(self.left - wide, self.bottom - high, self.width + 2 * wide, self.height + 2 * high)


class Point(NamedTuple):
    """The middle and the radius of a drawn point, and width and height of its name, in pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float


def place(points: Sequence[Point], area: Box, lines: Sequence[Box] = ()) -> list[Box]:
    """A box for the name of each point, within `area`: near to it, and clear of points and other names.

    Where there is no such place, the one that covers least. `lines` are avoided when that costs nothing else.
    """
    discs = [Box(p.x - p.radius, p.y - p.radius, 2 * p.radius, 2 * p.radius) for p in points]
    choices = [list(_around(point)) for point in points]
    found: list[Box | None] = [None] * len(points)
    for _, number in itertools.product(range(SWEEPS), range(len(points))):
        others = [box.grown(*GAP) for place, box in enumerate(found) if box is not None and place != number]

        def cost(choice: tuple[float, Box]) -> tuple[float, float]:
            distance, box = choice
            outside = box.width * box.height - box.common(area)
            covered = sum(box.common(other) for other in (*others, *discs))  # noqa: B023 (used at once)
            crossed = sum(box.common(line) > 0 for line in lines)
            return round(covered + outside, 3), distance + 6 * crossed

        found[number] = min(choices[number], key=cost)[1]
    return [box for box in found if box is not None]


def _around(point: Point) -> list[tuple[float, Box]]:
    """Places for a name with their distances from the point; those beside it come before the others."""
    places = []
    for distance, angle in itertools.product(DISTANCES, DIRECTIONS):
        reach = point.radius + distance
        x, y = point.x + reach * math.cos(angle), point.y + reach * math.sin(angle)
        # The corner or edge of the name that looks at the point is put there.
        left = x - point.width * (1 - math.cos(angle)) / 2
        bottom = y - point.height * (1 - math.sin(angle)) / 2
        preferred = 3 * abs(math.sin(angle)) + (0.5 if math.cos(angle) < 0 else 0.0)
        places.append((distance + preferred, Box(left, bottom, point.width, point.height)))
    return places
