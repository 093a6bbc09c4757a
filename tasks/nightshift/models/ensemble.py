"""The trained networks of a night: alone, as one that votes, and side by side on the validation images."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import nn

from nightshift.config import VoteRule
from nightshift.data.dataset import load_split, scaled, standardised
from nightshift.errors import InputError
from nightshift.models import build, voting
from nightshift.models.device import find_device
from nightshift.models.tta import FlipTTA
from nightshift.records import Checkpoint, Dataset, EnsembleAccuracy
from nightshift.storage import outputs

BATCH: Final = 256


def restore(
    checkpoints: Sequence[Checkpoint], dataset: Dataset, rule: VoteRule | None, *, flip_tta: bool = False
) -> nn.Module:
    """The network of one checkpoint, or with a rule the vote of several; in evaluation mode.

    With `flip_tta` each looks at the mirror image too.

    Raises InputError when their number does not fit the rule, or weights are damaged or of another network.
    """
    if (rule is None) != (len(checkpoints) == 1):
        raise InputError(
            f"a vote takes at least 2 checkpoints and no vote takes 1, got {len(checkpoints)} and the rule "
            f"{rule or 'none'}; see Variant.of"
        )
    networks = [_restore(checkpoint, dataset) for checkpoint in checkpoints]
    if flip_tta:
        networks = [FlipTTA(network).eval() for network in networks]
    return voting.Vote(networks, rule).eval() if rule else networks[0]


@torch.inference_mode()
def standings(checkpoints: Sequence[Checkpoint], dataset: Dataset) -> EnsembleAccuracy:
    """Validation accuracy of each network in float32 and of their votes."""
    device = find_device()
    networks = [_restore(checkpoint, dataset).to(device) for checkpoint in checkpoints]
    split = load_split(dataset, "validation")
    right = torch.zeros(len(networks) + len(voting.RULES), dtype=torch.int64)
    for images, labels, _ in split.batches(BATCH):
        pixels = standardised(scaled(images.to(device)), dataset)
        logits = torch.stack([network(pixels) for network in networks]).cpu()
        given = [*logits.argmax(2), *(rule(logits)[1] for rule in voting.RULES.values())]
        right += (torch.stack(given) == labels).sum(1)
    *members, soft, hard = (count / len(split.labels) for count in right.tolist())
    return EnsembleAccuracy(members=tuple(members), soft=soft, hard=hard)


def _restore(checkpoint: Checkpoint, dataset: Dataset) -> nn.Module:
    return build.restore(
        outputs.read(checkpoint.weights),
        checkpoint.settings,
        classes=len(dataset.classes),
        image_size=dataset.image_size,
        channels=dataset.preprocess.channels,
    )
