"""Loss, optimizers and learning rate schedules."""

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from nightshift.config import TrainSettings
from nightshift.models.device import Precision
from nightshift.models.freezing import HEAD, part_of
from nightshift.training.checkpointing import State, restore_optimizer

Group = dict[str, Any]  # what torch's optimizers take: weights, and their learning rate and decay
Loss = Callable[[Tensor, Tensor], Tensor]  # of logits float [B,K] and labels int64 [B] or float [B,K]
MILESTONES: Final = (0.5, 0.75)  # of the training, where `step` divides the rate by ten: He et al., CVPR 2016
PLATEAU: Final = 5  # epochs without a better validation accuracy, after which `plateau` divides by ten


def build_loss(settings: TrainSettings, counts: Tensor) -> Loss:
    """The mean loss in nats; `counts` int64 [K] are the training images of each class.

    `bce` takes every class as a question of its own: Wightman et al., "ResNet strikes back", 2021. `focal`
    gives less weight to what is predicted well: Lin et al., ICCV 2017.
    """
    classes = len(counts)
    weights = torch.ones(classes, device=counts.device)
    if settings.imbalance == "weights":
        weights = counts.sum() / (classes * counts.clamp(min=1).float())

    def mean(each: Tensor, wanted: Tensor) -> Tensor:
        """Of numbers [B], weighted by the class of each image."""
        factors = wanted @ weights
        return (each * factors).sum() / factors.sum()

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        shares = labels if labels.ndim == 2 else functional.one_hot(labels, classes)
        shares = shares.to(logits.dtype)
        wanted = shares * (1 - settings.label_smoothing) + settings.label_smoothing / classes
        if settings.loss == "bce":
            each = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none").sum(1)
        else:
            known = logits.log_softmax(1)
            each = -(wanted * known).sum(1)
            if settings.loss == "focal":
                each = each * (1 - (shares * known.exp()).sum(1)) ** settings.focal_gamma
        return mean(each, shares)

    return loss


class Optimizers:
    """The optimizers of a network and their learning rates, stepped together."""

    def __init__(self, network: nn.Module, settings: TrainSettings, steps: int) -> None:
        """`steps` are those of one epoch."""
        self._network, self._settings = network, settings
        self._optimizers = _optimizers(network, settings)
        self._plateaus: list[ReduceLROnPlateau] = []
        self._schedules: list[LRScheduler] = []
        for optimizer in self._optimizers:
            if settings.schedule == "plateau":
                self._plateaus.append(ReduceLROnPlateau(optimizer, "max", patience=PLATEAU))
            else:
                self._schedules.append(_schedule(optimizer, settings, settings.epochs * steps, steps))

    @property
    def learning_rate(self) -> float:
        """That of the head."""
        return float(self._optimizers[-1].param_groups[0]["lr"])

    def scale_learning_rate(self, factor: float) -> None:
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= factor

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._network.zero_grad(set_to_none=True)

    def step(self, precision: Precision) -> None:
        """Follow the gradients of one batch, clipped as the settings say."""
        if self._settings.clip_norm:
            precision.unscale(self._optimizers)
            nn.utils.clip_grad_norm_(self._network.parameters(), self._settings.clip_norm)
        precision.step(self._optimizers)
        for schedule in self._schedules:
            schedule.step()

    def state(self) -> State:
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "schedules": [schedule.state_dict() for schedule in (*self._schedules, *self._plateaus)],
        }

    def restore(self, state: State) -> None:
        for optimizer, found in zip(self._optimizers, state["optimizers"], strict=True):
            restore_optimizer(optimizer, found)
        for schedule, found in zip((*self._schedules, *self._plateaus), state["schedules"], strict=True):
            schedule.load_state_dict(found)

    def finish_epoch(self, accuracy: float) -> None:
        """Let the rate follow the validation accuracy, where it does."""
        for plateau in self._plateaus:
            plateau.step(accuracy)


class KernelMuon(Optimizer):
    """Muon for convolutions: each kernel [O,I,h,w] is the matrix [O, I*h*w]. Jordan et al., 2024.

    The step is scaled as in Liu et al., "Muon is scalable for LLM training", 2025, so that AdamW's learning
    rates fit. torch.optim.Muon takes matrices only, so that a loss scaler would not find the kernels'
    gradients, and computes in bfloat16 on processors that emulate it, some 15 times slower than in float32.
    """

    def __init__(self, groups: list[Group]) -> None:
        super().__init__(groups, {"momentum": 0.95})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is not None:
                    self._update(kernel, kernel.grad, group)

    def _update(self, kernel: Tensor, gradient: Tensor, group: Group) -> None:
        state = self.state[kernel]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(kernel)
        momentum = state["momentum_buffer"]
        momentum.lerp_(gradient, 1 - group["momentum"])
        nesterov = gradient.lerp(momentum, group["momentum"])
        matrix = _matrix(nesterov)
        rate = 0.2 * group["lr"] * math.sqrt(max(matrix.shape))
        kernel.mul_(1 - group["lr"] * group["weight_decay"])
        _matrix(kernel).add_(orthogonalized(matrix), alpha=-rate)


def _matrix(kernel: Tensor) -> Tensor:
    """A view of the memory, in whichever order it is: the order of the columns does not matter to Muon."""
    channels_last = kernel.is_contiguous(memory_format=torch.channels_last)
    return (kernel.permute(0, 2, 3, 1) if channels_last else kernel).view(len(kernel), -1)


def orthogonalized(matrix: Tensor) -> Tensor:
    """The matrix, float32 [m,n], with its singular values near 1, by five Newton-Schulz steps.

    The coefficients are those of Jordan et al., "Muon: An optimizer for hidden layers in neural networks",
    2024: singular values end between 0.7 and 1.2, which serves as well as 1 and takes fewer steps. A step
    multiplies the matrix by a polynomial of its Gram matrix, so the steps are taken on that, which is
    smaller, and the matrix is multiplied once: in float32 as quick as steps on the matrix in bfloat16.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    gram = matrix.T @ matrix if tall else matrix @ matrix.T
    square = gram.trace().clamp_min(1e-14)
    gram /= square
    product = torch.eye(len(gram), device=gram.device) / square.sqrt()
    for _ in range(5):
        factor = torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
        factor.diagonal().add_(3.4445)
        product, gram = factor @ product, factor @ gram @ factor
    return matrix @ product if tall else product @ matrix


def _optimizers(network: nn.Module, settings: TrainSettings) -> list[Optimizer]:
    """Over all weights, frozen ones too: they have no gradients, so nothing moves them until they thaw.

    Muon leaves all but kernels to AdamW.
    """
    named = list(network.named_parameters())
    kernels = [(name, p) for name, p in named if p.ndim == 4][1:] if settings.optimizer == "muon" else []
    taken = {name for name, _ in kernels}
    groups = _groups([(name, p) for name, p in named if name not in taken], settings)
    rate = settings.learning_rate
    if settings.optimizer == "sgd":
        return [SGD(groups, lr=rate, momentum=0.9, nesterov=True, fused=True)]
    if settings.optimizer == "rmsprop":
        return [RMSprop(groups, lr=rate)]
    if settings.optimizer == "adam":
        return [Adam(groups, lr=rate, fused=True)]
    others = AdamW(groups, lr=rate, fused=True)
    return [KernelMuon(_groups(kernels, settings)), others] if kernels else [others]


def _groups(named: list[tuple[str, nn.Parameter]], settings: TrainSettings) -> list[Group]:
    """Weights by part of the network, the head's first; vectors (norms and biases) apart, as not decayed.

    By part, since the fused SGD fails on a group of which some weights have moved before and others have not.
    """
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in named:
        found.setdefault((part_of(name), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": found[part, decayed],
            "lr": settings.learning_rate * (1 if part == HEAD else settings.backbone_lr_factor),
            "weight_decay": settings.weight_decay if decayed else 0.0,
        }
        for part, decayed in sorted(found, key=lambda key: key[0] != HEAD)
    ]


def _schedule(optimizer: Optimizer, settings: TrainSettings, total: int, epoch: int) -> LRScheduler:
    """`total` steps in all, `epoch` of them in an epoch."""
    if settings.schedule == "one_cycle":
        cycled = bool(optimizer.defaults.get("momentum") or "betas" in optimizer.defaults)
        return OneCycleLR(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total,
            pct_start=0.25 if total != 4 else 0.5,  # torch divides by zero where the first step is the peak
            cycle_momentum=cycled,
        )
    warm = min(settings.warmup_epochs * epoch, total // 2)

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        done = (step - warm) / max(1, total - warm)
        if settings.schedule == "cosine":
            return (1 + math.cos(math.pi * done)) / 2
        return float(0.1 ** sum(done >= milestone for milestone in MILESTONES))

    return LambdaLR(optimizer, factor)
