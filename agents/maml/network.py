"""MAML's network: the policy's initial parameters, learned step sizes, and a learned baseline."""

from __future__ import annotations

import torch
from torch import nn

from metarl.agents.maml.config import MAMLConfig
from metarl.core.family import TaskFamily
from metarl.learning.encoder import Scaling
from metarl.learning.images import check_no_images
from metarl.learning.nets import MLPPolicy, ValueNetwork


class MAMLNetwork(nn.Module):
    """The policy with its initial parameters, the learned step sizes `rates`, if any, and the learned baseline."""

    def __init__(self, config: MAMLConfig, family: TaskFamily) -> None:
        super().__init__()
        check_no_images(family, "MAML")
        self.scaling = Scaling(family.observation_space, follows=config.norm_obs)
        if config.obs_unit is not None:
            self.scaling.centre.zero_()
            self.scaling.scale.fill_(1.0 / config.obs_unit)
        self.policy = MLPPolicy(
            self.scaling.size,
            family.action_space,
            list(config.hidden_sizes),
            config.activation,
            config.init_std,
            config.min_std,
        )
        named = list(self.policy.named_parameters())
        head_only = config.adapted == "head"
        fixed = ["head.log_std"] if config.inner_loss == "supervised" else []  # the loss does not depend on it
        self.inner_params = tuple(
            n for n, (name, _) in enumerate(named) if name not in fixed and (not head_only or name.startswith("head."))
        )
        shapes = {
            "fixed": [],
            "scalar": [torch.Size([1])],
            "per_step": [torch.Size([config.inner_steps])],
            "per_parameter": [named[n][1].shape for n in self.inner_params],
        }[config.rates]
        self.rates = nn.ParameterList(torch.full(shape, float(config.fast_lr)) for shape in shapes)
        self.critic = ValueNetwork(self.scaling.size) if config.baseline == "network" else None
