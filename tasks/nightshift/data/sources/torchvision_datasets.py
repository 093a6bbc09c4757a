"""torchvision's image classification sets by name: `torchvision://CIFAR10`.

A copy that is already in the folder (NIGHTSHIFT_DATASETS, by default `nightshift/datasets` in the user's
cache) is used without the network; otherwise torchvision downloads it there and checks it. CIFAR's files are
pickles, which torchvision opens only when their MD5 is the published one.
"""

import difflib
import io
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nightshift.data.labels import Label, check_name, spelled
from nightshift.data.sources.batch import Batch, Content, Item, batch_name, in_folders, labelled
from nightshift.errors import InputError
from nightshift.records import Split

SCHEME: Final = "torchvision://"
Parts = tuple[tuple[Split | None, dict[str, Any]], ...]  # the source's splits and how torchvision calls them

_FLAG: Final[Parts] = (("train", {"train": True}), ("test", {"train": False}))
_TWO: Final[Parts] = (("train", {"split": "train"}), ("test", {"split": "test"}))
_THREE: Final[Parts] = (
    ("train", {"split": "train"}),
    ("validation", {"split": "val"}),
    ("test", {"split": "test"}),
)
_NO_TEST: Final[Parts] = (("train", {"split": "train"}), ("validation", {"split": "val"}))
_WHOLE: Final[Parts] = ((None, {}),)
SETS: Final[dict[str, Parts]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "FashionMNIST", "KMNIST", "MNIST", "QMNIST", "USPS"), _FLAG),
    **dict.fromkeys(("Food101", "GTSRB", "LFWPeople", "STL10", "SVHN", "StanfordCars"), _TWO),
    **dict.fromkeys(("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2"), _THREE),
    **dict.fromkeys(("CLEVRClassification", "ImageNet", "Imagenette"), _NO_TEST),
    **dict.fromkeys(("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397"), _WHOLE),
    "Country211": (*_TWO, ("validation", {"split": "valid"})),
    "EMNIST": tuple((split, {"split": "balanced", **flag}) for split, flag in _FLAG),
    "FER2013": (("train", {"split": "train"}),),  # its test images have no labels
    "OxfordIIITPet": (("train", {"split": "trainval"}), ("test", {"split": "test"})),
    "Places365": (("train", {"split": "train-standard"}), ("validation", {"split": "val"})),
}
NO_DOWNLOAD: Final = ("FER2013", "ImageNet", "StanfordCars")  # their owners do not allow it or took them away
NUMBERED: Final = re.compile(r"(\d) - \w+")  # MNIST's "0 - zero" is the digit 0 of other sources


@dataclass(frozen=True)
class Drawn:
    """Image `index` of a torchvision set as a PNG, which loses nothing."""

    images: Any = field(repr=False)
    index: int
    size: None = None
    etag: None = None

    def read(self) -> bytes:
        buffer = io.BytesIO()
        try:
            self.images[self.index][0].save(buffer, "PNG")
        except OSError as error:
            kind = type(self.images).__name__
            raise InputError(
                f"image {self.index} of {kind} cannot be made a PNG ({error}); remove {kind} from "
                f"{datasets_folder()} to download it again"
            ) from error
        return buffer.getvalue()


def datasets_folder() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "nightshift" / "datasets"
    return Path(os.environ.get("NIGHTSHIFT_DATASETS") or cache).expanduser()


def torchvision_batch(uri: str, name: str | None) -> Batch:
    """The set that `torchvision://NAME` names, with its own splits. Raises InputError."""
    known = _known(uri.removeprefix(SCHEME))
    name = batch_name(name, known.lower())
    files: list[tuple[str, Label, Path | bytes | Content]] = []
    notes: dict[str, None] = {}
    for split, arguments in SETS[known]:
        images = _load(known, arguments)
        names = _class_names(images, known, notes)
        for index, target in enumerate(_targets(images)):
            label = spelled(_named(target, names, known))
            path = f"{label}/{index:06d}.png"
            files.append((f"{split}/{path}" if split else path, Label(label, split), Drawn(images, index)))
    if SETS[known] == _WHOLE:
        items = [Item(path, label.name, content) for path, label, content in files]
        return in_folders(name, items, uri, ignored={}, notes=notes)
    return labelled(name, files, uri, notes=notes)


def _known(name: str) -> str:
    by_name = {known.casefold(): known for known in SETS}
    if found := by_name.get(name.casefold()):
        return found
    near = [by_name[close] for close in difflib.get_close_matches(name.casefold(), by_name, n=3, cutoff=0.5)]
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(sorted(SETS))}"
    raise InputError(f"torchvision has no image classification set {name!r} that is known here; {hint}")


def _load(name: str, arguments: dict[str, Any]) -> Any:
    """The set from the folder, else by download. Raises InputError when neither works."""
    from torchvision import datasets

    folder = datasets_folder()
    kind = getattr(datasets, name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if name in NO_DOWNLOAD:
            return kind(folder, **arguments)
        try:
            return kind(folder, download=False, **arguments)
        except (RuntimeError, OSError):
            return kind(folder, download=True, **arguments)
    except (RuntimeError, OSError, ImportError, ValueError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        way = "get it from its owners" if name in NO_DOWNLOAD else "connect to the internet and try again"
        raise InputError(
            f"{name} is not in {folder} and cannot be downloaded ({why}); {way}, or copy the set there in "
            "torchvision's layout, or name the folder that has it in NIGHTSHIFT_DATASETS"
        ) from error


def _targets(images: Any) -> Sequence[str | int]:
    """The target of every image; without decoding them where the set has a list that agrees with them."""
    ends = (0, len(images) - 1) if len(images) else ()
    pairs = getattr(images, "samples", None) or getattr(images, "_samples", None) or ()
    lists = [getattr(images, name, None) for name in ("targets", "labels", "_labels", "y")]
    for found in (*lists, [target for _, target in pairs]):
        if found is None or len(found) != len(images) or getattr(found, "ndim", 1) != 1:
            continue
        targets = _plain(found)
        if all(_plain([images[end][1]]) == [targets[end]] for end in ends):
            return targets
    return _plain(images[index][1] for index in range(len(images)))


def _plain(targets: Iterable[Any]) -> list[str | int]:
    return [target if isinstance(target, str) else int(target) for target in targets]


def _class_names(images: Any, name: str, notes: dict[str, None]) -> list[str] | None:
    """Names by target where the set has any; what cannot be in a key is replaced, and said in `notes`."""
    given = (
        getattr(images, "wnids", None)
        or getattr(images, "classes", None)
        or getattr(images, "categories", None)
    )
    if given is None and name == "LFWPeople":
        given = sorted(images.class_to_idx, key=images.class_to_idx.__getitem__)
    if given is None:
        return None
    names = []
    for text in given:
        first = text if isinstance(text, str) else text[0]  # Imagenette lists synonyms
        numbered = NUMBERED.fullmatch(first)
        safe = numbered[1] if numbered else re.sub(r"[/\\]", "-", first.strip())
        if not numbered and safe != first:
            notes[f"class {first!r} is called {safe!r}, which is safe in a path"] = None
        names.append(check_name(f"class of {name}", safe))
    if len(set(names)) != len(names):
        raise InputError(f"{name} has two classes of one name; export it into class folders and ingest those")
    return names


def _named(target: str | int, names: list[str] | None, name: str) -> str:
    if isinstance(target, str) or names is None:
        return check_name(f"class of {name}", str(target))
    if not 0 <= target < len(names):
        raise InputError(f"{name} has the target {target} and {len(names)} classes; download the set again")
    return names[target]
