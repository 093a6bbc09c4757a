"""What a stage prints, for machines: with NIGHTSHIFT_LOG=json each line is one JSON object that says of what.

{"time": "2026-11-25T02:00:07.123Z", "level": "info", "pipeline": "digits", "run": "scheduled__…",
 "stage": "train", "member": 0, "try": 1, "message": "epoch 1: …"}
"""

import json
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

from pydantic import BaseModel

from nightshift.errors import InputError

LOG: Final = "NIGHTSHIFT_LOG"
FAILED: Final = re.compile(r"ERROR\b|Traceback \(|\w+(\.\w+)*(Error|Exception): ")
WARNED: Final = re.compile(r"warning\b|.*\w*Warning: ", re.IGNORECASE)
Echo = Callable[[str], None]


def one_line(text: str) -> str:
    """A text of strangers as it may be printed: what is not printable, line breaks first, is escaped.

    A key of a bucket may hold anything, and would otherwise write lines of its own into the log.
    """
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def labelled(
    echo: Echo, stage: str, spec: BaseModel, labels: Mapping[str, object] = MappingProxyType({})
) -> Echo:
    """`echo`, or one that makes JSON of each line first, where that is asked for.

    `labels` come before what the spec says. Raises InputError for a form that is not known.
    """
    form = os.environ.get(LOG) or "text"
    if form not in ("text", "json"):
        raise InputError(f"{LOG} is {form!r}; it must be text or json")
    if form == "text":
        return echo
    facts = {**_of_airflow(os.environ), **_of_spec(spec), **labels, "stage": stage}
    known = {name: value for name, value in facts.items() if value not in (None, "", ())}
    return lambda line: echo(_json(line, known))


def _json(line: str, facts: Mapping[str, object]) -> str:
    time = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    level = "error" if FAILED.match(line) else "warning" if WARNED.match(line) else "info"
    return json.dumps({"time": time, "level": level, **facts, "message": line}, ensure_ascii=False)


def _of_airflow(environment: Mapping[str, str]) -> dict[str, object]:
    """What Airflow tells each task; nothing elsewhere."""
    dag, tried = environment.get("AIRFLOW_CTX_DAG_ID", ""), environment.get("AIRFLOW_CTX_TRY_NUMBER", "")
    return {
        "pipeline": dag.partition("_")[2],  # such as retrain_digits
        "run": environment.get("AIRFLOW_CTX_DAG_RUN_ID"),
        "try": int(tried) if tried.isdecimal() else None,
    }


def _of_spec(spec: BaseModel) -> dict[str, object]:
    """Whose work it is and which part of it, as far as the stage was told."""
    plan: Any = getattr(spec, "plan", None) or getattr(spec, "forecast", None) or spec
    pipeline = getattr(plan, "pipeline", "")
    message = getattr(spec, "message", None)
    found = {
        "pipeline": pipeline if isinstance(pipeline, str) else pipeline.name,
        "run": getattr(plan, "night", "") or getattr(plan, "run", ""),
        "batches": message.batches if message else None,
        "part": message.parts_uri.rpartition("/")[2].partition(".")[0][:12] if message else None,
        **{name: getattr(spec, name, None) for name in ("member", "recipe", "vote", "number")},
    }
    return {name: value for name, value in found.items() if value not in (None, "")}
