"""What registered versions lack in the store and in MLflow: it is told, and nothing is done about it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from tasks import inventory, ledger, registry, storage
from tasks.config import store_root
from tasks.errors import InputError
from tasks.inventory import Version
from tasks.reach import named, uris
from tasks.records import Decision
from tasks.tracking import address

LOOKUPS = 32  # objects that are looked for at a time


def check_mlflow(versions: Sequence[Version]) -> list[str]:
    """A sentence for each pipeline whose newest version MLflow does not have.

    Raises InputError when that is so for all of them: then it is another server's registry, by which
    everything in this store would look unwanted.
    """
    known = {(version.name, version.version): version.tags.get(registry.SHA256) for version in versions}
    newest = [found for name in _pipelines() if (found := ledger.registered(name))]
    missing = [each for each in newest if known.get((each.pipeline, each.version)) != each.sha256]
    if newest and len(missing) == len(newest):
        raise InputError(
            f"MLflow at {address()} has none of the versions that the ledger of {store_root()} names, such "
            f"as version {newest[0].version} of {newest[0].pipeline}; set MLFLOW_TRACKING_URI and "
            "NIGHTSHIFT_STORE to those that belong together"
        )
    return [_unknown(each) for each in missing]


def _pipelines() -> list[str]:
    return storage.folders(storage.join(store_root(), "ledger"))


def _unknown(decision: Decision) -> str:
    return (
        f"the ledger names version {decision.version} of {decision.pipeline} with SHA-256 "
        f"{decision.sha256[:12]}, which MLflow does not have"
    )


def lacking(versions: Sequence[Version]) -> Iterator[str]:
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
