"""Measure the whole preprocess stage, S3 to S3, against a bare loop over the same files in memory.

python tests/bench/preprocess.py FOLDER      (photos in any depth below it; nothing else may run)

A stage, its decoder and the bare loop are pinned to one core, in turn; the S3 server has the other. Then two
stages at once, a core each: with S3, whose server needs its share of these cores, and with a store on disk,
which leaves both to the stages. Appends JSON lines to bench.json.
"""

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from night import record

from nightshift import storage
from nightshift.config import PreprocessSettings, store_root
from nightshift.data.batches import Batch, cut
from nightshift.records import Message, PartList
from nightshift.records.specs import PreprocessSpec
from nightshift.runner import stage_environment
from nightshift.stack import binaries
from nightshift.storage import Stored

SIDE, ROUNDS = 224, 3
PHOTOS, COPIES = 1500, 10  # together about the 20 seconds of work that a message holds
BARE = """
import sys, time
from pathlib import Path
import cv2, numpy as np
cv2.setNumThreads(1)
photos = [path.read_bytes() for path in sorted(Path(sys.argv[1]).rglob("*.jpg"))[:{count}]]
def one(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(cv2.resize(image, ({side}, {side}), interpolation=cv2.INTER_AREA), cv2.COLOR_BGR2RGB)
kept = [one(data) for data in photos[:20]]
started = time.perf_counter()
for _ in range({copies}):
    kept = [one(data) for data in photos]
print(time.perf_counter() - started)
"""


class Listed(NamedTuple):
    """A batch and its files, listed before anything is measured."""

    name: str
    files: list[Stored]


def main() -> int:
    photos = sorted(Path(sys.argv[1]).rglob("*.jpg"))[:PHOTOS]
    if len(photos) < PHOTOS:
        raise SystemExit(f"{sys.argv[1]} holds {len(photos)} photos; {PHOTOS} are needed")
    with s3_server() as server:
        measure("S3", photos, server)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        os.environ["NIGHTSHIFT_STORE"] = f"file://{folder}"
        measure("disk", photos, None)
    return 0


def measure(kind: str, photos: list[Path], server: int | None) -> None:
    """A stage, then two, on the store that the environment names; `server` is the process behind it."""
    for batch in ("one", "two"):
        for number, path in enumerate(photos * COPIES):
            storage.write(storage.join(source(), batch, f"photo/{number:05d}.jpg"), path.read_bytes())
    one, two = (
        Listed(batch, list(storage.listing(storage.join(source(), batch)))) for batch in ("one", "two")
    )
    bare, single, double, memory, served, own = [], [], [], [], [], []
    for _ in range(ROUNDS):
        bare.append(bare_loop(sys.argv[1]))
        before, mine = processor_seconds(server), children_seconds()
        seconds, peak = run([one])
        own.append(children_seconds() - mine)
        served.append(processor_seconds(server) - before)
        single.append(seconds)
        memory.append(peak)
        double.append(run([one, two])[0])
    images = PHOTOS * COPIES
    loop, alone, both = (
        count * images / statistics.median(times) for count, times in ((1, bare), (1, single), (2, double))
    )
    record(f"preprocess stage on one core, {kind} to {kind}", alone, "images/s", "bare loop", loop)
    record(f"two preprocess stages, {kind} to {kind}, on two cores", both, "images/s", "one stage", alone)
    record(f"preprocess stage with its decoder, {kind}: peak memory", max(memory), "MiB")
    each = 1000 * statistics.median(own) / images  # the start of its interpreters included
    record(
        f"preprocess stage's own time of a core, {kind} to {kind}", each, "ms/image", "bare loop", 1000 / loop
    )
    if server:
        each = 1000 * statistics.median(served) / images
        record("S3 server's own time of a core beside the stage", each, "ms/image", "stage", 1000 / alone)


def source() -> str:
    return storage.join(store_root(), "incoming", "x")


def processor_seconds(pid: int | None) -> float:
    """What a process has taken of all cores so far."""
    import psutil

    return sum(psutil.Process(pid).cpu_times()[:2]) if pid else 0.0


def children_seconds() -> float:
    """What ended children have taken of all cores so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def bare_loop(folder: str) -> float:
    """Seconds of the loop itself, in a fresh interpreter on the first core."""
    code = BARE.format(count=PHOTOS, copies=COPIES, side=SIDE)
    command = ["taskset", "-c", "0", sys.executable, "-c", code, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout)


def run(batches: list[Listed]) -> tuple[float, float]:
    """Seconds in which stages do these batches at once, and the most MiB that the first one takes.

    The seconds are the stage's own count: from when its code is loaded, the decoders' start included.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = [start(batch, core, Path(folder)) for core, batch in enumerate(batches)]
        peaks = [0.0]
        while any(process.poll() is None for process, _ in running):
            peaks.append(sum(tree_memory(process.pid) for process, _ in running[:1]))
            time.sleep(0.2)
        results = [json.loads(result.read_text()) for _, result in running]
    return max(float(result["seconds"]) for result in results), max(peaks)


def start(batch: Listed, core: int, folder: Path) -> tuple[subprocess.Popen[bytes], Path]:
    """One stage on one core; its part is new each time, so that its work is never found done."""
    settings = PreprocessSettings(image_size=SIDE, part_seconds=3600)
    files = tuple((stored.key, stored.size, f"{stored.etag}-{time.time_ns()}") for stored in batch.files)
    (part,) = cut(Batch(batch.name, files, None), settings, source())
    plan = PartList(batches={}, parts=(part,))
    uri = storage.write_record(storage.join(store_root(), "plans", f"{part.digest}.json"), plan)
    message = Message(parts_uri=uri.uri, parts=1, images=len(files))
    spec, result = folder / f"{batch.name}.spec.json", folder / f"{batch.name}.result.json"
    asked = PreprocessSpec(message=message, source=source(), settings=settings)
    spec.write_text(asked.model_dump_json(), encoding="utf-8")
    command = ["taskset", "-c", str(core), sys.executable, "-m", "nightshift", "preprocess"]
    command += ["--spec", str(spec), "--result", str(result)]
    environment = {**stage_environment("preprocess"), "NIGHTSHIFT_THREADS": "1", "OMP_NUM_THREADS": "1"}
    environment.pop("NIGHTSHIFT_PARENT_PID")
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL), result


def tree_memory(pid: int) -> float:
    """InMemoryLoader MiB of a process and all that it started, what they share counted twice."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(member.memory_info().rss for member in family) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


@contextmanager
def s3_server() -> Iterator[int]:
    """rclone on a free port over a temporary folder; its process."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, socket.socket() as probe:
        Path(folder, "nightshift").mkdir()
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        key, secret = os.urandom(10).hex(), os.urandom(20).hex()
        os.environ.update(
            AWS_ENDPOINT_URL_S3=f"http://127.0.0.1:{port}",
            AWS_ACCESS_KEY_ID=key,
            AWS_SECRET_ACCESS_KEY=secret,
            AWS_DEFAULT_REGION="us-east-1",
            NIGHTSHIFT_STORE="s3://nightshift",
        )
        command, own = binaries.s3_server(folder, port, key, secret)
        quiet = subprocess.DEVNULL
        with subprocess.Popen(command, env=os.environ | own, stdout=quiet, stderr=quiet) as server:
            try:
                wait_for(port)
                yield server.pid
            finally:
                server.terminate()


def wait_for(port: int) -> None:
    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"the S3 server does not listen on port {port}")


if __name__ == "__main__":
    sys.exit(main())
