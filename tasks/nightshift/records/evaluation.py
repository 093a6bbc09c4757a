"""Records of what the models are worth, and of what was decided about them."""

from typing import Literal, NamedTuple

from nightshift.records.data import Artifact, Record
from nightshift.records.models import Candidate


class Verdict(Record):
    """One gate of the promotion policy with both numbers."""

    gate: str
    passed: bool
    value: float
    limit: float
    champion: float | None = None  # the same number of the champion it is compared with, where it has one
    sentence: str


class EnsembleAccuracy(Record):
    """Accuracy of the members of an ensemble on the validation split, in float, and of their votes."""

    members: tuple[float, ...]
    soft: float
    hard: float


class Machine(Record):
    """What times were measured on."""

    processor: str
    features: tuple[str, ...]  # instructions that matter here, such as avx512_vnni or amx_int8
    cores: int
    threads: int  # that a model may use
    versions: dict[str, str]  # of the runtimes


class Timing(Record):
    """Times of one model with some number of threads, in one runtime."""

    threads: int
    latency_ms_p50: float  # of one image alone
    latency_ms_p90: float
    latency_ms_p99: float
    images_per_second: float  # at the best batch
    batch: int  # which that was


Reference = Literal["onnxruntime", "onnxruntime-exact"]


class Benchmark(Record):
    """What one model asks of the machine, in fresh processes that took turns with those of the others."""

    runtime: str  # the fastest whose labels are those of the file's exact arithmetic
    reference: Reference  # the runtime that gives the labels: onnxruntime where its labels are the exact ones
    agreements: dict[str, float]  # share of exact labels on calibration images, by runtime
    single: Timing  # one thread
    full: Timing  # all threads
    load_seconds: float
    memory_mb: float  # peak of a process that holds the model and nothing else of ours
    size: int  # bytes of the file

    @property
    def numbers(self) -> dict[str, float]:
        """All numbers by name: those of all threads by their own, those of one thread below `single/`."""
        own = self.model_dump(exclude={"runtime", "reference", "agreements", "single", "full"})
        single = {f"single/{name}": value for name, value in self.single.model_dump().items()}
        return {**self.full.model_dump(), **single, **own, "agreement": self.agreements[self.runtime]}


class Scores(Record):
    """How one model did on one split."""

    model: str  # name of a candidate, or `champion`
    sha256: str
    images: int
    accuracy: float
    interval: tuple[float, float]  # 95 %, of the accuracy
    top_k: float  # share of images whose label is among the k likeliest classes
    k: int
    precision: float  # macro, as recall and f1
    recall: float
    f1: float
    f1_interval: tuple[float, float]  # 95 %, by bootstrap over the images
    weighted_precision: float  # by the images of each class
    weighted_f1: float
    roc_auc: float | None  # macro, each class against all others; None where one class is all there is
    average_precision: float | None
    brier: float  # mean squared error of the probabilities, 0 to 2
    calibration_error: float  # expected, 15 bins, 0 to 1
    speed: Benchmark

    @property
    def quality(self) -> dict[str, float]:
        """All that is a number."""
        texts = {"model", "sha256", "interval", "f1_interval", "per_class", "confusion", "speed"}
        low, high = self.interval
        numbers = self.model_dump(exclude=texts, exclude_none=True)
        return {**numbers, "accuracy_low": low, "accuracy_high": high}


class ClassScores(Scores):
    """The same with what grows with the classes, which is kept beside the report and travels no further."""

    per_class: dict[str, dict[str, float]]
    confusion: tuple[tuple[int, ...], ...]  # rows: true class, columns: predicted class


class Evaluation(Record):
    """What the night found out, small enough for a database whatever the number of classes."""

    chosen: str  # name of the candidate
    candidate: Candidate
    validation: dict[str, float]  # accuracy per candidate on the validation split
    test: dict[str, Scores]  # chosen candidate, its fp32 reference, champion, best
    speeds: dict[str, Benchmark]  # of every candidate, and of the champions that are judged
    machine: Machine
    rejected: dict[str, str]  # sentence per candidate that was not made or breaks a limit, unless chosen
    front: tuple[str, ...]  # candidates that none beats in accuracy and latency, quickest first
    champion_version: str | None
    best_version: str | None  # the best champion so far, by its version
    stays_best: str | None  # the version that is still the best when this one is promoted; None: this one
    verdicts: tuple[Verdict, ...]
    report: Artifact  # the page
    evidence: Artifact  # Evidence, beside it
    scores: Artifact  # ClassScores by the names of `test`, beside it
    page: str = ""  # address of the report in MLflow's web interface
    unknown_to_champion: int  # test images of classes that the champion does not know

    @property
    def passed(self) -> bool:
        return all(verdict.passed for verdict in self.verdicts)


class ModelVersion(Record):
    """One registered version and what became of it."""

    name: str
    version: str
    sha256: str
    state: Literal["challenger", "refused"]
    offered: bool  # whether it is to be promoted: a challenger, none newer, and nothing was decided about it
    reasons: tuple[str, ...]
    mlflow_run_id: str


Registering = Literal["challenger", "refused"]  # what a night does
Staying = Literal["rejected", "expired", "superseded", "stale"]  # what did not become champion
Moving = Literal["promoted", "rolled-back", "adopted", "put-back"]  # what became champion
# Disputed is a champion that somebody set by hand and that is not accepted, removed one whose alias was taken
# away, gone a version that was deleted in MLflow.
Noticing = Literal["disputed", "removed", "gone"]
DecisionKind = Registering | Staying | Moving | Noticing


class PromotionPrecondition(Record):
    """What a promotion is decided on; when any of it changes, the decision is void."""

    sha256: str  # of model.onnx
    champion: str | None  # the version that is replaced
    test: str  # digest of the test images that both were judged on


class Decision(Record):
    """One entry of the ledger, `ledger/<pipeline>/…`: who decided what, when, on which evidence."""

    pipeline: str
    kind: DecisionKind
    version: str
    sha256: str
    dataset: str  # digest
    data_digest: str
    settings_digest: str
    replaces: str | None
    by: str
    at: str  # ISO 8601, UTC, by the writer's clock: for people, never for the order
    night: str
    reasons: tuple[str, ...]
    evidence: str = ""  # address of the report
    run: str = ""  # of the promotion that decided
    number: int = 0  # place in the ledger, from 1


class Comparison(NamedTuple):
    """The candidates of a night beside each other; all mappings are by their names."""

    candidates: dict[str, Candidate]  # that were made and timed
    accuracy: dict[str, float]  # on the validation split
    speeds: dict[str, Benchmark]  # of the champions too
    machine: Machine
    chosen: str
    rejected: dict[str, str]  # with those that could not be made or timed
    front: tuple[str, ...]

    def loss(self, name: str) -> float | None:
        """Validation accuracy lost against the float reference, 0 to 1; None when there is no reference."""
        reference = self.accuracy.get(self.candidates[name].reference)
        return None if reference is None else reference - self.accuracy[name]
