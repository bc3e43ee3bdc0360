"""The network of ES: a recurrent policy, with P perturbed copies that act in one batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from metarl.agents.es.config import ESConfig
from metarl.core.distributions import Distribution
from metarl.core.family import TaskFamily
from metarl.learning.encoder import StepEncoder
from metarl.learning.images import check_no_images
from metarl.learning.memories import GRU
from metarl.learning.nets import MLPPolicy


class ESNetwork(nn.Module):
    """A GRU over encoded steps, and a head that reads its state and the step. The module's parameters are the mean θ.

    `policies` uses parameters ``(P, …)`` of P policies, with batched matrix products instead of the modules. They need
    as many multiplications as shared weights, but read P copies of them.
    """

    def __init__(self, config: ESConfig, family: TaskFamily) -> None:
        super().__init__()
        check_no_images(family, "ES")
        space = family.action_space
        self.encoder = StepEncoder(
            family.observation_space, space, transition=config.transition_input, follows=config.norm_obs
        )
        self.memory = GRU(self.encoder.output_size, config.hidden_size)
        inputs = config.hidden_size + self.encoder.output_size
        self.policy = MLPPolicy(inputs, space, list(config.head_sizes), init_std=config.init_std)
        nn.init.orthogonal_(self.policy.head.linear.weight, 0.01)

    def forward(self, x: Tensor, state: Tensor) -> tuple[Distribution, Tensor]:
        """Return the mean policy for encoded steps ``(B, F)``, and the GRU's next state ``(B, H)``."""
        output, state = self.memory.step(x, state)
        return self.policy(torch.cat([output, x], dim=-1)), state

    def policies(self, params: Mapping[str, Tensor], x: Tensor, state: Tensor) -> tuple[Distribution, Tensor]:
        """Return the policies with parameters ``(P, …)`` for steps ``(P, N, F)`` and states ``(P, N, H)``.

        The distributions have the batch shape ``(P, N)``; the next states are ``(P, N, H)``.
        """
        state = gru_of_policies(params, "memory.cell.", x, state)
        own = {name.removeprefix("policy."): p for name, p in params.items() if name.startswith("policy.")}
        return self.policy.of_tasks(own, torch.cat([state, x], dim=-1)), state


def gru_of_policies(params: Mapping[str, Tensor], prefix: str, x: Tensor, state: Tensor) -> Tensor:
    """Return the next states ``(P, N, H)`` of P GRU cells, for inputs ``(P, N, F)`` and states ``(P, N, H)``.

    `params` holds the parameters of `torch.nn.GRU`, each ``(P, …)``, under names that begin with `prefix`.
    """
    w_x, w_h, b_x, b_h = (params[f"{prefix}{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    from_x = torch.baddbmm(b_x[:, None], x, w_x.mT)
    from_h = torch.baddbmm(b_h[:, None], state, w_h.mT)
    (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (gates.chunk(3, dim=-1) for gates in (from_x, from_h))
    update = torch.sigmoid(update_x + update_h)
    new = torch.tanh(torch.addcmul(new_x, torch.sigmoid(reset_x + reset_h), new_h))
    return torch.lerp(new, state, update)
