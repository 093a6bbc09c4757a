"""Names stand beside their points, clear of each other, whatever the points are."""

import itertools
import math

import numpy as np
import pytest

from nightshift.report.label_placement import Box, Point, place

AREA = Box(80, 140, 775, 420)


def points_of(seed: int, count: int, *, places: int) -> list[Point]:
    """Points at `places` random places, so that some coincide; names of up to 21 letters."""
    random = np.random.default_rng(seed)
    where = random.uniform((150, 200), (800, 500), (places, 2))
    return [
        Point(*where[random.integers(places)], random.uniform(4, 21), random.uniform(30, 150), 14)
        for _ in range(count)
    ]


def disc(point: Point) -> Box:
    return Box(point.x - point.radius, point.y - point.radius, 2 * point.radius, 2 * point.radius)


def distance(point: Point, box: Box) -> float:
    """From the edge of the point to the nearest of the name."""
    x = min(max(point.x, box.left), box.left + box.width)
    y = min(max(point.y, box.bottom), box.bottom + box.height)
    return math.dist((x, y), (point.x, point.y)) - point.radius


@pytest.mark.parametrize("count", range(1, 13))
@pytest.mark.parametrize("seed", range(5))
def test_no_name_covers_another_or_a_point_or_leaves_the_area(count, seed):
    points = points_of(seed, count, places=max(1, count // 2))
    boxes = place(points, AREA)
    assert [(box.width, box.height) for box in boxes] == [(point.width, point.height) for point in points]
    for one, other in itertools.combinations(boxes, 2):
        assert one.grown(9.9, 1.9).common(other) == 0
    for box in boxes:
        assert box.common(AREA) == pytest.approx(box.width * box.height)
        assert sum(box.common(disc(point)) for point in points) == 0


def test_a_name_alone_stands_right_beside_its_point():
    point = Point(400, 300, 10, 60, 14)
    (box,) = place([point], AREA)
    assert box == pytest.approx(Box(415, 293, 60, 14))
    (box,) = place([point._replace(x=820)], AREA)
    assert box.left + box.width < 810
    assert distance(point._replace(x=820), box) < 7


def test_a_line_is_avoided_where_there_is_room():
    point = Point(400, 300, 10, 60, 14)
    line = [Box(x, 299, 3, 3) for x in range(400, 700, 3)]
    (box,) = place([point], AREA, line)
    assert not any(box.common(piece) for piece in line)
    assert distance(point, box) < 9


def test_where_there_is_no_room_it_covers_little_and_stays_inside():
    points = [Point(20, 20, 5, 38, 14) for _ in range(12)]
    boxes = place(points, Box(0, 0, 40, 40))
    assert len(boxes) == 12


def test_a_box_grows_on_every_side():
    assert Box(10, 20, 30, 40).grown(1, 2) == Box(9, 18, 32, 44)


@pytest.mark.parametrize(
    ("other", "area"), [((0, 0, 10, 10), 100), ((5, 5, 10, 10), 25), ((10, 0, 5, 5), 0), ((20, 20, 1, 1), 0)]
)
def test_what_two_boxes_have_in_common(other, area):
    assert Box(0, 0, 10, 10).common(Box(*other)) == area
