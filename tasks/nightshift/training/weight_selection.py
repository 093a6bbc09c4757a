"""Selection of the resulting weights: the last, their EMA, or those of the best epoch by early stopping."""

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from nightshift.config import TrainSettings
from nightshift.training.checkpointing import State


class WeightSelector:
    """The last weights, or their moving average; with patience those of the best epoch."""

    def __init__(self, network: nn.Module, settings: TrainSettings) -> None:
        self._trained, self._patience = network, settings.patience
        self._average: AveragedModel | None = None
        if settings.ema:
            average = get_ema_multi_avg_fn(settings.ema)  # type: ignore[no-untyped-call]
            self._average = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self._best, self._since = -1.0, 0
        self._kept: dict[str, Tensor] = {}

    @property
    def network(self) -> nn.Module:
        """What is judged on the validation images."""
        return self._trained if self._average is None else self._average.module

    def update_ema(self) -> None:
        """Take a step of the optimizer into the average."""
        if self._average is not None:
            self._average.update_parameters(self._trained)

    def observe_epoch(self, accuracy: float) -> None:
        """Remember the weights of an epoch that is the best so far."""
        self._since += 1
        if self._patience and accuracy > self._best:
            self._best, self._since = accuracy, 0
            self._kept = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}

    @property
    def should_continue(self) -> bool:
        return not self._patience or self._since < self._patience

    def state(self) -> State:
        average = self._average.state_dict() if self._average else {}
        return {"average": average, "kept": self._kept, "best": self._best, "since": self._since}

    def restore(self, state: State) -> None:
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._kept, self._best, self._since = state["kept"], state["best"], state["since"]

    def apply(self) -> None:
        """Put the resulting weights into the trained network."""
        self._trained.load_state_dict(self._kept or self.network.state_dict())
