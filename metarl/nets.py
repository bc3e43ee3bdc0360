"""Networks: how observations are scaled and steps encoded, multilayer perceptrons, and feed-forward policies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import metarl.fast  # noqa: F401  (registers the fast twins)
from metarl.batch_env import Step, action_units
from metarl.distributions import Categorical, DiagonalGaussian, Distribution
from metarl.estimators import ALIKE, masked_mean, pooled, running_size, spread
from metarl.twins import twin


def action_size(space: gymnasium.Space) -> int:
    """Length of an encoded action, and of a policy head's output: n for Discrete(n), A for a Box of shape (A,)."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return int(space.n)
    if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
        return int(space.shape[0])
    raise ValueError(f"The action space must be Discrete or a one-dimensional Box, got {space}.")


def first_action(space: gymnasium.Space) -> int:
    """The first action of a Discrete space, which networks call 0; 0 for a Box."""
    return int(space.start) if isinstance(space, gymnasium.spaces.Discrete) else 0


class ActionUnits(nn.Module):
    """Between a family's actions and a network's own, the same in whatever units the family has them.

    A network counts the actions of a Discrete space from 0, and measures those of a Box in the units of `action_units`,
    or in `unit` where that is given. Its distributions are over its own actions, and so are log-probabilities,
    entropies and divergences: of a Box they are densities per unit.
    """

    centre: Tensor
    unit: Tensor

    def __init__(self, space: gymnasium.Space, unit: float | None = None) -> None:
        super().__init__()
        self.first = first_action(space)
        self.continuous = isinstance(space, gymnasium.spaces.Box)
        if isinstance(space, gymnasium.spaces.Box):
            centre, half_range = action_units(space)
            self.register_buffer("centre", centre, persistent=False)
            given = half_range if unit is None else torch.full_like(half_range, unit)
            self.register_buffer("unit", given, persistent=False)

    def to_family(self, own: Tensor) -> Tensor:
        """The family's actions for the network's ``(…)`` or ``(…, A)``."""
        if self.continuous:
            return self.centre + self.unit * own
        return own + self.first if self.first else own

    def to_own(self, action: Tensor) -> Tensor:
        """The other way round, up to rounding."""
        if self.continuous:
            return (action - self.centre) / self.unit
        return action - self.first if self.first else action


class Scaling(nn.Module):
    """Observations as vectors of a size that networks like, whatever their units.

    Each coordinate of a bounded observation space is scaled to [-1, 1]; those that lie within 0 … 1 (one-hot ones) stay
    as they are. Where the bounds say little of what is visited, `follows` scales by what was seen instead: `follow`
    tracks mean and variance, and what lies further than `LIMIT` standard deviations out is clipped. Until the first
    `follow` a coordinate without bounds is shown as 0, and so is one that has never changed.

    The convention has a `version`, which is part of the state. A state of version 1, which had no number, is loaded as
    what it was: raw coordinates until the first `follow`, no clipping, standard deviations averaged.
    """

    VERSION = 2
    LIMIT = 10.0

    centre: Tensor
    scale: Tensor
    version: Tensor

    def __init__(self, observation_space: gymnasium.Space, follows: bool = False) -> None:
        super().__init__()
        if not isinstance(observation_space, gymnasium.spaces.Box):
            raise ValueError(f"The observation space must be a Box, got {observation_space}.")
        self.follows = follows
        self.number = self.VERSION  # `version` as an int: a look at a tensor would be a wait for the device
        low = torch.as_tensor(observation_space.low, dtype=torch.float32).flatten()
        high = torch.as_tensor(observation_space.high, dtype=torch.float32).flatten()
        # A zero of a one-hot vector must stay a zero. Bounds such as the largest float are none.
        known = (low.abs() < 1e30) & (high.abs() < 1e30) & (high > low)
        unit = (low == 0.0) & (high == 1.0)
        bounded = known & ~unit
        other = torch.where(unit, 1.0, 0.0) if follows else torch.ones_like(low)
        self.register_buffer("centre", torch.where(bounded, (low + high) / 2, 0.0))
        self.register_buffer("scale", torch.where(bounded, 2 / (high - low), other))
        self.register_buffer("version", torch.tensor(self.VERSION))
        self.size = low.numel()

    def scaled(self, obs: Tensor, batch_dims: int) -> Tensor:
        """Observations with `batch_dims` leading dimensions and the space's own after them: ``(…, size)``."""
        x = (obs.flatten(batch_dims) - self.centre) * self.scale
        return x.clamp(-self.LIMIT, self.LIMIT) if self.follows and self.number > 1 else x

    def follow(self, obs: Tensor, mask: Tensor, weight: float) -> None:
        """Move mean and variance towards those of `obs` ``(T, B, *O)`` by `weight` in [0, 1].

        The variance is that of all batches taken as one (see `pooled`).
        """
        seen = obs[mask > 0].flatten(1)
        std, mean = torch.std_mean(seen, dim=0, correction=0)
        if self.number == 1:
            self.centre.lerp_(mean, weight)
            self.scale.copy_(1.0 / torch.lerp(1.0 / self.scale, std.clamp_min(1e-3), weight))
            return
        mean, std = pooled((self.centre, _inverse(self.scale)), (mean, std), weight)
        self.centre.copy_(mean)
        self.scale.copy_(torch.where(std > ALIKE * mean.abs(), 1.0 / std, 0.0))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """A state without a version is of version 1."""
        version = state_dict.setdefault(f"{prefix}version", torch.tensor(1))
        self.number = int(version)
        if self.number == 1:
            self._fill_in(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        """Add to a state of version 1 what it had not."""


def _inverse(x: Tensor) -> Tensor:
    """1 / x, and 0 where x is 0."""
    return torch.where(x > 0.0, 1.0 / x, 0.0)


class StepEncoder(Scaling):
    """Scaled observation, previous action, previous reward and done as one vector per row.

    A Discrete action is one-hot; a Box's is shown in the units of `action_units`. The reward is divided by its running
    size (root mean square of the rewards that are not 0, by `follow_rewards`), clipped at `LIMIT` of that and
    multiplied by `reward_scale`; it shows as 0 until the first rewards were seen. (Version 1 shows actions and rewards
    as they are.) With `transition` the observation before the previous action is there too, so that what was learned
    by the last step, (observation, action, reward, next observation), stands in one input; with `reactive` there is
    the observation alone. `embed` is the linear layer to `embed_size` ReLU units after it; None with 0.
    """

    action_centre: Tensor
    action_scale: Tensor
    reward_size: Tensor
    reward_batches: Tensor

    def __init__(
        self,
        observation_space: gymnasium.Space,
        action_space: gymnasium.Space,
        embed_size: int = 0,
        reward_scale: float = 1.0,
        transition: bool = False,
        follows: bool = False,
        reactive: bool = False,
    ) -> None:
        super().__init__(observation_space, follows)
        self.reward_scale = reward_scale
        self.num_actions = action_size(action_space)
        self.first_action = first_action(action_space)
        self.discrete = isinstance(action_space, gymnasium.spaces.Discrete)
        self.reactive = reactive
        self.last_size = self.size if transition else 0
        self.raw_size = self.size if reactive else self.size + self.last_size + self.num_actions + 2
        if isinstance(action_space, gymnasium.spaces.Box):
            centre, unit = action_units(action_space)
            self.register_buffer("action_centre", centre)
            self.register_buffer("action_scale", 1.0 / unit)
        self.register_buffer("reward_size", torch.zeros(()))
        self.register_buffer("reward_batches", torch.zeros(()))
        self.embed = nn.Linear(self.raw_size, embed_size) if embed_size else None
        self.output_size = embed_size or self.raw_size

    def initial(self, batch: int) -> Tensor:
        """What `raw` takes as the last observation at a trial's start: zeros ``(B, last_size)``."""
        return torch.zeros(batch, self.last_size, device=self.centre.device)

    def raw(self, step: Step, last_obs: Tensor) -> tuple[Tensor, Tensor]:
        """Encode steps: vectors before the hidden layer, and the last observation for the next call.

        A Step of ``(B, …)`` tensors gives ``(B, raw_size)``, one of ``(T, B, …)`` tensors ``(T, B, raw_size)``;
        `last_obs` is what `initial` or the call before gave, ``(B, last_size)``. Nothing in it is learned by gradients.
        """
        obs = self.scaled(step.obs, step.prev_reward.ndim)
        if self.reactive:
            return obs, last_obs
        parts = [obs, self._action(step), self._reward(step.prev_reward)[..., None], step.prev_done[..., None]]
        if self.last_size:
            parts.append(last_obs if obs.ndim == 2 else torch.cat([last_obs[None], obs[:-1]]))
            last_obs = obs if obs.ndim == 2 else obs[-1]
        return torch.cat(parts, dim=-1), last_obs

    def follow_rewards(self, reward: Tensor, mask: Tensor) -> None:
        """Take the rewards of an iteration ``(T, B)`` into their running size: a mean over all iterations with any."""
        if self.number == 1:
            return
        size, batches = running_size(self.reward_size, self.reward_batches, reward * mask)
        self.reward_size.copy_(size)
        self.reward_batches.copy_(batches)

    def in_reward_sizes(self, x: Tensor, reward: Tensor, mask: Tensor) -> Tensor:
        """What is in units of rewards, divided by their running size when `reward` ``(T, B)`` has been taken into it.

        In version 1 it stays as it is.
        """
        if self.number == 1:
            return x
        return x * _inverse(running_size(self.reward_size, self.reward_batches, reward * mask)[0])

    def _action(self, step: Step) -> Tensor:
        action = step.prev_action
        if self.discrete:  # what stands for no action equals no index, so it shows as the zero vector
            numbers = torch.arange(self.num_actions, device=action.device) + self.first_action
            return (action[..., None] == numbers).to(torch.float32)
        if self.number == 1:
            return action
        # At a trial's start no action came before: it shows as 0, as the middle of the range does.
        return (action - self.action_centre) * self.action_scale

    def _reward(self, reward: Tensor) -> Tensor:
        if self.number == 1:
            return reward * self.reward_scale
        return (reward * _inverse(self.reward_size)).clamp(-self.LIMIT, self.LIMIT) * self.reward_scale

    def _fill_in(self, state_dict: dict[str, Any], prefix: str) -> None:
        for name in ("action_centre", "action_scale", "reward_size", "reward_batches"):
            if hasattr(self, name):
                state_dict.setdefault(f"{prefix}{name}", getattr(self, name).clone())


def mlp(sizes: list[int], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers of the given sizes with `activation` between them (none after the last)."""
    layers: list[nn.Module] = []
    for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [activation()] if n else []
        layers += [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


@twin("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer: ``x (…, F)`` times `weight` (G, F) transposed, plus `bias` (G,)."""
    return F.linear(x, weight, bias)


class Head(nn.Linear):
    """A linear output layer, orthogonal with the given gain and zero bias (Andrychowicz et al. 2021, §3.2)."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__(inputs, outputs)
        nn.init.orthogonal_(self.weight, gain)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@twin("tanh")
def tanh(x: Tensor) -> Tensor:
    """The hyperbolic tangent."""
    return torch.tanh(x)


class Tanh(nn.Module):
    """The hyperbolic tangent as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class MLPPolicy(nn.Module):
    """A multilayer perceptron from features ``(…, F)`` to a distribution over actions, without any state.

    Gaussian for a Box, in units of `action_unit` (None: half its range) around its centre, with a standard deviation
    that does not depend on the state and never falls below `min_std` of these units; categorical for a Discrete space,
    over 0 … n - 1. `head.actions` turns such actions into the family's. The parameters of the last layer, the standard
    deviation among them, are those of `head`; all others of `body`.
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
            self.log_std = nn.Parameter(torch.full((outputs,), init_std).log())
        self.actions = ActionUnits(action_space, action_unit)

    def forward(self, x: Tensor) -> Distribution:
        return self.distribution(self.linear(x), self.log_std)

    def distribution(self, out: Tensor, log_std: Tensor | None) -> Distribution:
        """From the linear layer's output ``(…, A)`` and the standard deviation's logarithm, which broadcasts to it."""
        if log_std is None:
            return Categorical.from_logits(out)
        return DiagonalGaussian(out, log_std.clamp_min(self.min_log_std).expand_as(out))


class ValueNetwork(nn.Module):
    """A learned value of (features, time in the episode), in its own scale of returns: the mean and spread seen.

    When the scale moves, the last layer is corrected so that no value does (PopArt, van Hasselt et al. 2016). Before
    the first returns every value is 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.body = mlp([inputs + 1, hidden, hidden, 1])
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Value ``(…)`` of features ``(…, F)`` at time ``(…)``."""
        value: Tensor = self.body(torch.cat([x, time[..., None]], dim=-1)).squeeze(-1)
        return value * self.std + self.mean

    def loss(self, x: Tensor, time: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error in its own scale."""
        return masked_mean(((self(x, time) - returns) * _inverse(self.std)) ** 2, mask)

    @torch.no_grad()
    def follow(self, returns: Tensor, mask: Tensor, weight: float) -> None:
        """Move the scale towards mean and standard deviation of `returns` by `weight` in [0, 1]."""
        last = self.body[-1]
        assert isinstance(last, nn.Linear)
        after = pooled((self.mean, self.std), spread(returns, mask), weight)
        keep_outputs([last.weight], last.bias, (self.mean, self.std), after)
        self.mean.copy_(after[0])
        self.std.copy_(after[1])


@torch.no_grad()
def keep_outputs(
    weights: Iterable[Tensor], bias: Tensor, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor]
) -> None:
    """Change a linear output layer in place so that output · std + mean stays when (mean, std) moves.

    PopArt (van Hasselt et al. 2016, eq. 9). `weights` are all that is multiplied and added up to the output, `bias` is
    added last. From or to a standard deviation of 0 there is nothing to keep, and nothing is done.
    """
    (old_mean, old_std), (new_mean, new_std) = before, after
    known = (old_std > 0.0) & (new_std > 0.0)
    ratio = torch.where(known, old_std * _inverse(new_std), 1.0)
    shift = torch.where(known, (old_mean - new_mean) * _inverse(new_std), 0.0)
    for weight in weights:
        weight.mul_(ratio)
    bias.mul_(ratio).add_(shift)
