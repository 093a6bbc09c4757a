"""Make a registered version again, from its recorded inputs, settings and conditions, and compare.

The stages run each in its fresh interpreter, as in a night, in an empty store that nothing else is found in.
The inputs are read from where they are. Nothing is evaluated, and nothing is registered.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from nightshift import storage
from nightshift.data import batches
from nightshift.errors import InputError
from nightshift.provenance import differences, source_code
from nightshift.provenance.differences import Comparison
from nightshift.records import (
    Artifact,
    BuildRecord,
    Candidate,
    Checkpoint,
    Conditions,
    Dataset,
    Message,
    Part,
    PartList,
    Record,
    outcome,
)
from nightshift.records.specs import AssembleSpec, PreprocessSpec, QuantizeSpec, TrainSpec
from nightshift.runner import run_stage
from nightshift.tracking import registry

Echo = Callable[[str], None]
NAMED = 3  # files in a sentence


class Reproduction(Record):
    """What came of it; `seconds` by stage."""

    model: str
    version: str
    reproduced: bool
    sentence: str
    comparison: Comparison
    seconds: dict[str, float]


class Bench:
    """Runs stages in a store of their own, and keeps how long they took."""

    def __init__(self, store: str, echo: Echo) -> None:
        self.seconds: dict[str, float] = {}
        self._own, self._echo = {"NIGHTSHIFT_STORE": store, "MLFLOW_TRACKING_URI": ""}, echo

    def run(self, stage: str, spec: BaseModel, made_with: Conditions | None = None) -> dict[str, Any]:
        """With as many threads and in the precision of `made_with`, where that is given."""
        begun, own = time.monotonic(), dict(self._own)
        if made_with:
            own |= {"NIGHTSHIFT_THREADS": str(made_with.threads), "NIGHTSHIFT_PRECISION": made_with.precision}
        result = run_stage(stage, spec, echo=self._echo, environment=own)
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + time.monotonic() - begun, 2)
        return result


def reproduce(name: str, version: str, store: str, *, data_only: bool, echo: Echo = print) -> Reproduction:
    """Make a version again in `store`, the URI of an empty folder; with `data_only` only its data set.

    Raises InputError when the version has no record, or when its inputs are gone or were changed.
    """
    made = read_made(name, version)
    check_processes(made, f"version {version} of {name}", data_only, echo)
    check_inputs(made, echo)
    check_start(made)
    bench = Bench(store, echo)
    dataset_uri = _data(made, bench)
    results = differences.data(made, storage.read_record(dataset_uri, Dataset))
    if data_only or not all(row.same for row in results):
        comparison = Comparison(results=results, conditions=_here(made))
    else:
        comparison = _model(made, dataset_uri, results, bench)
    return Reproduction(
        model=name,
        version=version,
        reproduced=comparison.reproduced,
        sentence=differences.sentence(name, version, comparison),
        comparison=comparison,
        seconds=bench.seconds,
    )


def read_made(name: str, version: str) -> BuildRecord:
    """What the version was made of and with, as `register` wrote it down."""
    tag = registry.version_tags(name, version).get(registry.MADE)
    if not tag:
        raise InputError(
            f"version {version} of {name} does not record what it was made of (tag {registry.MADE}), so it "
            "cannot be made again; choose a version that a night of this Nightshift registered"
        )
    artifact = Artifact.model_validate_json(tag)
    data = storage.read_artifact(artifact)
    try:
        return BuildRecord.model_validate_json(data)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(
            f"{artifact.uri}, which records what version {version} of {name} was made of, cannot be read by "
            f"this Nightshift ({'.'.join(map(str, wrong['loc']))}: {wrong['msg']}); use the one that wrote it"
        ) from error


def check_processes(made: BuildRecord, of: str, data_only: bool, echo: Echo) -> None:
    """Raises InputError where several processes trained; says where another kind of device did."""
    if data_only:
        return
    conditions = [member.made_with for member in made.members]
    if most := max((each.processes for each in conditions if each.processes > 1), default=0):
        raise InputError(
            f"{of} was trained by {most} processes, whose sums come in no fixed order, and only the training "
            "of one process can be made again; take --data-only to make its data set again"
        )
    from nightshift.models.device import find_device  # imports torch, which takes seconds

    here = find_device().type
    if others := sorted({each.device for each in conditions} - {here}):
        echo(f"{of} was trained on {', '.join(others)} and this is {here}: their bits are not comparable")


def check_inputs(made: BuildRecord, echo: Echo) -> None:
    """Raises InputError naming what is gone or was changed since the night, as the listing tells."""
    source = made.plan.source
    for name, parts in _by_batch(_parts(made)).items():
        where = f"batch {name} of {source}"
        listed = {each.key: each for each in storage.listing(storage.join(source, name))}
        if not listed:
            raise InputError(f"{where} is gone, and the version was made of it; put it back")
        wanted = {key for part in parts for key in _keys(part)}
        if gone := sorted(wanted - listed.keys()):
            raise InputError(f"{_some(gone)} of {where}: gone, and the version was made of it; put it back")
        changed = [part for part in parts if _digest(part, made, listed) != part.digest]
        if not changed:
            continue
        late = sorted(
            key for part in changed for key in _keys(part) if listed[key].modified > made.plan.newest
        )
        if late or source_code.describe().sha256 == made.candidate.made_with.code.sha256:
            what = _some(late) if late else f"something among {_some(changed[0].keys)}"
            raise InputError(f"{what} of {where}: changed since the version was made of it; put it back")
        echo(f"{where}: listings may have another digest in this code, so that only pixels are compared")


def _digest(part: Part, made: BuildRecord, listed: Mapping[str, storage.Stored]) -> str:
    """Digest of the part as its files are now."""
    files = {key: (key, listed[key].size, listed[key].etag) for key in _keys(part)}
    manifest = files[part.manifest] if part.manifest else None
    batch = batches.Batch(part.batch, tuple(files[key] for key in part.keys), manifest, splits=part.splits)
    return batches.part_digest(batch, made.plan.pipeline.preprocess, made.plan.source)


def check_start(made: BuildRecord) -> None:
    """Raises InputError when the weights that training started from are gone or were changed."""
    start = made.plan.start
    if start is None:
        return
    try:
        storage.read_artifact(start.weights)
    except storage.MissingError as error:
        raise InputError(
            f"the weights that training started from, {start.name}, are gone; put {start.weights.uri} back"
        ) from error


def _parts(made: BuildRecord) -> tuple[Part, ...]:
    try:
        return storage.read_record(made.plan.parts_uri, PartList).parts
    except storage.MissingError as error:
        raise InputError(
            f"{made.plan.parts_uri}, the list of the files that the version was made of, is gone; put it back"
        ) from error


def _by_batch(parts: Sequence[Part]) -> dict[str, list[Part]]:
    found: dict[str, list[Part]] = {}
    for part in parts:
        found.setdefault(part.batch, []).append(part)
    return found


def _keys(part: Part) -> tuple[str, ...]:
    return (*part.keys, part.manifest) if part.manifest else part.keys


def _some(keys: Sequence[str]) -> str:
    rest = f" and {len(keys) - NAMED:,} more" if len(keys) > NAMED else ""
    return f"{', '.join(keys[:NAMED])}{rest}"


def _here(made: BuildRecord) -> tuple[differences.Row, ...]:
    """Conditions of the data, by those of this process."""
    from nightshift.provenance import environment  # imports torch, which takes seconds

    before = made.candidate.made_with
    rows = differences.conditions([(before, environment.describe(before.precision))])
    return tuple(row for row in rows if row.what in differences.DATA)


def _data(made: BuildRecord, bench: Bench) -> str:
    """Preprocess the recorded parts and assemble them; the URI of the data set's manifest."""
    # Outside of its night there is no run to log to, and no drift that could end it.
    plan = made.plan.model_copy(update={"mlflow_run_id": None, "previous": "", "drift_limit": None})
    parts = _parts(made)
    message = Message(parts_uri=plan.parts_uri, parts=len(parts), images=plan.images)
    settings = plan.pipeline.preprocess
    bench.run("preprocess", PreprocessSpec(message=message, source=plan.source, settings=settings))
    return str(bench.run("assemble", AssembleSpec(plan=plan))["dataset_uri"])


def _model(
    made: BuildRecord, dataset_uri: str, results: tuple[differences.Row, ...], bench: Bench
) -> Comparison:
    """Train the members and make the candidate again."""
    plan, candidate = made.plan, made.candidate
    members = []
    for member in made.members:
        spec = TrainSpec(
            dataset_uri=dataset_uri,
            settings=member.settings.model_copy(update={"processes": member.made_with.processes}),
            member=member.member,
            cache_salt=plan.cache_salt,
            start=plan.start,
        )
        members.append(Checkpoint.model_validate(bench.run("train", spec, member.made_with)))
        what = f"weights of member {member.member}" if len(made.members) > 1 else "weights"
        results += (differences.equal(what, member.weights.sha256, members[-1].weights.sha256),)
    quantizing = QuantizeSpec(
        recipe=candidate.recipe,
        vote=candidate.vote,
        checkpoints=tuple(members),
        settings=plan.pipeline.quantize,
        cache_salt=plan.cache_salt,
    )
    again = outcome(bench.run("quantize", quantizing, candidate.made_with))
    pairs = [(old.made_with, new.made_with) for old, new in zip(made.members, members, strict=True)]
    if isinstance(again, Candidate):
        found = again.model.sha256
        pairs.append((candidate.made_with, again.made_with))
    else:
        found = f"not made: {again.reason}"
    results += (differences.equal(differences.MODEL, candidate.model.sha256, found),)
    return Comparison(results=results, conditions=differences.conditions(pairs))
