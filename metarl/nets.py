"""Networks: how observations are scaled and steps encoded, multilayer perceptrons, and feed-forward policies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl import gru
from metarl.batch_env import Step
from metarl.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.estimators import masked_mean


def action_size(space: gymnasium.Space) -> int:
    """Length of an encoded action, and of a policy head's output: n for Discrete(n), A for a Box of shape (A,)."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"The action space must be Discrete or a one-dimensional Box, got {space}.")


class Scaling(nn.Module):
    """Observations as vectors of a size that networks like.

    Each coordinate of a bounded observation space is scaled to [-1, 1]; where the bounds say little of what is visited,
    `follow` scales by what was seen instead. Observations that lie within 0 … 1 (one-hot ones) stay as they are.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, observation_space: gymnasium.Space) -> None:
        super().__init__()
        if not isinstance(observation_space, gymnasium.spaces.Box):
            raise ValueError(f"The observation space must be a Box, got {observation_space}.")
        low = torch.as_tensor(observation_space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(observation_space.high, dtype=torch.float32).flatten()
        # A zero of a one-hot vector must stay a zero.
        bounded = (low.abs() < 1e6) & (high.abs() < 1e6) & (high > low) & ~((low == 0.0) & (high == 1.0))
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("scale", torch.where(bounded, 2 / (high - low), 1.0))
        self.size = low.numel()

    def scaled(self, obs: Tensor, batch_dims: int) -> Tensor:
        """Observations with `batch_dims` leading dimensions and the space's own after them: ``(…, size)``."""
        return (obs.flatten(batch_dims) - self.centre) * self.scale

    def follow(self, obs: Tensor, mask: Tensor, weight: float) -> None:
        """Move centre and scale towards mean and standard deviation of `obs` ``(T, B, *O)`` by `weight` in [0, 1]."""
        seen = obs[mask > 0].flatten(1)
        std, mean = torch.std_mean(seen, dim=0, correction=0)
        self.centre.lerp_(mean, weight)
        self.scale.copy_(1.0 / torch.lerp(1.0 / self.scale, std.clamp_min(1e-3), weight))


class StepEncoder(Scaling):
    """Scaled observation, one-hot (or raw) previous action, previous reward and done as one vector per row.

    `reward_scale` multiplies the previous reward. With `transition` the observation before the previous action is
    there too, so that what was learned by the last step, (observation, action, reward, next observation), stands in
    one input. An optional hidden layer of `embed_size` ReLU units follows; 0 leaves it out.
    """

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        embed_size: int = 0,
        reward_scale: float = 1.0,
        transition: bool = False,
    ) -> None:
        super().__init__(observation_space)
        self.reward_scale = reward_scale
        self.num_actions = action_size(action_space)
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        self.last_size = self.size if transition else 0
        self.raw_size = self.size + self.last_size + self.num_actions + 2
        self.embed = nn.Linear(self.raw_size, embed_size) if embed_size else None
        self.output_size = embed_size or self.raw_size

    def initial(self, batch: int) -> Tensor:
        """What `forward` takes as the last observation at a trial's start: zeros ``(B, last_size)``."""
        return torch.zeros(batch, self.last_size, device=self.centre.device)

    def forward(self, step: Step, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Features and the last observation for the next call.

        A Step of ``(B, …)`` tensors gives ``(B, output_size)``, one of ``(T, B, …)`` tensors ``(T, B, output_size)``;
        `last_obs` is what `initial` or the call before gave, ``(B, last_size)``.
        """
        raw, last_obs = self.raw(step, last_obs)
        return self.embedded(raw), last_obs

    def embedded(self, raw: Tensor) -> Tensor:
        """What is learned of the encoding: the hidden layer, if there is one."""
        return raw if self.embed is None else F.relu(self.embed(raw))

    def raw(self, step: Step, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """What is not learned: the same vectors before the hidden layer, ``(…, raw_size)``."""
        obs = self.scaled(step.obs, step.prev_reward.ndim)
        action = step.prev_action
        if self.discrete:  # NO_ACTION equals no index, so it shows as the zero vector
            action = (action[..., None] == torch.arange(self.num_actions, device=action.device)).to(torch.float32)
        reward = (step.prev_reward * self.reward_scale)[..., None]
        parts = [obs, action, reward, step.prev_done[..., None]]
        if self.last_size:
            parts.append(last_obs if obs.ndim == 2 else torch.cat([last_obs[None], obs[:-1]]))
            last_obs = obs if obs.ndim == 2 else obs[-1]
        return torch.cat(parts, dim=-1), last_obs


def mlp(sizes: list[int], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of the given sizes with `activation` between them (none after the last)."""
    layers: list[nn.Module] = []
    for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [activation()] if n else []
        layers += [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


class Head(nn.Linear):
    """A linear output layer, orthogonal with the given gain and zero bias (Andrychowicz et al. 2021, §3.2)."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__(inputs, outputs)
        nn.init.orthogonal_(self.weight, gain)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return gru.linear(x, self.weight, self.bias)


class Tanh(nn.Module):
    """The hyperbolic tangent. torch's own takes several times as long as its sigmoid on a CPU, and is one of it."""

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_cpu:
            return torch.tanh(x)
        y: Tensor = _Tanh.apply(x)
        return y


class _Tanh(torch.autograd.Function):
    """tanh(x) = 2 σ(2 x) - 1, with tanh's own derivative (a differentiable function, too) in place of the sigmoid's."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return (2.0 * x).sigmoid_().mul_(2.0).sub_(1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grad_outputs[0], y)


ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class MLPPolicy(nn.Module):
    """A multilayer perceptron from features ``(…, F)`` to a distribution over actions, without any state.

    Gaussian for a Box, in units of `action_unit` (None: half its range) around its centre, with a standard deviation
    that does not depend on the state and never falls below `min_std` of these units; categorical for a Discrete space.
    The parameters of the last layer, the standard deviation among them, are those of `head`; all others of `body`.
    """

    def __init__(
        self,
        inputs: int,
        action_space: gymnasium.Space,
        hidden_sizes: list[int],
        activation: str = "tanh",
        init_std: float = 1.0,
        min_std: float = 1e-2,
        action_unit: float | None = None,
    ) -> None:
        super().__init__()
        sizes = [inputs, *hidden_sizes]
        hidden = [mlp(sizes, ACTIVATIONS[activation]), ACTIVATIONS[activation]()] if hidden_sizes else []
        self.body = nn.Sequential(*hidden)
        self.head = PolicyHead(sizes[-1], action_space, init_std, min_std, action_unit)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Distribution:
        out: Distribution = self.head(self.body(x))
        return out

    def of_tasks(self, params: Mapping[str, Tensor], x: Tensor) -> Distribution:
        """N copies at once: parameters ``(N, …)`` by name, features ``(N, M, F)``.

        The same as ``vmap(functional_call)`` over the copies, without its cost per operation, and with the bias added
        inside the matrix product.
        """
        x = x.mT  # samples last in memory: then all products of the backward passes have contiguous results, too
        for name, layer in self.body.named_modules(prefix="body"):
            if isinstance(layer, nn.Linear):
                x = _linear_of_tasks(params, name, x)
            elif not isinstance(layer, nn.Sequential):
                x = layer(x)
        log_std = params.get("head.log_std")
        return self.head.distribution(
            _linear_of_tasks(params, "head.linear", x).mT, None if log_std is None else log_std[:, None]
        )


def _linear_of_tasks(params: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    """Features ``(N, F, M)`` to ``(N, G, M)``."""
    return torch.baddbmm(params[f"{name}.bias"][..., None], params[f"{name}.weight"], x)


class PolicyHead(nn.Module):
    """The last layer of an `MLPPolicy`."""

    centre: Tensor
    unit: Tensor

    def __init__(
        self,
        inputs: int,
        action_space: gymnasium.Space,
        init_std: float,
        min_std: float,
        action_unit: float | None = None,
    ) -> None:
        super().__init__()
        outputs = action_size(action_space)
        self.linear = nn.Linear(inputs, outputs)
        self.min_log_std = math.log(min_std)
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, gymnasium.spaces.Box):
            low, high = torch.as_tensor(action_space.low), torch.as_tensor(action_space.high)
            bounded = bool((low.isfinite() & high.isfinite()).all())
            self.register_buffer("centre", (low + high) / 2 if bounded else torch.zeros(outputs), persistent=False)
            half_range = (high - low) / 2 if bounded else torch.ones(outputs)
            unit = half_range if action_unit is None else torch.full((outputs,), float(action_unit))
            self.register_buffer("unit", unit, persistent=False)
            self.log_std = nn.Parameter(torch.full((outputs,), init_std).log())

    def forward(self, x: Tensor) -> Distribution:
        return self.distribution(self.linear(x), self.log_std)

    def distribution(self, out: Tensor, log_std: Tensor | None) -> Distribution:
        """From the linear layer's output ``(…, A)`` and the standard deviation's logarithm, which broadcasts to it."""
        if log_std is None:
            return Categorical.from_logits(out)
        mean = self.centre + self.unit * out
        log_std = log_std.clamp_min(self.min_log_std) + self.unit.log()
        return DiagonalGaussian(mean, log_std.expand_as(mean))


class ValueNetwork(nn.Module):
    """A learned value of (features, time in the episode), in its own scale of returns: the mean and spread seen."""

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.body = mlp([inputs + 1, hidden, hidden, 1])
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.ones(()))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Value ``(…)`` of features ``(…, F)`` at time ``(…)``."""
        value: Tensor = self.body(torch.cat([x, time[..., None]], dim=-1)).squeeze(-1)
        return value * self.std + self.mean

    def loss(self, x: Tensor, time: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error in its own scale."""
        return masked_mean(((self(x, time) - returns) / self.std) ** 2, mask)

    def follow(self, returns: Tensor, mask: Tensor, weight: float) -> None:
        """Move the scale towards mean and standard deviation of `returns` by `weight` in [0, 1]."""
        mean = masked_mean(returns, mask)
        std = masked_mean((returns - mean) ** 2, mask).sqrt().clamp_min(1e-3)
        self.mean.lerp_(mean, weight)
        self.std.lerp_(std, weight)
