"""Networks: linear layers, MLPs, and feed-forward policies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core.distributions import Distribution, make_distribution
from metarl.core.units import ActionUnits, action_size, inverse
from metarl.fast.twins import twin
from metarl.learning import ranks
from metarl.learning.estimators import pooled, spread


def mlp(sizes: list[int], activation: type[nn.Module] = nn.Tanh) -> nn.Sequential:
    """Make linear layers of the given sizes, with `activation` between them but not after the last."""
    layers: list[nn.Module] = []
    for n, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        layers += [activation()] if n else []
        layers += [nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


@twin("linear")
def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``x (…, F)`` times `weight` (G, F) transposed, plus `bias` (G,): ``(…, G)``."""
    return F.linear(x, weight, bias)


class Head(nn.Linear):
    """A linear output layer with orthogonal weights of this gain and zero bias (Andrychowicz et al. 2021, §3.2)."""

    def __init__(self, inputs: int, outputs: int, gain: float) -> None:
        super().__init__(inputs, outputs)
        nn.init.orthogonal_(self.weight, gain)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


@twin("tanh")
def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent."""
    return torch.tanh(x)


class Tanh(nn.Module):
    """The hyperbolic tangent as a module."""

    def forward(self, x: Tensor) -> Tensor:
        return tanh(x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": Tanh, "relu": nn.ReLU, "elu": nn.ELU, "silu": nn.SiLU}


class MLPPolicy(nn.Module):
    """An MLP from features ``(…, F)`` to an action distribution, without memory.

    For a Discrete space the distribution is categorical over 0 … n - 1, and for a MultiDiscrete one categorical for
    each component. For a Box it is Gaussian, in units of half the range around the centre, with a standard deviation of
    at least `min_std` in these units that does not depend on the state. `head.actions` converts actions to the
    family's. `head` has the parameters of the last layer, including the standard deviation; `body` has all others.
    """

    def __init__(
        self,
        inputs: int,
        action_space: gymnasium.Space[Any],
        hidden_sizes: list[int],
        activation: str = "tanh",
        init_std: float = 1.0,
        min_std: float = 1e-2,
    ) -> None:
        super().__init__()
        self.activation = activation
        sizes = [inputs, *hidden_sizes]
        hidden = [mlp(sizes, ACTIVATIONS[activation]), ACTIVATIONS[activation]()] if hidden_sizes else []
        self.body = nn.Sequential(*hidden)
        self.head = PolicyHead(sizes[-1], action_space, init_std, min_std)
        for name, parameter in self.named_parameters():
            if name.endswith("weight"):
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Distribution:
        out: Distribution = self.head(self.body(x))
        return out

    def of_tasks(self, params: Mapping[str, Tensor], x: Tensor) -> Distribution:
        """Return the policies of N tasks, given parameters ``(N, …)`` by name and features ``(N, M, F)``.

        This equals ``vmap(functional_call)`` over the tasks, but without its overhead per operation, and with the bias
        added in the matrix product.
        """
        x = x.mT  # with samples last in memory, all products of the backward passes are contiguous, too
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
    """Apply each task's linear layer, from features ``(N, F, M)`` to ``(N, G, M)``."""
    return torch.baddbmm(params[f"{name}.bias"][..., None], params[f"{name}.weight"], x)


class PolicyHead(nn.Module):
    """The last layer of an `MLPPolicy`."""

    def __init__(
        self,
        inputs: int,
        action_space: gymnasium.Space[Any],
        init_std: float,
        min_std: float,
    ) -> None:
        super().__init__()
        outputs = action_size(action_space)
        self.linear = nn.Linear(inputs, outputs)
        self.min_log_std = math.log(min_std)
        self.log_std: nn.Parameter | None = None
        if isinstance(action_space, gymnasium.spaces.Box):
            self.log_std = nn.Parameter(torch.full((outputs,), init_std).log())
        self.actions = ActionUnits(action_space)

    def forward(self, x: Tensor) -> Distribution:
        return self.distribution(self.linear(x), self.log_std)

    def distribution(self, out: Tensor, log_std: Tensor | None) -> Distribution:
        """Make the distribution from the layer's output ``(…, A)`` and `log_std`, which broadcasts to it."""
        spread = None if log_std is None else log_std.clamp_min(self.min_log_std).expand_as(out)
        return make_distribution(out, spread, self.actions.sizes)


class ValueNetwork(nn.Module):
    """A value function of (features, time in the episode), for returns standardised by a running mean and std.

    When mean or std change, the last layer is corrected to preserve all values (PopArt, van Hasselt et al. 2016).
    Before the first returns every value is 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, inputs: int, hidden: int = 64) -> None:
        super().__init__()
        self.body = mlp([inputs + 1, hidden, hidden, 1])
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("std", torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Return the values ``(…)`` for features ``(…, F)`` and time ``(…)``."""
        value: Tensor = self.body(torch.cat([x, time[..., None]], dim=-1)).squeeze(-1)
        return value * self.std + self.mean

    def loss(self, x: Tensor, time: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
        """Return this rank's part of the mean squared error on standardised returns, a scalar; the parts add up."""
        error = ((self(x, time) - returns) * inverse(self.std)) ** 2
        loss: Tensor = (error * mask).sum() / ranks.total(mask.sum()).clamp_min(1.0)
        return loss

    @torch.no_grad()
    def follow(self, returns: Tensor, mask: Tensor, weight: float) -> None:
        """Move the running mean and std towards those of `returns` by `weight` in [0, 1]."""
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
    """Correct a linear output layer in place, so that output · std + mean is preserved when (mean, std) changes.

    This is PopArt (van Hasselt et al. 2016, eq. 9). The output is the sum of products with `weights`, plus `bias`. With
    a standard deviation of 0 before or after, nothing changes.
    """
    (old_mean, old_std), (new_mean, new_std) = before, after
    known = (old_std > 0.0) & (new_std > 0.0)
    ratio = torch.where(known, old_std * inverse(new_std), 1.0)
    shift = torch.where(known, (old_mean - new_mean) * inverse(new_std), 0.0)
    for weight in weights:
        weight.mul_(ratio)
    bias.mul_(ratio).add_(shift)
