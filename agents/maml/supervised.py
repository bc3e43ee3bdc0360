"""MAML's outer step for supervised learning (Finn et al. 2017, algorithm 2)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from metarl.agents.maml.adaptation import Metrics, supervised
from metarl.agents.maml.ppo import Minibatches
from metarl.agents.maml.rounds import Samples
from metarl.core.agent import at
from metarl.core.distributions import Distribution
from metarl.core.family import Key


class Supervised(Minibatches):
    """The outer step with Adam on the supervised loss of the adapted policies, on points they have not seen."""

    metrics: ClassVar[tuple[str, ...]] = ("supervised", "supervised_before")

    def step(self, rounds: list[Samples], progress: float, key: Key) -> dict[str, float]:
        """Update the meta-parameters by several epochs of Adam; `key` shuffles the tasks into minibatches."""
        means = self.epochs(rounds, [], progress, key)
        return {f"loss/{name}": value for name, value in means.items()} | {"loss/lr": at(self.adam.lr, progress)}

    def loss(
        self, policies: list[Distribution], rounds: list[Samples], before: list[Distribution]
    ) -> tuple[Tensor, Metrics]:
        """Return the mean supervised loss of the outer rounds; the metrics also hold the loss of the first round."""
        losses = [supervised(policy, samples).mean() for policy, samples in zip(policies, rounds, strict=True)]
        loss = torch.stack(losses[self.adaptation.outer]).mean()
        return loss, {"supervised": loss.detach(), "supervised_before": losses[0].detach()}
