"""What registered versions lack in the store and in MLflow: it is told, and nothing is done about it."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from nightshift import storage
from nightshift.config import store_root
from nightshift.errors import InputError
from nightshift.records import Decision
from nightshift.tracking import inventory, ledger, registry
from nightshift.tracking.inventory import Version
from nightshift.tracking.runs import address
from nightshift.workflows.upkeep.reachable import named, uris

LOOKUPS = 32  # objects that are looked for at a time


def check_mlflow(versions: Sequence[Version]) -> list[str]:
    """A sentence for each pipeline whose newest version MLflow does not have.

    Raises InputError where it has none of a pipeline's versions: then they are another server's, and by this
    one's registry all that belongs to them, a champion too, would look unwanted.
    """
    known = {(version.name, version.version): version.tags.get(registry.SHA256) for version in versions}
    newest = [found for name in _pipelines() if (found := ledger.registered(name))]
    missing = [each for each in newest if known.get((each.pipeline, each.version)) != each.sha256]
    for each in missing:
        if _is_foreign(each.pipeline, known):
            raise InputError(
                f"MLflow at {address()} has none of the versions that the ledger of {store_root()} names for "
                f"{each.pipeline}, such as version {each.version}, so nothing is deleted; set "
                "MLFLOW_TRACKING_URI and NIGHTSHIFT_STORE to those that belong together, give each MLflow a "
                f"store of its own, or remove {storage.join(store_root(), 'ledger', each.pipeline)}/ where "
                "the pipeline is gone for good"
            )
    return [_unknown(each) for each in missing]


def _is_foreign(pipeline: str, known: Mapping[tuple[str, str], str | None]) -> bool:
    """Whether MLflow has no version that was registered, and the ledger does not say that they are gone."""
    entries = ledger.history(pipeline)
    gone = {(each.version, each.sha256) for each in entries if each.kind == "gone"}
    there = {(each.version, each.sha256) for each in entries if each.kind in ledger.ONCE} - gone
    return bool(there) and not any(known.get((pipeline, version)) == sha256 for version, sha256 in there)


def _pipelines() -> list[str]:
    return storage.folders(storage.join(store_root(), "ledger"))


def _unknown(decision: Decision) -> str:
    return (
        f"the ledger names version {decision.version} of {decision.pipeline} with SHA-256 "
        f"{decision.sha256[:12]}, which MLflow does not have"
    )


def missing_artifacts(versions: Sequence[Version]) -> Iterator[str]:
    """A sentence for each thing that a version lacks: file, data set, images, checkpoint, report."""
    data: dict[str, dict[str, list[str]]] = {}
    needs = {version.uri: _needs(version, data) for version in versions}
    wanted = sorted({uri for each in needs.values() for found in each.values() for uri in found})
    with ThreadPoolExecutor(LOOKUPS) as pool:
        there = dict(zip(wanted, pool.map(storage.exists, wanted), strict=True))
        files = list(pool.map(inventory.has_file, versions))
    for version, has_file in zip(versions, files, strict=True):
        name = f"version {version.version} of {version.name}"
        if not has_file:
            yield f"{name} lacks its file model.onnx in MLflow: it cannot be loaded or promoted"
        for what, found in needs[version.uri].items():
            missing = [uri for uri in found if not there[uri]]
            if missing:
                more = f" and {len(missing) - 1:,} more are" if len(missing) > 1 else " is"
                yield f"{name} lacks its {what}: {missing[0]}{more} not there"


def _needs(version: Version, data: dict[str, dict[str, list[str]]]) -> dict[str, list[str]]:
    """Addresses by what they are; `data` remembers those of each data set."""
    tags = version.tags
    needs = {
        "checkpoint": list(uris(tags.get(registry.CHECKPOINTS, ""))),
        "report": list(uris(tags.get(registry.REPORT, ""))),
    }
    if digest := tags.get(registry.DATASET):
        if digest not in data:
            manifest = storage.join(store_root(), "datasets", f"{digest}.json")
            shards = storage.join(store_root(), "shards/")
            data[digest] = {
                "data set": [manifest],
                "images": [uri for uri in named(manifest) if uri.startswith(shards)],
            }
        needs |= data[digest]
    return needs
