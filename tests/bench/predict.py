"""Measure batch prediction, S3 to Parquet, against a bare loop, and the search among many embeddings.

python tests/bench/predict.py FOLDER      (photos in any depth below it; nothing else may run)

The model is a ResNet-18 at 224 pixels in int8, untrained but with one class far ahead, so that all runtimes
agree. The stage with its decoder and the bare loop (read from memory, decode, resize, OpenVINO at its best
batch) are pinned to one core, in turn; the S3 server has the other. Appends JSON lines to bench.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from night import record
from preprocess import s3_server
from untrained import int8_file

SIDE, ROUNDS, COPIES = 224, 3, 4
SEARCHED, FEATURES = 100_000, 512
BARE = """
import sys, time
from pathlib import Path
import cv2, numpy as np, openvino
cv2.setNumThreads(1)
photos = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))]
core, best = openvino.Core(), 0.0
network = core.read_model(sys.argv[2])
def one(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(cv2.resize(image, ({side}, {side}), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
for batch in (1, 4, 16, 64):
    network.reshape({{"images": [batch, {side}, {side}, 3]}})
    hints = {{"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "THROUGHPUT"}}
    model = core.compile_model(network, "CPU", hints)
    request = model.create_infer_request()
    for warm in (True, False):
        started = time.perf_counter()
        for start in range(0, 64 if warm else len(photos) // batch * batch, batch):
            request.infer({{"images": np.stack([one(data) for data in photos[start : start + batch]])}})
    best = max(best, len(photos) // batch * batch / (time.perf_counter() - started))
print(best)
"""


def main() -> int:
    photos = sorted(Path(sys.argv[1]).rglob("*.jpg"))
    if len(photos) < 500:
        raise SystemExit(f"{sys.argv[1]} holds {len(photos)} photos; 500 are needed")
    with tempfile.TemporaryDirectory(prefix="nightshift-bench-", dir="/var/tmp") as folder, s3_server():
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/runs.db"
        os.chdir(folder)  # where MLflow keeps artifacts without a server
        file = int8_file(sys.argv[1], folder)
        pipeline, version = registered(file.read_bytes())
        upload(photos, pipeline)
        bare, stage = [], []
        for number in range(ROUNDS):
            bare.append(bare_loop(sys.argv[1], file))
            stage.append(stage_rate(pipeline, version, Path(folder), number))
        mine, peer = statistics.median(stage), statistics.median(bare)
        record("batch prediction on one core, S3 to Parquet", mine, "images/s", "bare loop", peer)
    search()
    return 0


def registered(data: bytes) -> tuple[object, str]:
    """The pipeline and the version that predicts, as a night registers it."""
    from nightshift.config import Pipeline
    from nightshift.inference import model_file
    from nightshift.tracking import registry, runs

    found = model_file.of_bytes("model.onnx", data)
    run = runs.open_run("photos", "bench", params={})
    tags = {registry.PREPROCESS: found.preprocess.model_dump_json()}
    shape = (SIDE, SIDE, 3)
    version = registry.register_version(
        run, "photos", data, classes=len(found.classes), shape=shape, tags=tags
    )
    preprocess = found.preprocess.model_copy(update={"part_seconds": 3600})
    return Pipeline(name="photos", settle_minutes=0, preprocess=preprocess), version


def upload(photos: list[Path], pipeline: object) -> None:
    from nightshift import storage
    from nightshift.config.pipelines import unlabelled_source

    for number, path in enumerate(photos * COPIES):
        uri = storage.join(unlabelled_source(pipeline), "grocery", f"{number:05d}.jpg")  # type: ignore[arg-type]
        storage.write(uri, path.read_bytes())


def bare_loop(folder: str, model: Path) -> float:
    """Images/s of the loop in a fresh interpreter on the first core, at its best batch."""
    command = ["taskset", "-c", "0", sys.executable, "-c", BARE.format(side=SIDE), folder, str(model)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def stage_rate(pipeline: object, version: str, folder: Path, number: int) -> float:
    """Images/s of the stage on the first core, by its own count, from loading the model on."""
    from nightshift import storage
    from nightshift.records.specs import LookSpec, PredictSpec
    from nightshift.runner import stage_environment
    from nightshift.workflows.predict import layout
    from nightshift.workflows.predict.plan import look

    for stored in list(storage.listing(place := layout.folder("photos", version, ""))):
        storage.delete(storage.join(place.rstrip("/"), stored.key))
    asked = {"pipeline": pipeline, "run": f"run {number}", "version": version}
    forecast = look(LookSpec.model_validate(asked))
    (message,) = forecast.messages
    spec, result = folder / "spec.json", folder / "result.json"
    spec.write_text(PredictSpec(forecast=forecast, message=message).model_dump_json(), encoding="utf-8")
    command = ["taskset", "-c", "0", sys.executable, "-m", "nightshift", "predict"]
    command += ["--spec", str(spec), "--result", str(result)]
    environment = {**stage_environment("predict"), "NIGHTSHIFT_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("NIGHTSHIFT_PARENT_PID")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    print(done.stderr.strip().splitlines()[-1:], file=sys.stderr)
    found = json.loads(result.read_text(encoding="utf-8"))
    return float(found["images"] / found["seconds"])


def search() -> None:
    """The nearest of many embeddings, already in memory, and reading them from a file."""
    import pyarrow as pa

    from nightshift.inference import similarity
    from nightshift.inference.prediction_table import EMBEDDING, MODEL, Growing

    noise = np.random.default_rng(0)
    vectors = noise.random((SEARCHED, FEATURES), np.float32)
    rows = pa.table(
        {
            "key": [f"{number}.jpg" for number in range(SEARCHED)],
            "label": pa.array(["x"] * SEARCHED).dictionary_encode(),
            EMBEDDING: pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), FEATURES),
        }
    ).replace_schema_metadata({MODEL: "model 0"})
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        file = Path(folder, "embeddings.parquet")
        with Growing(file) as growing:
            growing.add(rows)
            growing.finish(rows.schema)
        started = time.perf_counter()
        found = similarity.load(file).neighbours
        record(f"reading {SEARCHED:,} embeddings of {FEATURES}", time.perf_counter() - started, "s")
    seconds = []
    for _ in range(21):
        started = time.perf_counter()
        found.nearest(noise.random(FEATURES, np.float32), 10)
        seconds.append(time.perf_counter() - started)
    record(f"nearest of {SEARCHED:,} embeddings of {FEATURES}", statistics.median(seconds), "s")


if __name__ == "__main__":
    sys.exit(main())
