"""Measure what accuracy a pipeline file reaches on a real set, and in which time; lines go to bench.json.

python tests/bench/accuracy.py PIPELINE FOLDER [--seeds 3] [--set train.epochs=30 …]

FOLDER is what `nightshift ingest` takes, such as train/ and test/ folders of class folders, or `digits`, the
sample. Nothing else may run. Each seed is trained in a fresh interpreter, as a night does, and its files are
judged on the test split by ONNX Runtime. Data and checkpoints are kept below NIGHTSHIFT_BENCH_STORE, so a
training that broke off goes on.
"""

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from night import ROOT, record

STORE = Path(os.environ.get("NIGHTSHIFT_BENCH_STORE", "/var/tmp/nightshift-bench"))  # noqa: S108


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    pipeline, uri = prepared(asked, {})
    found = [one(pipeline, uri, seed) for seed in range(asked.seeds)]
    name = ", ".join([f"{asked.pipeline} on the test split, {asked.seeds} seeds", *asked.set])
    for recipe in found[0][0]:
        reached = [100 * accuracies[recipe] for accuracies, _ in found]
        record(f"{name}: {recipe}", statistics.mean(reached), "%")
        if len(reached) > 1:
            record(f"{name}: {recipe}, standard deviation", statistics.stdev(reached), "points")
    record(f"{name}: training", statistics.median(seconds for _, seconds in found), "s")
    return 0


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What every measurement of a pipeline on a real set is told."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pipeline")
    parser.add_argument("folder")
    parser.add_argument("--set", action="append", default=[])
    return parser


def prepared(asked: argparse.Namespace, usual: dict[str, Any]) -> tuple[Any, str]:
    """The pipeline with `usual` settings and those asked for, and its data set, in the benches' store."""
    STORE.mkdir(parents=True, exist_ok=True)
    folder = asked.folder if asked.folder == "digits" else str(Path(asked.folder).resolve())
    os.chdir(STORE)  # where MLflow keeps files
    os.environ["NIGHTSHIFT_STORE"] = f"file://{STORE}/store"
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{STORE}/mlflow.db"

    from nightshift.cli.run import parse_settings
    from nightshift.config.pipelines import load_pipeline, override

    pipeline = load_pipeline(ROOT / "dags" / "pipelines" / f"{asked.pipeline}.toml")
    pipeline = override(pipeline, {**usual, **parse_settings(asked.set)})
    return pipeline, dataset(pipeline, folder)


def dataset(pipeline: object, folder: str) -> str:
    """The address of the data set that a night would train on."""
    from nightshift.config.pipelines import source_of
    from nightshift.data import sources
    from nightshift.data.sources import samples
    from nightshift.records import Plan
    from nightshift.records.specs import AssembleSpec, PlanSpec, PreprocessSpec
    from nightshift.runner import run_stage

    batches = samples.sample(folder) if folder in samples.SAMPLES else [sources.find(folder)]
    for each in batches:
        with each as batch:
            sources.ingest(batch, source_of(pipeline))
    plan = Plan.model_validate(run_stage("plan", PlanSpec(pipeline=pipeline, night="bench", force=False)))
    for message in plan.messages:
        run_stage(
            "preprocess",
            PreprocessSpec(message=message, source=plan.source, settings=plan.pipeline.preprocess),
        )
    return str(run_stage("assemble", AssembleSpec(plan=plan))["dataset_uri"])


def one(pipeline: object, uri: str, seed: int) -> tuple[dict[str, float], float]:
    """Test accuracy of every recipe, and the seconds of the training."""
    from nightshift import storage
    from nightshift.data.dataset import load_split
    from nightshift.inference import runtime
    from nightshift.records import Candidate, Checkpoint, Dataset, outcome
    from nightshift.records.specs import QuantizeSpec, TrainSpec
    from nightshift.runner import run_stage

    settings = pipeline.train.model_copy(update={"seed": seed})
    checkpoint = Checkpoint.model_validate(run_stage("train", TrainSpec(dataset_uri=uri, settings=settings)))
    test = load_split(storage.read_record(uri, Dataset), "test")
    accuracies = {}
    for recipe in pipeline.quantize.recipes:
        spec = QuantizeSpec(recipe=recipe, checkpoints=(checkpoint,), settings=pipeline.quantize)
        candidate = outcome(run_stage("quantize", spec))
        if not isinstance(candidate, Candidate):
            raise SystemExit(f"{candidate.name}: {candidate.reason}")
        _, labels = runtime.Session(storage.read_artifact(candidate.model)).predict(test.images.numpy())
        accuracies[recipe] = float((labels == test.labels.numpy()).mean())
    print(f"seed {seed}: {accuracies}, {checkpoint.seconds:.0f} s", flush=True)
    return accuracies, checkpoint.seconds


if __name__ == "__main__":
    sys.exit(main())
