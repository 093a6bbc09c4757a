"""What `nightshift plan` prints of a night that has not begun."""

from collections import Counter
from typing import Any

from rich.table import Table

from nightshift.cli.console import console
from nightshift.data.batches import left_out
from nightshift.workflows.retrain.plan import Outlook

SHOWN_BATCHES = 30


def as_dict(pipeline: str, seen: Outlook) -> dict[str, Any]:
    """The outlook as plain JSON values."""
    return {
        "pipeline": pipeline,
        "work": seen.verdict.work,
        "reason": seen.verdict.reason,
        "batches": _states(seen),
        "images": sum(batch.files for batch in seen.batches.values()),
        "images_to_preprocess": sum(len(part.keys) for part in seen.todo),
        "parts_to_preprocess": len(seen.todo),
        "estimated_core_seconds": round(sum(part.seconds for part in seen.todo), 1),
    }


def show(pipeline: str, seen: Outlook) -> None:
    """A table of the batches and a sentence on what the night does."""
    states, files = _states(seen), {name: batch.files for name, batch in seen.batches.items()}
    todo = Counter(part.batch for part in seen.todo for _ in part.keys)
    table = Table("batch", "state")
    for heading in ("files", "to preprocess"):
        table.add_column(heading, justify="right")
    for name in sorted(states, key=lambda name: (states[name] == "known", name))[:SHOWN_BATCHES]:
        table.add_row(name, states[name], f"{files.get(name, 0):,}", f"{todo[name]:,}")
    console().print(table)
    if len(states) > SHOWN_BATCHES:
        print(f"and {len(states) - SHOWN_BATCHES:,} batches more")
    for line in left_out(seen.clutter):
        print(line)
    facts = as_dict(pipeline, seen)
    verb = "trains" if seen.verdict.work else "does nothing"
    if seen.verdict.drift_limit is not None:
        verb = "preprocesses, and trains only on drift"
    print(f"the next night of {pipeline} {verb}: {seen.verdict.reason}")
    if seen.verdict.work:
        print(
            f"{facts['images_to_preprocess']:,} of {facts['images']:,} images to preprocess in "
            f"{facts['parts_to_preprocess']:,} parts, about {facts['estimated_core_seconds']:g} s of one core"
        )


def _states(seen: Outlook) -> dict[str, str]:
    """new, changed, known, removed or still arriving."""
    before = seen.previous.batches if seen.previous else {}
    states = {
        name: "new" if name not in before else "known" if before[name] == batch else "changed"
        for name, batch in seen.batches.items()
    }
    states |= {name: "removed" for name in before if name not in seen.batches and name not in seen.waiting}
    return states | dict.fromkeys(seen.waiting, "still arriving")
