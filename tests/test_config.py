"""The knobs: their ranges, their digests, and what the Airflow form can show of them."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from nightshift.config import (
    STAGE_SETTINGS,
    Pipeline,
    PreprocessSettings,
    QuantizeSettings,
    TrainSettings,
    digest_of,
    store_root,
)
from nightshift.config.data import PIXELS
from nightshift.config.upkeep import Upkeep


def test_defaults_are_valid_and_every_knob_is_explained() -> None:
    Pipeline(name="digits")
    for stage, model in STAGE_SETTINGS.items():
        for name, field in model.model_fields.items():
            assert (field.description or "").endswith("."), f"{stage}.{name}"


def test_settings_are_frozen() -> None:
    settings = PreprocessSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.image_size = 64  # type: ignore[misc]


def test_a_typing_mistake_is_an_error() -> None:
    with pytest.raises(ValidationError, match="image_sise"):
        PreprocessSettings.model_validate({"image_sise": 64})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_size": 4}, "greater than or equal to 8"),
        ({"resize": "squash"}, "'crop', 'letterbox' or 'stretch'"),
        (
            {"image_size": 224, "stored_size": 128},
            r"stored_size must be at least image_size \(224\), got 128",
        ),
        ({"test_fraction": 0.0}, "greater than 0"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PreprocessSettings.model_validate(changes)


def test_the_stored_side_is_the_image_size_unless_given() -> None:
    assert PreprocessSettings(image_size=224).side == 224
    assert PreprocessSettings(image_size=224, stored_size=256).side == 256


def test_the_fp32_reference_is_always_among_the_recipes() -> None:
    assert QuantizeSettings(recipes=("int8",)).recipes == ("fp32", "int8")
    assert QuantizeSettings(recipes=("int8", "fp32")).recipes == ("int8", "fp32")
    with pytest.raises(ValidationError, match="must not repeat, got int8, int8"):
        QuantizeSettings(recipes=("int8", "int8"))


@pytest.mark.parametrize(
    "weights",
    [
        *("none", "imagenet", "champion", "models:/digits@champion", "models:/digits/3"),
        *("s3://nightshift/checkpoints/ab/checkpoint.json", "file:///data/model.safetensors"),
    ],
)
def test_starting_weights_are_taken_by_name_model_or_address(weights: str) -> None:
    assert TrainSettings(weights=weights, freeze="stem" if weights != "none" else "none").weights == weights


@pytest.mark.parametrize(
    "weights",
    [
        *("", "random", "models:/digits", "models:/digits@", "models:/digits/latest", "digits@champion"),
        *("s3://nightshift/model.pt", "s3://nightshift/model.safetensors.pkl", "file:///data/other.json"),
        *("https://example.org/model.safetensors", "file://host.safetensors", "/data/model.safetensors"),
    ],
)
def test_other_starting_weights_are_refused_in_one_sentence(weights: str) -> None:
    with pytest.raises(
        ValidationError, match="weights must be none, imagenet, champion, a registered"
    ) as error:
        TrainSettings(weights=weights)
    assert f"got {weights!r}" in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"freeze": "layer1"}, "freeze = 'layer1' would keep random weights"),
        (
            {"freeze": "layer4", "weights": "champion", "model": "resnet9"},
            "for resnet9, which has three stages, got 'layer4'",
        ),
        ({"freeze": "layer4", "weights": "champion", "model": "resnet56"}, "layer3 or backbone for resnet56"),
    ],
)
def test_what_cannot_be_frozen_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainSettings.model_validate(changes)


@pytest.mark.parametrize("name", ["", "Digits", "1st", "a/b", "..", "a" * 41, "a b"])
def test_a_pipeline_name_is_safe_in_keys_and_dag_ids(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        Pipeline(name=name)


@pytest.mark.parametrize("schedule", ["0 2 * * *", "@daily", "*/5 1,2 * * 1-5", None])
def test_usual_schedules_are_taken(schedule: str | None) -> None:
    assert Pipeline(name="digits", schedule=schedule).schedule == schedule


@pytest.mark.parametrize("schedule", ["nightly", "0 2 * *", "@sometimes", ""])
def test_other_schedules_are_refused(schedule: str) -> None:
    with pytest.raises(ValidationError, match="schedule must be @daily and the like or five cron fields"):
        Pipeline(name="digits", schedule=schedule)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "../../etc/passwd", ""])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(ValidationError, match="timezone must be an IANA name"):
        Pipeline(name="digits", timezone=zone)


def test_equal_settings_have_equal_digests_and_a_change_changes_them() -> None:
    base = Pipeline(name="digits")
    assert base.settings_digest() == Pipeline(name="digits").settings_digest()
    for stage, (field, value) in {
        "preprocess": ("image_size", 64),
        "train": ("epochs", 3),
        "quantize": ("recipes", ("fp32",)),
        "evaluate": ("latency_runs", 10),
        "promotion": ("min_accuracy", 0.5),
    }.items():
        changed = base.model_copy(update={stage: getattr(base, stage).model_copy(update={field: value})})
        assert changed.settings_digest() != base.settings_digest(), stage


def test_how_members_vote_is_in_the_digest_only_when_there_are_several() -> None:
    soft, hard = QuantizeSettings(vote="soft"), QuantizeSettings(vote="hard")
    for members, differs in ((1, False), (2, True)):
        train = TrainSettings(members=members)
        digests = {Pipeline(name="x", train=train, quantize=q).settings_digest() for q in (soft, hard)}
        assert (len(digests) == 2) is differs


def test_when_and_whence_a_night_runs_is_not_in_the_digest() -> None:
    other = Pipeline(
        name="other", source="s3://x/y", schedule="@daily", timezone="Europe/Berlin", settle_minutes=0
    )
    assert other.settings_digest() == Pipeline(name="digits").settings_digest()


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert (
        digest_of({"a": 1, "b": [1, 2]})
        == digest_of({"b": [1, 2], "a": 1})
        != digest_of({"a": 1, "b": [2, 1]})
    )


def test_a_digest_is_the_same_in_another_process() -> None:
    program = "from nightshift.config import Pipeline; print(Pipeline(name='digits').settings_digest())"
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == Pipeline(name="digits").settings_digest()


def test_settings_survive_json() -> None:
    pipeline = Pipeline(name="digits", schedule="@daily")
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline


def test_no_schema_needs_a_reference() -> None:
    """Airflow's form does not follow `$ref`."""
    for stage, model in STAGE_SETTINGS.items():
        assert "$ref" not in json.dumps(model.model_json_schema()), stage


def test_the_approval_time_is_in_hours() -> None:
    assert Pipeline(name="digits").promotion.approval_timeout == timedelta(days=3)


def test_the_store_comes_from_the_environment() -> None:
    assert store_root({}) == "s3://nightshift"
    assert store_root({"NIGHTSHIFT_STORE": "file:///data/"}) == "file:///data"


def test_what_decides_the_pixels_travels_whole() -> None:
    changes = {"stored_size": 40, "channels": 3, "resize": "stretch", "scaled_decoding": False}
    changes |= {"image_size": 24, "denoise": "median", "denoise_strength": 2, "smoothing": 0.1}
    settings = PreprocessSettings.model_validate({**changes, "max_pixels": 100})
    again = PreprocessSettings.model_validate(settings.pixel_settings())
    assert again.same_pixels(settings)
    for name in PIXELS - {"channels"}:
        assert not again.same_pixels(settings.model_copy(update={name: getattr(PreprocessSettings(), name)}))
    assert not again.same_pixels(PreprocessSettings.model_validate({"channels": 1}))


def test_every_preprocess_setting_is_known_to_change_the_pixels_or_not() -> None:
    others = {"part_seconds", "validation_fraction", "test_fraction", "max_pixels", "max_side", "animated"}
    others |= {"max_megabytes", "decode_seconds", "decode_megabytes"}
    assert set(PreprocessSettings.model_fields) == PIXELS | others


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"min_accuracy": 0.9, "min_first_accuracy": 0.8}, r"at least min_accuracy \(0.9\).*, got 0.8"),
        ({"mode": "never", "first_champion": "approve"}, "needs mode 'auto' or 'approve', got 'never'"),
        ({"min_recall": 0.5}, "min_recall"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused_in_words(policy: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Pipeline.model_validate({"name": "pets", "promotion": policy})


def test_mirror_images_are_asked_about_only_where_they_were_seen():
    with pytest.raises(ValidationError, match=r"quantize\.flip_tta needs train\.flip"):
        Pipeline.model_validate({"name": "signs", "quantize": {"flip_tta": True}})
    settings = {"name": "pets", "quantize": {"flip_tta": True}, "train": {"flip": True}}
    assert Pipeline.model_validate(settings).quantize.flip_tta


@pytest.mark.parametrize("schedule", ["0 25 * * *", "60 0 * * *", "0 0 30 2 *", "*/0 * * * *", "R * * * *"])
def test_a_schedule_that_never_comes_or_comes_by_chance_is_refused(schedule: str) -> None:
    with pytest.raises(ValidationError, match="minute 0-59, hour 0-23, day 1-31, month 1-12, weekday 0-7"):
        Pipeline(name="digits", schedule=schedule)


@pytest.mark.parametrize("zone", ["America", "/etc", "x" * 300, "a\x00b"])
def test_a_folder_of_time_zones_is_no_time_zone(zone: str) -> None:
    with pytest.raises(ValidationError, match="timezone"):
        Pipeline(name="digits", timezone=zone)


def test_every_number_has_two_bounds() -> None:
    """JSON, timedelta and databases have bounds of their own, which no setting should meet first."""
    for model in (Pipeline, Upkeep, *(type(value) for value in vars(Pipeline(name="x")).values())):
        if not hasattr(model, "model_json_schema"):
            continue
        for name, schema in model.model_json_schema()["properties"].items():
            for variant in schema.get("anyOf", [schema]):
                if variant.get("type") in ("number", "integer"):
                    keys = {key.removeprefix("exclusive").lower() for key in variant}
                    assert {"minimum", "maximum"} <= keys, f"{model.__name__}.{name}"
