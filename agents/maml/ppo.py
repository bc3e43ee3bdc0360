"""The outer step of MAML by PPO: Adam on the clipped surrogate after adaptation (Schulman et al. 2017).

With likelihood ratios as the inner objective, and a penalty on the KL divergence of the policies before each gradient
step, this is ProMP (Rothfuss et al. 2019, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from metarl.agents.maml.adaptation import Adaptation, Meta, Metrics
from metarl.agents.maml.config import MAMLConfig, PPOStep
from metarl.agents.maml.minibatches import Minibatches
from metarl.agents.maml.rounds import Samples
from metarl.core.agent import at
from metarl.core.distributions import Distribution
from metarl.core.family import Key
from metarl.core.tree import detach
from metarl.learning import ranks
from metarl.learning.losses import clipped_surrogate


class PPO(Minibatches):
    """The outer step by PPO: some epochs of Adam on the clipped surrogate of the adapted policies."""

    metrics: ClassVar[tuple[str, ...]] = ("policy", "entropy", "approx_kl", "clip_fraction")

    def __init__(
        self,
        adaptation: Adaptation,
        meta: Meta,
        config: MAMLConfig,
        device: torch.device,
        named: Iterable[tuple[str, nn.Parameter]],
    ) -> None:
        super().__init__(adaptation, meta, config, device, named)
        assert isinstance(config.outer, PPOStep)
        self.options = config.outer
        self.inner_kl_coef = torch.full((config.inner_steps,), self.options.inner_kl_coef, device=device)

    def step(self, rounds: list[Samples], progress: float, key: Key) -> dict[str, float]:
        """Change the meta-parameters by some epochs of Adam; `key` shuffles the tasks into minibatches."""
        options = self.options
        before = detach(self.adaptation.adapt(self.meta, rounds).policies[:-1]) if options.inner_kl_coef else []
        means = self.epochs(rounds, before, progress, key)
        if options.inner_kl_coef:
            means |= self._adapt_inner_kl_coef(rounds, before)
        return {f"loss/{name}": value for name, value in means.items()} | {"loss/lr": at(options.lr, progress)}

    def loss(
        self, policies: list[Distribution], rounds: list[Samples], before: list[Distribution]
    ) -> tuple[Tensor, Metrics]:
        """Return the clipped surrogate of the outer rounds, with E-MAML's term and ProMP's penalty, and metrics."""
        config, outer = self.config, self.adaptation.outer
        pairs = zip(policies[outer], rounds[outer], strict=True)
        terms, found = zip(*(self._clipped(policy, samples, samples.advantage) for policy, samples in pairs))
        loss = torch.stack(terms).mean()
        metrics = {name: torch.stack([each[name] for each in found]).mean() for name in found[0]}
        if config.exploration:
            for policy, samples in zip(policies[:-1], rounds[:-1], strict=True):
                loss = loss + config.exploration * self._clipped(policy, samples, samples.credit)[0]
        if self.options.inner_kl_coef:
            for coef, kl in zip(self.inner_kl_coef, _divergences(before, policies, rounds), strict=True):
                loss = loss + coef * kl
        return loss, metrics

    def _clipped(self, policy: Distribution, samples: Samples, advantage: Tensor) -> tuple[Tensor, Metrics]:
        loss, metrics = clipped_surrogate(
            policy.log_prob(samples.action), samples.log_prob, advantage, samples.weight, self.options.clip_coef
        )
        entropy = (detach(policy).entropy() * samples.weight).sum(-1).mean()
        return loss, metrics | {"policy": loss.detach(), "entropy": entropy}

    def _adapt_inner_kl_coef(self, rounds: list[Samples], before: list[Distribution]) -> dict[str, float]:
        """Double (halve) the weight of each gradient step's penalty if its KL is far above (below) the target."""
        target = self.options.inner_kl_target
        policies = self.adaptation.adapt(self.meta, rounds).policies
        kls = ranks.mean(torch.stack(_divergences(before, policies, rounds)), len(rounds[0].x)).tolist()
        for n, kl in enumerate(kls):
            self.inner_kl_coef[n] *= 2.0 if kl > 1.5 * target else 0.5 if kl < target / 1.5 else 1.0
        return {"inner_kl": sum(kls) / len(kls), "inner_kl_coef": float(self.inner_kl_coef.mean())}

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the outer step: the optimiser's, and the weights of ProMP's penalty."""
        return super().state_dict() | {"kl_coef": self.inner_kl_coef}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        super().load_state_dict(state)
        self.inner_kl_coef.copy_(state["kl_coef"])


def _divergences(before: list[Any], policies: list[Distribution], rounds: list[Samples]) -> list[Tensor]:
    """Return the mean KL(before ‖ now) of the policies before each gradient step, on the states that they visited."""
    triples = zip(before, policies, rounds, strict=False)
    return [(old.kl(new) * samples.weight).sum(-1).mean() for old, new, samples in triples]
