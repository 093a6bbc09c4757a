"""How models answer for images that were corrupted or attacked, on a part of the test images."""

import time
from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import nn

from nightshift.config import EvaluateSettings
from nightshift.data.dataset import stratified
from nightshift.evaluation.contenders import Contender, Labels
from nightshift.evaluation.metrics.corruptions import FAMILIES, SEVERITIES, corrupt
from nightshift.inference import runtime
from nightshift.inference.runtime import Pixels
from nightshift.models.attacks import Kind, attack
from nightshift.records import Attack, Corruption, Dataset, Robustness

# One of each kind: noise, blur, weather, digital; a mild and a strong one.
QUICK: Final = ("gaussian_noise", "motion_blur", "fog", "jpeg_compression")
QUICK_SEVERITIES: Final = (2, 4)
KINDS: Final[tuple[Kind, ...]] = ("fgsm", "pgd")


class Subject:
    """One model on the chosen rows of the test images, in the classes of the data set."""

    def __init__(self, contender: Contender, rows: Labels, labels: Labels) -> None:
        self.pixels: Pixels = contender.pixels[rows]
        self._session = runtime.Session(contender.model, contender.runtime)
        self._places = contender.places
        self._known = contender.known[rows]
        self._labels = labels[rows]

    @property
    def judged(self) -> bool:
        return bool(self._known.any())

    def accuracy(self, pixels: Pixels) -> float:
        """On the images whose class it knows."""
        _, predicted = self._session.predict(pixels[self._known])
        return float(np.mean(self._places[predicted] == self._labels[self._known]))


def assess(
    there: Mapping[str, Contender],
    network: nn.Module,
    labels: Labels,
    dataset: Dataset,
    settings: EvaluateSettings,
    seed: int,
) -> Robustness:
    """Accuracy of every model on changed test images; `labels` int64 [N] are those of all test images.

    Every model sees its own pixels corrupted. Attacks are made on the pixels of the data set with the float
    network, and shown to the models that take these.
    """
    begun = time.perf_counter()
    rows = stratified(torch.from_numpy(labels), settings.robustness_images, seed).numpy()
    subjects = {name: Subject(each, rows, labels) for name, each in there.items()}
    subjects = {name: each for name, each in subjects.items() if each.judged}
    quick = settings.robustness == "quick"
    corruptions = [
        _corrupted(subjects, family, severity, seed)
        for family in (QUICK if quick else FAMILIES)
        for severity in (QUICK_SEVERITIES if quick else SEVERITIES)
    ]
    attacks = _attacks(there, subjects, network, rows, labels, dataset, settings, seed)
    taken = time.perf_counter() - begun
    print(f"robustness: {len(rows):,} images, {len(corruptions)} corruptions, {taken:.1f} s", flush=True)
    return Robustness(
        images=len(rows),
        clean={name: each.accuracy(each.pixels) for name, each in subjects.items()},
        corruptions=tuple(corruptions),
        attacks=tuple(attacks),
        seconds=taken,
    )


def _corrupted(subjects: Mapping[str, Subject], family: str, severity: int, seed: int) -> Corruption:
    made: list[tuple[Pixels, Pixels]] = []  # models that take the same pixels share what becomes of them

    def changed(pixels: Pixels) -> Pixels:
        for original, result in made:
            if original.shape == pixels.shape and np.array_equal(original, pixels):
                return result
        made.append((pixels, corrupt(pixels, family, severity, seed)))
        return made[-1][1]

    accuracy = {name: each.accuracy(changed(each.pixels)) for name, each in subjects.items()}
    return Corruption(family=family, severity=severity, accuracy=accuracy)


def _attacks(
    there: Mapping[str, Contender],
    subjects: Mapping[str, Subject],
    network: nn.Module,
    rows: Labels,
    labels: Labels,
    dataset: Dataset,
    settings: EvaluateSettings,
    seed: int,
) -> list[Attack]:
    if settings.attack_epsilon == 0:
        return []
    usual = next(iter(there.values())).pixels  # the first is a candidate of this data set
    alike = [name for name in subjects if there[name].pixels is usual]
    images, found = usual[rows], []
    for kind in KINDS:
        changed = attack(
            network,
            images,
            labels[rows],
            dataset,
            kind,
            settings.attack_epsilon,
            steps=settings.attack_steps,
            seed=seed,
        )
        accuracy = {name: subjects[name].accuracy(changed) for name in alike}
        found.append(Attack(kind=kind, epsilon=settings.attack_epsilon, accuracy=accuracy))
    return found
