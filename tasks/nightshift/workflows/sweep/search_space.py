"""Which values a sweep tries: `train.learning_rate=log:0.01..1` and the like, read and checked.

A range is `low..high`, on a logarithmic scale with `log:` before it and in steps with `:step` behind it; that
of a setting which takes whole numbers holds only those. Choices are separated by commas.
"""

import itertools
import json
import math
import re
import types
from collections.abc import Sequence
from typing import Final, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict

from nightshift.config import Pipeline, TrainSettings
from nightshift.config.pipelines import override
from nightshift.errors import InputError

Value = bool | int | float | str
RANGE: Final = re.compile(r"(?P<log>log:)?(?P<low>[^:]+?)\.\.(?P<high>[^:]+?)(:(?P<step>[^:]+))?")
EXAMPLES: Final = "train.learning_rate=log:0.01..1, train.batch_size=64,128 or train.stem_kernel=3..7:2"
MOST_POINTS: Final = 1000  # that are looked at one by one
USELESS: Final = {
    "train.members": "a trial trains one network",
    "train.checkpoint_minutes": "it changes nothing that is learnt",
    "train.seed": "the luckiest seed says nothing of the next night",
}


class Space(BaseModel):
    """The values that a sweep may give to one setting: choices, or numbers from `low` to `high` inclusive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str  # train.learning_rate
    choices: tuple[Value, ...] = ()
    low: int | float = 0
    high: int | float = 0
    step: int | float | None = None
    log: bool = False
    whole: bool = False

    def points(self) -> tuple[Value, ...] | None:
        """All values, or None where they cannot be counted."""
        if self.choices or self.step is None:
            return self.choices or None
        count = round((self.high - self.low) / self.step) + 1
        return tuple(round(self.low + index * self.step, 12) for index in range(count))


def parse(texts: Sequence[str], pipeline: Pipeline) -> tuple[Space, ...]:
    """The spaces of a sweep over settings of `pipeline`, one for each text.

    Raises InputError when a setting is unknown or may not be swept, when a space holds fewer than two values
    or when the setting does not allow one of them.
    """
    if not texts:
        raise InputError(f"a sweep needs a space of values for at least one setting, such as {EXAMPLES}")
    spaces = tuple(_parse(text, pipeline) for text in texts)
    names = [space.setting for space in spaces]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{name} has {names.count(name)} spaces; give it one")
    if pipeline.train.find_learning_rate and "train.learning_rate" in names:
        raise InputError(
            "train.learning_rate is found by each trial itself; set train.find_learning_rate to false"
        )
    return spaces


def grid(spaces: Sequence[Space], most: int) -> list[dict[str, Value]]:
    """All combinations of values, or none where there are more than `most`."""
    points = [space.points() for space in spaces]
    if None in points or math.prod(len(values or ()) for values in points) > most:
        return []
    names = [space.setting for space in spaces]
    combinations = itertools.product(*(values or () for values in points))
    return [dict(zip(names, values, strict=True)) for values in combinations]


def _parse(text: str, pipeline: Pipeline) -> Space:
    setting, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values:
        raise InputError(f"the space {text!r} must look like {EXAMPLES}")
    stage, _, field = setting.partition(".")
    if stage != "train":
        raise InputError(f"{setting!r} cannot be swept; only train settings can, such as {EXAMPLES}")
    if setting in USELESS:
        raise InputError(f"{setting} cannot be swept: {USELESS[setting]}; choose another setting")
    override(pipeline, {setting: getattr(pipeline.train, field, None)})  # an unknown one is refused here
    match = RANGE.fullmatch(values)
    space = _range(setting, field, match) if match else _choices(setting, values)
    points = space.points()
    for value in points if points and len(points) <= MOST_POINTS else (space.low, space.high):
        override(pipeline, {setting: value})
    return space


def _choices(setting: str, text: str) -> Space:
    choices = tuple(_value(item.strip()) for item in text.split(","))
    if len(set(choices)) < 2 or len(set(choices)) < len(choices):
        raise InputError(
            f"the choices of {setting} must be two or more different values, got {text!r}, as in {EXAMPLES}"
        )
    return Space(setting=setting, choices=choices)


def _value(text: str) -> Value:
    """JSON where it is a number or a truth value, otherwise text."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str) else text


def _range(setting: str, field: str, match: re.Match[str]) -> Space:
    text, log = match[0], bool(match["log"])
    kinds = _kinds(field)
    if not kinds & {int, float}:
        raise InputError(f"{setting} takes no range of numbers, got {text!r}; give choices, see {EXAMPLES}")
    whole = float not in kinds
    try:
        low, high = (_number(match[name], whole) for name in ("low", "high"))
        step = _number(match["step"], whole) if match["step"] else 1 if whole and not log else None
    except ValueError as error:
        kind = "whole numbers" if whole else "numbers"
        raise InputError(f"the range of {setting} must be of {kind}, got {text!r}; see {EXAMPLES}") from error
    if log and (low <= 0 or match["step"]):
        raise InputError(f"a logarithmic range starts above 0 and has no step, got {text!r} for {setting}")
    if step is not None and step <= 0:
        raise InputError(f"the step of {setting} must be above 0, got {text!r}")
    if high < low + (step or 0) or high == low:
        raise InputError(f"the range {text!r} of {setting} holds fewer than two values; widen it")
    if step is not None:
        high = round(low + math.floor((high - low) / step + 1e-9) * step, 12)  # the last of the steps
    return Space(setting=setting, low=low, high=high, step=step, log=log, whole=whole)


def _number(text: str, whole: bool) -> int | float:
    """A finite number, or ValueError."""
    number = int(text) if whole else float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


def _kinds(field: str) -> set[object]:
    """The types that a setting of the training takes."""
    annotation = TrainSettings.model_fields[field].annotation
    union = get_origin(annotation) in (types.UnionType, Union)
    return set(get_args(annotation)) if union else {annotation}
