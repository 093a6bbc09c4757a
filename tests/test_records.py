"""What stages hand to each other: plain JSON, frozen, closed to typing mistakes."""

import json
import subprocess
import sys
from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError
from some_conditions import CONDITIONS
from speeds import speed

from nightshift import records
from nightshift.config import Pipeline, PreprocessSettings, QuantizeSettings, TrainSettings
from nightshift.records import (
    SPLITS,
    Artifact,
    Checkpoint,
    Evaluation,
    Message,
    Plan,
    Record,
    Split,
    Variant,
    Verdict,
    specs,
    variants,
)

KINDS = [
    kind
    for kind in (*vars(records).values(), *vars(specs).values())
    if isinstance(kind, type) and issubclass(kind, Record) and kind is not Record
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_every_record_is_frozen_and_refuses_unknown_fields(kind: type[BaseModel]) -> None:
    assert kind.model_config["frozen"] is True
    assert kind.model_config["extra"] == "forbid"


def example(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "pipeline": Pipeline(name="digits"),
        "night": "manual__1",
        "source": "s3://nightshift/incoming/digits",
        "work": True,
        "reason": "300 images to preprocess",
        "batches": 1,
        "images": 300,
        "data_digest": "d" * 64,
        "settings_digest": "s" * 64,
        "parts_uri": "s3://nightshift/plans/p.json",
        "messages": (Message(parts_uri="s3://nightshift/plans/m.json", parts=1, images=300),),
    }
    return Plan.model_validate(values | changes)


def test_a_record_survives_json_and_airflow_s_plain_dicts() -> None:
    plan = example()
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    plain = plan.model_dump(mode="json")
    assert Plan.model_validate(json.loads(json.dumps(plain))) == plan


def test_an_unknown_field_is_an_error() -> None:
    with pytest.raises(ValidationError, match="mesages"):
        example(mesages=())


def test_the_splits_are_those_of_the_type() -> None:
    assert get_args(Split) == SPLITS == ("train", "validation", "test")


@pytest.mark.parametrize(("verdicts", "passed"), [((True, True), True), ((True, False), False), ((), True)])
def test_an_evaluation_passes_when_all_its_gates_do(verdicts: tuple[bool, ...], passed: bool) -> None:
    gates = tuple(
        Verdict(gate=str(i), passed=v, value=1, limit=0, sentence="") for i, v in enumerate(verdicts)
    )
    bare: Any = Evaluation.model_construct
    assert bare(verdicts=gates).passed is passed


def test_every_candidate_of_a_night_has_a_name_and_a_float_reference_of_its_own() -> None:
    several = Pipeline(name="x", train=TrainSettings(members=2), quantize=QuantizeSettings(vote="both"))
    references = {variant.name: variant.reference for variant in variants(several)}
    assert references == {
        "fp32": "fp32",
        "int8": "fp32",
        "fp32-soft-vote": "fp32-soft-vote",
        "int8-soft-vote": "fp32-soft-vote",
        "fp32-hard-vote": "fp32-hard-vote",
        "int8-hard-vote": "fp32-hard-vote",
    }


def test_without_a_vote_the_best_member_is_taken_and_the_first_of_equals() -> None:
    artifact = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
    members = [
        Checkpoint(
            weights=artifact,
            dataset_uri="s3://x/z",
            settings=TrainSettings(),
            member=number,
            metrics={"validation_accuracy": accuracy},
            seconds=1,
            made_with=CONDITIONS,
        )
        for number, accuracy in enumerate([0.8, 0.9, 0.9])
    ]
    assert Variant(recipe="int8").of(members) == (members[1],)
    assert Variant(recipe="int8", vote="hard").of(members) == tuple(members)


def test_a_data_set_of_other_pixels_or_without_a_row_has_another_digest_of_them(ml_dataset) -> None:
    first, *rest = ml_dataset.shards
    artifact = first.file.model_copy(update={"sha256": "0" * 64})
    changed = [first.model_copy(update={"file": artifact}), first.model_copy(update={"drop": (1,)})]
    digests = {
        ml_dataset.model_copy(update={"shards": (shard, *rest)}).pixels_digest for shard in (first, *changed)
    }
    assert len(digests) == 3


def test_a_speed_gives_its_numbers_flat() -> None:
    numbers = speed(2.0, size=7).numbers
    assert (numbers["latency_ms_p50"], numbers["single/latency_ms_p50"], numbers["size"]) == (2.0, 6.0, 7)
    assert (numbers["threads"], numbers["single/threads"], numbers["load_seconds"]) == (4, 1, 0.25)
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_settings_travel_inside_records_and_are_validated_there() -> None:
    with pytest.raises(ValidationError, match="image_size"):
        specs.PreprocessSpec.model_validate(
            {
                "message": {"parts_uri": "s3://x/y", "parts": 1, "images": 1},
                "source": "s3://x",
                "settings": PreprocessSettings().model_dump() | {"image_size": 1},
            }
        )


def test_an_artifact_is_compared_by_value() -> None:
    one = Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
    assert one == Artifact(uri="s3://x/y", sha256="0" * 64, size=1)
    assert len({one, one.model_copy()}) == 1


def test_the_lowest_level_imports_nothing_heavy() -> None:
    program = (
        "import sys, nightshift.records, nightshift.config.pipelines, nightshift.errors;"
        "print([m for m in ('torch','numpy','mlflow','boto3','airflow','cv2','onnx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
