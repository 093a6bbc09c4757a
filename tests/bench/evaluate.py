"""Measure what a judgement costs: evaluate beside bare inference, robustness, register and promote.

python tests/bench/evaluate.py PIPELINE FOLDER [--set train.epochs=2 …]

PIPELINE and FOLDER are those of accuracy.py, whose trainings are found again. The first night makes a
champion, the following ones are measured beside it. Nothing else may run. Lines go to bench.json.
"""

import statistics
import sys
import time
from typing import Any, NamedTuple

from accuracy import arguments, prepared
from night import REPEATS, record


class Ready(NamedTuple):
    """What evaluate is given: a pipeline, its data set, a checkpoint and the candidates of it."""

    pipeline: Any
    uri: str
    checkpoint: Any
    candidates: tuple[Any, ...]


def main() -> int:
    asked = arguments(__doc__).parse_args()
    ready = candidates(*prepared(asked, {"promotion.min_accuracy": 0.0}))
    night(ready, "none")
    plain = [night(ready, "none") for _ in range(REPEATS)]
    quick = [night(ready, "quick") for _ in range(REPEATS)]
    bare = statistics.median(inference(ready) for _ in range(REPEATS))
    name = ", ".join([asked.pipeline, *asked.set])
    judging = statistics.median(taken["evaluate"] for taken in plain)
    record(f"{name}: evaluate without robustness", judging, "s", "bare inference of the three", bare)
    tried = statistics.median(taken["evaluate"] for taken in quick) - judging
    record(f"{name}: robustness, quick", tried, "s")
    promoting = statistics.median(taken["register"] + taken["promote"] for taken in plain + quick)
    record(f"{name}: register and promote", promoting, "s")
    return 0


def candidates(pipeline: Any, uri: str) -> Ready:
    from nightshift.records import Checkpoint, outcome
    from nightshift.records.specs import QuantizeSpec, TrainSpec
    from nightshift.runner import run_stage

    spec = TrainSpec(dataset_uri=uri, settings=pipeline.train)
    checkpoint = Checkpoint.model_validate(run_stage("train", spec))
    specs = [
        QuantizeSpec(recipe=recipe, checkpoints=(checkpoint,), settings=pipeline.quantize)
        for recipe in pipeline.quantize.recipes
    ]
    return Ready(pipeline, uri, checkpoint, tuple(outcome(run_stage("quantize", spec)) for spec in specs))


def night(ready: Ready, robustness: str) -> dict[str, float]:
    """Seconds to evaluate, to register and to promote, each in a fresh interpreter as in a night."""
    from nightshift import storage
    from nightshift.records import Dataset, Evaluation, ModelVersion, Plan
    from nightshift.records.specs import EvaluateSpec, PromoteSpec, RegisterSpec
    from nightshift.runner import run_stage
    from nightshift.tracking import runs

    pipeline, data = ready.pipeline, storage.read_record(ready.uri, Dataset)
    stamp = f"{time.time_ns():064}"  # as the digest of its data: fresher data is a gain, so it may promote
    plan = Plan(
        pipeline=pipeline,
        night=stamp,
        source=data.source,
        work=True,
        reason="",
        batches=len(data.batches),
        images=data.profile.images,
        data_digest=stamp,
        settings_digest=pipeline.settings_digest(),
        parts_uri="",
        messages=(),
        mlflow_run_id=runs.open_run(pipeline.name, stamp, params={}),
    )
    judging = EvaluateSpec(
        plan=plan,
        dataset_uri=ready.uri,
        members=(ready.checkpoint,),
        candidates=ready.candidates,
        settings=pipeline.evaluate.model_copy(update={"robustness": robustness}),
        policy=pipeline.promotion,
    )
    taken, evaluation = clock(lambda: Evaluation.model_validate(run_stage("evaluate", judging)))
    times = {"evaluate": taken}
    registering = RegisterSpec(
        plan=plan, dataset_uri=ready.uri, members=(ready.checkpoint,), evaluation=evaluation
    )
    times["register"], version = clock(
        lambda: ModelVersion.model_validate(run_stage("register", registering))
    )
    if version.reasons:
        raise SystemExit(f"the night was refused: {'; '.join(version.reasons)}")
    offer = {"pipeline": pipeline.name, "version": version.version, "sha256": version.sha256, "asks": "never"}
    moves = [PromoteSpec.model_validate({"action": action, **offer}) for action in ("check", "move")]
    times["promote"], _ = clock(lambda: [run_stage("promote", move) for move in moves])
    return times


def inference(ready: Ready) -> float:
    """Seconds of ONNX Runtime for the test images with chosen, fp32 and champion (the chosen's file)."""
    from nightshift import storage
    from nightshift.data.dataset import load_split
    from nightshift.inference import runtime
    from nightshift.records import Dataset

    images = load_split(storage.read_record(ready.uri, Dataset), "test").images.numpy()
    models = {each.name: storage.read_artifact(each.model) for each in ready.candidates}
    sessions = [runtime.Session(models[name]) for name in ("int8", "fp32", "int8")]
    return clock(lambda: [session.predict(images) for session in sessions])[0]


def clock(work: Any) -> tuple[float, Any]:
    begun = time.perf_counter()
    found = work()
    return time.perf_counter() - begun, found


if __name__ == "__main__":
    sys.exit(main())
