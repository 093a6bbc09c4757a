"""The values of a sweep: how they are written, and what is wrong with them in one sentence."""

import pytest

from nightshift.config import Pipeline, TrainSettings
from nightshift.errors import InputError
from nightshift.workflows.sweep.search_space import Space, grid, parse

PIPELINE = Pipeline(name="tiny")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("train.learning_rate=log:0.01..1", {"low": 0.01, "high": 1, "log": True}),
        ("train.learning_rate=log:1e-4..1e-1", {"low": 0.0001, "high": 0.1, "log": True}),
        ("train.dropout=0..0.5", {"low": 0, "high": 0.5}),
        ("train.dropout = 0..0.45:0.2", {"low": 0, "high": 0.4, "step": 0.2}),
        ("train.crop_padding=0..4", {"low": 0, "high": 4, "step": 1, "whole": True}),
        ("train.stem_kernel=3..8:2", {"low": 3, "high": 7, "step": 2, "whole": True}),
        ("train.batch_size=log:16..512", {"low": 16, "high": 512, "log": True, "whole": True}),
        ("train.batch_size=64, 128,256", {"choices": (64, 128, 256)}),
        ("train.optimizer=sgd,adamw", {"choices": ("sgd", "adamw")}),
        ("train.flip=true,false", {"choices": (True, False)}),
    ],
)
def test_a_space_is_read_and_survives_json(text, expected):
    (space,) = parse([text], PIPELINE)
    assert space == Space(setting=text.partition("=")[0].strip(), **expected)
    back = Space.model_validate_json(space.model_dump_json())
    assert back == space
    assert [type(choice) for choice in back.choices] == [type(choice) for choice in space.choices]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("train.learning_rate", "must look like train.learning_rate=log:0.01..1"),
        ("train.learning_rate=", "must look like"),
        ("train.speed=1..2", "setting 'train.speed' is unknown; train has: model, "),
        ("speed=1..2", "'speed' cannot be swept; only train settings can"),
        ("promotion.min_accuracy=0..1", "'promotion.min_accuracy' cannot be swept; only train settings can"),
        ("train.members=1..3", "a trial trains one network"),
        ("train.seed=0..9", "the luckiest seed says nothing"),
        ("train.dropout=0..1.5", "train.dropout: Input should be less than 1, got 1.5"),
        ("train.batch_size=1..64", "train.batch_size: Input should be greater than or equal to 2, got 1"),
        ("train.batch_size=64,9999", "less than or equal to 8192, got 9999"),
        ("train.stem_kernel=3..7", "stem_kernel must be odd, got 4"),
        ("train.optimizer=sgd,lion", "Input should be 'sgd', .* got 'lion'"),
        ("train.optimizer=1..2", r"train.optimizer takes no range of numbers, got '1\.\.2'"),
        ("train.dropout=0.1..0.1", r"'0.1\.\.0.1' of train.dropout holds fewer than two values"),
        ("train.dropout=0.5..0.1", "holds fewer than two values"),
        ("train.dropout=0.1..0.2:1", "holds fewer than two values"),
        ("train.dropout=0.1..0.2:0", "the step of train.dropout must be above 0"),
        ("train.dropout=0.3", "must be two or more different values, got '0.3'"),
        ("train.dropout=0.3,0.3", "must be two or more different values"),
        ("train.dropout=a..b", r"the range of train.dropout must be of numbers, got 'a\.\.b'"),
        ("train.learning_rate=0.1..inf", "must be of numbers"),
        ("train.batch_size=2.5..7", "the range of train.batch_size must be of whole numbers"),
        ("train.learning_rate=log:0..1", "a logarithmic range starts above 0 and has no step"),
        ("train.learning_rate=log:0.1..1:0.1", "a logarithmic range starts above 0 and has no step"),
    ],
)
def test_a_space_that_cannot_be_is_refused_in_one_sentence(text, why):
    with pytest.raises(InputError, match=why) as refused:
        parse([text], PIPELINE)
    assert "\n" not in str(refused.value)


def test_a_sweep_needs_one_space_for_a_setting():
    with pytest.raises(InputError, match="at least one setting"):
        parse([], PIPELINE)
    with pytest.raises(InputError, match=r"train\.dropout has 2 spaces; give it one"):
        parse(["train.dropout=0..0.1", "train.dropout=0.2,0.3"], PIPELINE)


def test_a_learning_rate_that_is_found_is_not_swept():
    finding = Pipeline(name="tiny", train=TrainSettings(find_learning_rate=True))
    assert parse(["train.dropout=0..0.5"], finding)
    with pytest.raises(
        InputError, match=r"found by each trial itself; set train\.find_learning_rate to false"
    ):
        parse(["train.learning_rate=0.01..0.1"], finding)


def test_a_small_sweep_has_a_grid_of_all_combinations():
    spaces = parse(["train.batch_size=16,32", "train.dropout=0..0.2:0.1"], PIPELINE)
    points = grid(spaces, 6)
    assert len(points) == len({tuple(point.items()) for point in points}) == 6
    assert points[0] == {"train.batch_size": 16, "train.dropout": 0}
    assert points[-1] == {"train.batch_size": 32, "train.dropout": 0.2}
    assert grid(spaces, 5) == []


def test_a_range_without_steps_has_no_grid():
    assert grid(parse(["train.dropout=0..0.2", "train.batch_size=16,32"], PIPELINE), 1000) == []
