"""Speeds for tests of what is done with them, without a measurement."""

from collections.abc import Mapping

from nightshift.config import EvaluateSettings
from nightshift.inference.runtime import Pixels
from nightshift.records import Benchmark, Machine, Timing

MACHINE = Machine(
    processor="Test Processor",
    features=("avx512_vnni",),
    cores=8,
    threads=4,
    versions={"onnxruntime": "1.2.3"},
)


def speed(latency: float = 1.0, *, size: int = 1_000_000, throughput: float = 1000.0) -> Benchmark:
    """With all threads as given, in milliseconds and images/s; with one it takes three times as long."""
    paces = [
        Timing(
            threads=threads,
            latency_ms_p50=slower * latency,
            latency_ms_p90=1.1 * slower * latency,
            latency_ms_p99=1.5 * slower * latency,
            images_per_second=throughput / slower,
            batch=16,
        )
        for threads, slower in ((1, 3), (4, 1))
    ]
    return Benchmark(
        runtime="onnxruntime",
        reference="onnxruntime",
        agreements={"onnxruntime": 1.0, "onnxruntime-exact": 1.0},
        single=paces[0],
        full=paces[1],
        load_seconds=0.25,
        memory_mb=123.0,
        size=size,
    )


def measure(
    models: Mapping[str, bytes], images: Mapping[str, Pixels], settings: EvaluateSettings
) -> tuple[dict[str, Benchmark], Machine]:
    """In place of nightshift.evaluation.benchmark.measure: a file of 100,000 bytes takes a millisecond."""
    return {name: speed(len(model) / 1e5, size=len(model)) for name, model in models.items()}, MACHINE
