"""Reptile's outer step: move towards the mean of the adapted parameters (Nichol et al. 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from metarl.agents.maml.adaptation import Adaptation, Meta
from metarl.agents.maml.config import MAMLConfig, ReptileStep
from metarl.agents.maml.rounds import Samples
from metarl.core.agent import at
from metarl.core.family import Key
from metarl.fast.capture import Captured
from metarl.learning import ranks


class Reptile:
    """Reptile's outer step: move towards the mean of the parameters after a gradient step on every round.

    The last round counts, too: it is played with the adapted parameters, and one more gradient step follows it.
    """

    def __init__(self, adaptation: Adaptation, meta: Meta, config: MAMLConfig, device: torch.device) -> None:
        assert isinstance(config.outer, ReptileStep)
        self.adaptation, self.meta, self.options, self.device = adaptation, meta, config.outer, device
        self.captured: dict[str, Captured] = {}

    def step(self, rounds: list[Samples], progress: float, key: Key) -> dict[str, float]:
        """Move the initial parameters the fraction `lr` of the way to that mean; learned step sizes do not change."""
        lr = at(self.options.lr, progress)
        params = self.adaptation.initial(self.meta, len(rounds[0].x))
        for number, samples in enumerate(rounds):
            params, _ = self.adaptation.inner_step(params, self.adaptation.step_sizes(self.meta, number), samples)
        distance = torch.zeros((), device=self.device)
        with torch.no_grad():
            for initial, adapted in zip(self.meta, params, strict=False):
                way = ranks.mean(adapted.mean(0), len(adapted)) - initial
                distance = distance + way.square().sum()
                initial.add_(lr * way)
        return {"loss/adapted_distance": float(distance.sqrt()), "loss/lr": lr}

    def state_dict(self) -> dict[str, Tensor]:
        """Return an empty state: the outer step has none beyond the meta-parameters."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
