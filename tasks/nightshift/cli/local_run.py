"""A night without Airflow: the same stages, each in its fresh interpreter, one after the other."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from pydantic import BaseModel

from nightshift.cli.follow import summary
from nightshift.config import Pipeline
from nightshift.records import Checkpoint, Drift, Evaluation, Plan, PromotionPrecondition, outcome, variants
from nightshift.records.specs import (
    AssembleSpec,
    CloseSpec,
    EvaluateSpec,
    PlanSpec,
    PreprocessSpec,
    PromoteSpec,
    QuantizeSpec,
    RegisterSpec,
    TrainSpec,
)
from nightshift.runner import run_stage

Stage = Callable[[str, BaseModel], dict[str, Any]]


def run_night(pipeline: Pipeline, *, force: bool, echo: Callable[[str], None]) -> dict[str, Any]:
    """Run all stages and the promotion, and return what `nightshift run --wait` prints."""
    night = f"local__{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    seconds: dict[str, float] = {}

    def stage(name: str, spec: BaseModel) -> dict[str, Any]:
        started = time.monotonic()
        result = run_stage(name, spec, echo=echo, labels={"pipeline": pipeline.name, "run": night})
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - started, 2)
        return result

    plan = Plan.model_validate(stage("plan", PlanSpec(pipeline=pipeline, night=night, force=force)))
    base = {"pipeline": pipeline.name, "dag_run_id": night, "seconds": seconds, "airflow_url": None}
    if not plan.work:
        return {**base, "state": "nothing-new", "reason": plan.reason}
    try:
        with signals_as_ctrl_c():
            assembled = _data(plan, stage)
            found = _model(plan, assembled, stage) if assembled["proceed"] else None
    except BaseException as error:  # Ctrl-C too, or the run would count as running for ever
        person = isinstance(error, KeyboardInterrupt)
        reason = "broken off by a person" if person else str(error) or type(error).__name__
        echo(f"the night ends here: {reason}")
        stage("close", CloseSpec(mlflow_run_id=plan.mlflow_run_id or "", failed=True, reason=reason))
        raise
    stage(
        "close",
        CloseSpec(mlflow_run_id=plan.mlflow_run_id or "", failed=False, reason="the night ran to its end"),
    )
    if found is None:
        return {**base, "state": "nothing-new", "reason": assembled["reason"]}
    registered, evaluation = found
    result = {**base, **summary(registered, evaluation)}
    if registered["offered"] and pipeline.promotion.mode != "never":
        result |= _promotion(pipeline, registered, night, stage)
    return result


@contextlib.contextmanager
def signals_as_ctrl_c() -> Iterator[None]:
    """Let `kill` and a closed terminal end the night as Ctrl-C does, by an exception."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _promotion(pipeline: Pipeline, registered: dict[str, Any], night: str, stage: Stage) -> dict[str, str]:
    """Offer the challenger as `promote_<name>` does, and promote it unless a person has to approve of it."""
    version, policy = registered["version"], pipeline.promotion
    asked = PromoteSpec(
        action="check",
        pipeline=pipeline.name,
        version=version,
        sha256=registered["sha256"],
        run=night,
        only_challenger=True,
        manual_moves=policy.manual_moves,
        asks=policy.asks,
    )
    found = stage("promote", asked)
    if not found["proceed"]:
        return {"state": "not-promoted", "promotion": found["reason"]}
    if found["asks"]:
        how = f"a person has to approve: nightshift promote {pipeline.name} --version {version}"
        return {"state": "challenger", "promotion": how}
    bound = PromotionPrecondition.model_validate(found["bound"])
    moved = stage("promote", asked.model_copy(update={"action": "move", "bound": bound}))
    done = moved["proceed"] and moved["version"] == version
    return {"state": "promoted" if done else "not-promoted", "promotion": moved["reason"]}


def _data(plan: Plan, stage: Stage) -> dict[str, Any]:
    settings = plan.pipeline
    for message in plan.messages:
        spec = PreprocessSpec(message=message, source=plan.source, settings=settings.preprocess)
        stage("preprocess", spec)
    return stage("assemble", AssembleSpec(plan=plan))


def _model(plan: Plan, assembled: dict[str, Any], stage: Stage) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = plan.pipeline
    uri = assembled["dataset_uri"]
    members = tuple(
        Checkpoint.model_validate(
            stage(
                "train",
                TrainSpec(
                    dataset_uri=uri,
                    settings=settings.train,
                    member=member,
                    cache_salt=plan.cache_salt,
                    start=plan.start,
                    mlflow_run_id=plan.mlflow_run_id,
                ),
            )
        )
        for member in range(settings.train.members)
    )
    candidates = tuple(
        outcome(
            stage(
                "quantize",
                QuantizeSpec(
                    **variant.model_dump(),
                    checkpoints=variant.of(members),
                    settings=settings.quantize,
                    cache_salt=plan.cache_salt,
                ),
            )
        )
        for variant in variants(settings)
    )
    evaluation = stage(
        "evaluate",
        EvaluateSpec(
            plan=plan,
            dataset_uri=uri,
            members=members,
            candidates=candidates,
            drifts=tuple(Drift.model_validate(item) for item in assembled["drifts"]),
            settings=settings.evaluate,
            policy=settings.promotion,
        ),
    )
    judged = Evaluation.model_validate(evaluation)
    spec = RegisterSpec(plan=plan, dataset_uri=uri, members=members, evaluation=judged)
    return stage("register", spec), evaluation
