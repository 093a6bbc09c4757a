"""The candidates beside each other: the rows of the table, and in pixels what the figure shows."""

import warnings

import cv2
import numpy as np
import pytest
from some_conditions import CONDITIONS
from speeds import MACHINE, speed

from nightshift.config import PromotionPolicy
from nightshift.evaluation.selection import pareto_front
from nightshift.records import Artifact, Benchmark, Candidate
from nightshift.records.evaluation import Comparison
from nightshift.report.candidates import CHOSEN, USUAL, figure, machine_line, rows

FILE = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
POLICY = PromotionPolicy()
Values = dict[str, tuple[float, float, int]]
FOUR: Values = {
    "fp32": (0.92, 4.0, 8_000_000),
    "int8": (0.91, 1.0, 2_000_000),
    "fp32-soft-vote": (0.94, 12.0, 24_000_000),
    "int8-soft-vote": (0.935, 3.0, 6_000_000),
}


def compared(values: Values, chosen: str = "fp32", **changes) -> Comparison:
    """Candidates of an accuracy, a latency in milliseconds and a size in bytes."""
    candidates = {}
    for name in values:
        recipe, _, rest = name.partition("-")
        vote = rest.removesuffix("-vote") or None
        details = {"quantized_nodes": 21, "int8_share": 0.993} if recipe == "int8" else {}
        candidates[name] = Candidate(
            recipe=recipe,
            vote=vote,
            model=FILE,
            checkpoints=(),
            details=details,
            seconds=1,
            made_with=CONDITIONS,
        )
    accuracy = {name: share for name, (share, _, _) in values.items()}
    speeds: dict[str, Benchmark] = {name: speed(time, size=size) for name, (_, time, size) in values.items()}
    found = Comparison(candidates, accuracy, speeds, MACHINE, chosen, {}, pareto_front(accuracy, speeds))
    return found._replace(**changes)


def decoded(png: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1].astype(int)


def blobs(picture: np.ndarray, colour: str) -> list[tuple[float, float, int]]:
    """Middle and area, in pixels, of each larger patch of a colour such as `#0072B2`, from the left."""
    wanted = [int(colour[start : start + 2], 16) for start in (1, 3, 5)]
    shown = (np.abs(picture - wanted).max(axis=2) < 12).astype(np.uint8)
    count, _, facts, middles = cv2.connectedComponentsWithStats(shown)
    found = [(*middles[n], int(facts[n, cv2.CC_STAT_AREA])) for n in range(1, count)]
    return sorted(blob for blob in found if blob[2] > 40)


def test_rows_go_from_the_quickest_to_the_slowest_and_end_with_what_was_not_made():
    told = {"int4": "int4 was not made: no room", "fp32-soft-vote": "fp32-soft-vote takes too long"}
    found = rows(compared(FOUR, rejected=told))
    assert [row.name for row in found] == ["int8", "int8-soft-vote", "fp32", "fp32-soft-vote", "int4"]
    assert [row.state for row in found] == ["", "", "chosen", "rejected", "not made"]
    assert [row.front for row in found] == [True, True, False, True, False]
    assert [row.note for row in found] == ["", "", "", "takes too long", "was not made: no room"]
    assert found[1].loss == pytest.approx(0.005)
    assert found[1].details["quantized_nodes"] == 21
    assert (found[4].accuracy, found[4].loss, found[4].speed) == (None, None, None)


def test_what_times_were_measured_on_is_one_line():
    assert (
        machine_line(MACHINE)
        == "Test Processor, 8 cores, 4 threads for a model, avx512_vnni, onnxruntime 1.2.3"
    )
    alone = MACHINE.model_copy(update={"cores": 1, "threads": 1, "features": ()})
    assert machine_line(alone) == "Test Processor, 1 core, 1 thread for a model, onnxruntime 1.2.3"


def test_points_stand_where_accuracy_and_latency_are_with_the_area_of_the_file():
    even: Values = {"a": (0.90, 1.0, 24_000_000), "b": (0.92, 2.0, 12_000_000), "c": (0.94, 4.0, 6_000_000)}
    picture = decoded(figure(compared(even, chosen="none"), POLICY))
    (x1, y1, large), (x2, y2, middle), (x3, y3, small) = blobs(picture, USUAL)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=2)  # twice the latency is the same step
    assert y1 - y2 == pytest.approx(y2 - y3, abs=2)
    assert y1 - y3 > 200
    assert x3 - x1 > 400
    assert large / middle == pytest.approx(2, rel=0.2)
    assert middle / small == pytest.approx(2, rel=0.25)


def test_the_chosen_one_has_its_colour_and_those_passed_over_are_hollow():
    told = {"fp32-soft-vote": "takes too long"}
    plain = decoded(figure(compared(FOUR), POLICY))
    hollow = decoded(figure(compared(FOUR, rejected=told), POLICY))
    assert len(blobs(plain, CHOSEN)) == 1
    *_, (x, y, full) = blobs(plain, USUAL)
    *_, (_, _, ring) = blobs(hollow, USUAL)
    assert ring < full / 2
    assert hollow[round(y), round(x)].tolist() == [255, 255, 255]


def test_the_front_is_joined_past_those_that_are_beaten():
    picture = decoded(figure(compared(FOUR, chosen="none"), POLICY))
    places = dict(zip(("int8", "vote", "fp32", "best"), blobs(picture, USUAL), strict=True))
    dark = cv2.erode(picture.max(axis=2).astype(np.uint8), np.ones((3, 3), np.uint8)) < 160

    def joined(one: str, other: str) -> bool:
        (x, y, _), (to_x, to_y, _) = places[one], places[other]
        shares = np.linspace(0.35, 0.65, 30)
        across, down = np.rint(x + shares * (to_x - x)), np.rint(y + shares * (to_y - y))
        return bool(dark[down.astype(int), across.astype(int)].all())

    assert joined("int8", "vote")
    assert joined("vote", "best")
    assert not joined("vote", "fp32")
    assert not joined("int8", "fp32")


def test_a_limit_of_latency_is_drawn_only_where_points_are():
    plain = figure(compared(FOUR), POLICY)
    limit = decoded(figure(compared(FOUR), PromotionPolicy(max_latency_ms=8)))
    changed = np.argwhere(np.abs(limit - decoded(plain)).max(axis=2) > 60)
    assert len(changed) > 100
    assert figure(compared(FOUR), PromotionPolicy(max_latency_ms=20)) == plain


@pytest.mark.parametrize("count", [1, 2, 7, 12])
@pytest.mark.parametrize("spread", [0.0, 1e-4, 1.0])
def test_any_number_of_candidates_is_drawn_also_when_they_are_alike(count, spread):
    values = {
        f"recipe{number}-soft-vote": (
            0.9 + 0.05 * spread * (number % 3),
            1 + spread * number,
            1_000 * (number + 1),
        )
        for number in range(count)
    }
    names = list(values)
    told = dict.fromkeys(names[1::2], "sentence")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = figure(compared(values, names[0], rejected=told), POLICY)
    assert decoded(png).shape == (600, 880, 3)
    assert len(png) < 100_000
