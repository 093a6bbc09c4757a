"""Records of what the test images show about each model beyond a score: for people, and some for gates.

They are kept as one file beside the report; what travels between tasks is its address.
"""

from typing import Literal

from nightshift.records.data import Record


class Reliability(Record):
    """Images by the confidence of the model, from low to high; a bin without images is left out."""

    confidence: tuple[float, ...]  # mean of the bin, 0 to 1
    accuracy: tuple[float, ...]
    images: tuple[int, ...]


class Curve(Record):
    """One class against all others; both curves have at most a few hundred points."""

    name: str
    false_positive_rate: tuple[float, ...]
    true_positive_rate: tuple[float, ...]
    recall: tuple[float, ...]
    precision: tuple[float, ...]
    roc_auc: float
    average_precision: float


class Paired(Record):
    """Two models on the same images: `wins` are images that only the first has right, `losses` the others."""

    images: int
    wins: int
    losses: int
    difference: float  # in accuracy, first less second
    low: float  # 95 % interval of the difference
    high: float
    p_value: float  # McNemar's exact test, two-sided


class Slice(Record):
    """Some of the images, by the value of a column: one of the manifest, `brightness` or `image size`."""

    column: str
    value: str
    images: int
    accuracy: dict[str, float]  # by model


class Example(Record):
    """One test image that a person should look at."""

    row: int  # in the test split
    key: str  # of the original, batch/key
    label: str
    predicted: str
    confidence: float  # probability of the predicted class
    own: float  # probability of its label


class Corruption(Record):
    family: str
    severity: int  # 1 to 5
    accuracy: dict[str, float]  # by model


class Attack(Record):
    kind: Literal["fgsm", "pgd"]
    epsilon: float  # largest change of a pixel, of a range of 255
    accuracy: dict[str, float]  # by model


class Robustness(Record):
    """Accuracy on changed images; attacks are made with the float network and shown to all models."""

    images: int
    clean: dict[str, float]  # by model, on the same images unchanged
    corruptions: tuple[Corruption, ...]
    attacks: tuple[Attack, ...]
    seconds: float

    def corrupted(self, model: str) -> float:
        """Mean accuracy over all corruptions; that of the unchanged images where there are none."""
        shares = [each.accuracy[model] for each in self.corruptions]
        return sum(shares) / len(shares) if shares else self.clean[model]


class Evidence(Record):
    reliability: dict[str, Reliability]  # by model
    curves: tuple[Curve, ...]  # of the chosen candidate
    paired: dict[str, Paired]  # the chosen candidate against the model of this name
    slices: tuple[Slice, ...]
    hardest: tuple[Example, ...]  # where the chosen candidate gives its label the least
    confidently_wrong: tuple[Example, ...]
    suspects: tuple[Example, ...]  # whose labels may be errors
    robustness: Robustness | None
