"""Building blocks of soft actor-critic (Haarnoja et al. 2018) and TD3 (Fujimoto et al. 2018).

They are squashed Gaussians, the choices over which a loss takes the expectation, batched MLPs, and target networks.
Actions are in the units of `metarl.core.units.ActionUnits`: a Box is [-1, 1] in every dimension.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarl.core import rng
from metarl.core.distributions import Categorical, DiagonalGaussian
from metarl.fast.twins import twin
from metarl.learning.nets import linear, tanh

LOG_STD = -20.0, 2.0
"""Bounds of a squashed Gaussian's log standard deviation, before squashing (Haarnoja et al. 2018)."""


LAST = 3e-3
"""Bound of the last layer's initial weights, so that values start near 0 and policies near the centre or uniform."""


class Choices(NamedTuple):
    """The K actions over which a loss takes the expectation at each step.

    A sampled action has K = 1 and probability 1. With Discrete actions, all K actions are included with their
    probabilities.
    """

    action: Tensor | None  # (…, A), the sampled action; None: all actions
    prob: Tensor  # (…, K)
    log_prob: Tensor  # (…, K); 0 for a deterministic action

    def until(self, end: int) -> Choices:
        """Return the choices ``(T, …)`` of the steps before `end`."""
        return Choices(None if self.action is None else self.action[:end], self.prob[:end], self.log_prob[:end])

    def entropy(self) -> Tensor:
        """Return the entropy ``(…)``; for a sampled action it is an unbiased estimate."""
        return -(self.prob * self.log_prob).sum(-1)


class SquashedGaussian(NamedTuple):
    """The distribution of tanh(u) for normal u with independent dimensions: actions ``(…, A)`` in (-1, 1)."""

    mean: Tensor  # of u
    log_std: Tensor  # of u

    @classmethod
    def from_outputs(cls, outputs: Tensor) -> SquashedGaussian:
        """Make the distributions from a network's outputs ``(…, 2 A)``: means, then log standard deviations."""
        mean, log_std = outputs.chunk(2, dim=-1)
        return cls(mean, log_std.clamp(*LOG_STD))

    def draw(self, key: Tensor) -> tuple[Tensor, Tensor]:
        """Draw actions ``(…, A)`` with gradients (reparametrisation); return them and their log-densities."""
        u = self.mean + self.log_std.exp() * rng.normal(key, self.mean.shape[-1])
        return tanh(u), self.log_prob_before(u)

    def choices(self, key: Tensor) -> Choices:
        """Return one drawn action."""
        action, log_prob = self.draw(key)
        return Choices(action, torch.ones_like(log_prob)[..., None], log_prob[..., None])

    def mode(self) -> Tensor:
        """Return the squashed mean."""
        return tanh(self.mean)

    def log_prob_before(self, u: Tensor) -> Tensor:
        """Return the log-density of the action tanh(u), computed from u to keep precision near the bounds."""
        # log(1 - tanh(u)²) = 2 (log 2 - u - log(1 + exp(-2 u)))
        squashing = 2.0 * (math.log(2.0) - u - F.softplus(-2.0 * u))
        return DiagonalGaussian(self.mean, self.log_std).log_prob(u) - squashing.sum(-1)


class Point(NamedTuple):
    """A deterministic policy: one action ``(…, A)`` in [-1, 1], with added noise for exploration."""

    action: Tensor

    def draw(self, key: Tensor, std: float, limit: float = math.inf) -> tuple[Tensor, Tensor]:
        """Add normal noise, clipped to ±`limit` (target smoothing), clip the action, and return it and a log-density.

        The log-density is that of the noise; it is meaningless at the bounds.
        """
        noise = (std * rng.normal(key, self.action.shape[-1])).clamp(-limit, limit)
        action = (self.action + noise).clamp(-1.0, 1.0)
        log_std = torch.full_like(self.action, max(std, 1e-6)).log()
        return action, DiagonalGaussian(self.action, log_std).log_prob(action)

    def choices(self, action: Tensor | None = None) -> Choices:
        """Return the policy's action, or `action` instead."""
        action = self.action if action is None else action
        one = torch.ones_like(action[..., :1])
        return Choices(action, one, torch.zeros_like(one))


def all_choices(policy: Categorical) -> Choices:
    """Return all actions of a categorical policy with their probabilities (SAC-Discrete, Christodoulou 2019)."""
    return Choices(None, policy.log_probs.exp(), policy.log_probs)


class BatchedMLP(nn.Module):
    """A batch of `number` MLPs with ReLU units, whose input has several parts, such as (memory, step, action).

    `begin` computes the first layer's sum over some parts of the input, and `finish` the rest. A part that does not
    change while another one does is thus multiplied only once. With `frozen` gradients reach only the inputs, not the
    parameters.
    """

    def __init__(self, number: int, inputs: Sequence[int], hidden_sizes: Sequence[int], outputs: int) -> None:
        """Make the MLPs. Raises ValueError without a hidden layer."""
        super().__init__()
        if not hidden_sizes:
            raise ValueError("A BatchedMLP needs at least one hidden layer.")
        self.number = number
        bound = sum(inputs) ** -0.5
        self.parts = nn.ParameterList(_uniform((number * hidden_sizes[0], size), bound) for size in inputs)
        self.bias = _uniform((number * hidden_sizes[0],), bound)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = (*hidden_sizes, outputs)
        for n, (before, after) in enumerate(itertools.pairwise(sizes), start=2):
            bound = before**-0.5 if n < len(sizes) else LAST
            self.weights.append(_uniform((number, after, before), bound))
            self.biases.append(_uniform((number, after, 1), bound))

    def begin(self, *inputs: Tensor | None) -> Tensor:
        """Return the first layer's sum ``(…, number · H)`` over the given parts of the input ``(…, F)``.

        The parts are in the order of the constructor; None and missing parts are left out, and `finish` adds them.
        """
        first, *others = [(part, x) for part, x in zip(self.parts, inputs, strict=False) if x is not None]
        total = linear(first[1], first[0], self.bias)
        for part, x in others:
            total = total + linear(x, part)
        return total

    def finish(self, total: Tensor, last: Tensor | None = None, frozen: bool = False) -> Tensor:
        """Return the outputs ``(number, …, outputs)``; `last` ``(…, F)`` is the last input part, if it was left out."""

        def held(parameters: Iterable[Tensor]) -> list[Tensor]:
            return [parameter.detach() if frozen else parameter for parameter in parameters]

        of_last, rows = None, None
        if last is not None:
            (of_last,), rows = held([self.parts[-1]]), last.flatten(0, -2)
        outputs = hidden_layers(total.flatten(0, -2), rows, of_last, held(self.weights), held(self.biases))
        return torch.unflatten(outputs, 1, total.shape[:-1])


@twin("hidden_layers")
def hidden_layers(
    total: Tensor, last: Tensor | None, of_last: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> Tensor:
    """Return the outputs ``(N, rows, outputs)`` of N MLPs, given the sums of their first layers ``(rows, N · H)``.

    If there is a `last` ``(rows, F)``, its product with `of_last` ``(N · H, F)`` is added to the sums. For each later
    layer, `weights` are ``(N, out, in)`` and `biases` ``(N, out, 1)``.
    """
    if last is not None and of_last is not None:
        total = torch.addmm(total, last, of_last.t())
    # (N, rows, H): a view, since the product accepts strided rows.
    x = torch.unflatten(F.relu(total, inplace=last is not None), 1, (len(weights[0]), -1)).transpose(0, 1)
    for n, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        x = torch.baddbmm(bias.mT, F.relu(x, inplace=True) if n else x, weight.mT)
    return x


def _uniform(shape: Sequence[int], bound: float) -> nn.Parameter:
    """Draw a parameter uniformly from ±`bound`."""
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


@torch.no_grad()
def polyak(target: Iterable[Tensor], online: Iterable[Tensor], tau: float) -> None:
    """Move target parameters towards the online ones by `tau` in [0, 1], in place (Polyak averaging)."""
    torch._foreach_lerp_(list(target), list(online), tau)
