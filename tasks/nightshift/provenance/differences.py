"""What a version was made of and with beside what came of making it again, and the sentence of that."""

from collections.abc import Sequence
from typing import Final

from nightshift.records import BuildRecord, Conditions, Dataset, Record

DATA: Final = (  # what the pixels hang on
    *("code", "processor"),
    *("version of numpy", "version of opencv", "version of pillow", "version of simplejpeg"),
)
MODEL: Final = "model.onnx"
WORDS: Final = {"micro_batches": "micro-batches", "group": "shards in memory together"}
SEVERAL: Final = ("stored images", "weights", "threads", "processes", *WORDS.values())


class Row(Record):
    """One thing that was compared; of what was made by several stages, each value once."""

    what: str
    recorded: str
    now: str
    same: bool

    @property
    def words(self) -> str:
        return f"the {self.what} {'differ' if self.what.startswith(SEVERAL) else 'differs'}"


class Comparison(Record):
    """`results` in the order in which they came out: the first that differs makes the others differ."""

    results: tuple[Row, ...]
    conditions: tuple[Row, ...]

    @property
    def reproduced(self) -> bool:
        return all(row.same for row in self.results)


def equal(what: str, recorded: str, now: str) -> Row:
    return Row(what=what, recorded=recorded, now=now, same=recorded == now)


def data(made: BuildRecord, dataset: Dataset) -> tuple[Row, ...]:
    """Of the data set's digest, which follows from the listing, and of the pixels that were made of it."""
    return (
        equal("data set", made.dataset, dataset.digest),
        equal("stored images", made.pixels, dataset.pixels_digest),
    )


def conditions(pairs: Sequence[tuple[Conditions, Conditions]]) -> tuple[Row, ...]:
    """Recorded and present conditions of everything that was made again."""
    recorded, now = [_values(before) for before, _ in pairs], [_values(after) for _, after in pairs]
    rows = []
    for what in recorded[0]:
        before, after = [each[what] for each in recorded], [each.get(what, "") for each in now]
        row = Row(what=what, recorded=_once(before), now=_once(after), same=before == after)
        rows.append(row)
    # Only its bytes count: a commit that leaves the package alone changes nothing.
    same = all(before.code.sha256 == after.code.sha256 for before, after in pairs)
    return tuple(row.model_copy(update={"same": same}) if row.what == "code" else row for row in rows)


def sentence(name: str, version: str, comparison: Comparison) -> str:
    """What came of it; of the results, the first that differs."""
    of, last = f"version {version} of {name}", comparison.results[-1]
    if comparison.reproduced:
        if last.what == MODEL:
            return f"{of} is reproduced: {MODEL} has SHA-256 {last.now}"
        return f"the data of {of} is reproduced: data set {comparison.results[0].now}"
    first = next(row for row in comparison.results if not row.same)
    differing = [row for row in comparison.conditions if not row.same]
    why = ", ".join(f"{row.words} ({row.recorded}, now {row.now})" for row in differing)
    device = next((row.now for row in comparison.conditions if row.what == "device"), "cpu")
    order = "" if device == "cpu" else f", and sums on {device} come in no fixed order"
    return f"{of} is not reproduced: {first.words}; {why or 'no condition that is recorded differs'}{order}"


def _values(found: Conditions) -> dict[str, str]:
    """Each condition in words."""
    code = found.code
    commit = f", commit {code.commit[:12]}" if code.commit else ""
    rest = found.model_dump(exclude={"code", "packages"})
    return {
        "code": f"{code.version}{commit}, SHA-256 {code.sha256[:12]}",
        **{f"version of {name}": version for name, version in found.packages.items()},
        **{WORDS.get(name, name): str(value) for name, value in rest.items()},
    }


def _once(values: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(values))
