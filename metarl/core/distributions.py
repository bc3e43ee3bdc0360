"""Action distributions as tensors: NamedTuples that stack, index and pass through `torch.func` as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from metarl.core import rng

_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_NEVER = -1e30
"""A logit for probability 0. Unlike -inf it is finite, so that its product with the probability is 0, not NaN."""


class Categorical(NamedTuple):
    """A distribution over 0 … n - 1 with log-probabilities ``(…, n)``; make it with `Categorical.from_logits`."""

    log_probs: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor) -> Categorical:
        # With rows last in memory, torch's CPU kernel processes many at once: up to 20 times as fast for few actions.
        return cls(torch.log_softmax(logits.movedim(-1, 0).contiguous(), dim=0).movedim(0, -1))

    def sample(self, key: Tensor) -> Tensor:
        """Draw an int64 action per key; `key` has the distribution's batch shape."""
        return rng.choice(key, self.log_probs.exp())

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return self.log_probs.gather(-1, action[..., None]).squeeze(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)

    def gradient(self, action: Tensor, by_log_prob: Tensor, by_entropy: Tensor) -> tuple[Tensor]:
        """Differentiate ``(by_log_prob * log_prob(action) + by_entropy * entropy()).sum()`` w.r.t. the field."""
        by_log_probs = (self.log_probs.exp() * (self.log_probs + 1.0)).mul_(-by_entropy[..., None])
        return (by_log_probs.scatter_add_(-1, action[..., None], by_log_prob[..., None]),)

    def kl(self, other: Categorical) -> Tensor:
        """KL(self ‖ other)."""
        return (self.log_probs.exp() * (self.log_probs - other.log_probs)).sum(-1)

    def fisher(self, tangent: Categorical) -> Categorical:
        """Return the Fisher information matrix in the coordinates `log_probs`, diag(p), times `tangent`."""
        return Categorical(self.log_probs.exp() * tangent.log_probs)


class MultiCategorical(NamedTuple):
    """Independent categorical distributions of A components; make it with `MultiCategorical.from_logits`.

    `log_probs` is ``(…, A, N)``, where N is the number of choices of the largest component; smaller components are
    padded with about `_NEVER`. Actions ``(…, A)`` count the choices of each component from 0. Entropies,
    log-probabilities and divergences are summed over the components.
    """

    log_probs: Tensor

    @classmethod
    def from_logits(cls, logits: Tensor, sizes: Sequence[int]) -> MultiCategorical:
        """Make the distributions from the concatenated logits ``(…, sum(sizes))`` of all components."""
        most = max(sizes)
        split = torch.split(logits, list(sizes), dim=-1)
        parts = [F.pad(part, (0, most - part.shape[-1]), value=_NEVER) for part in split]
        return cls(Categorical.from_logits(torch.stack(parts, dim=-2)).log_probs)

    def sample(self, key: Tensor) -> Tensor:
        """Draw int64 actions ``(…, A)``; `key` has the distribution's batch shape."""
        keys = rng.fold(key[..., None], torch.arange(self.log_probs.shape[-2], device=key.device))
        # Rounded probabilities may sum to less than 1, so a draw may be beyond the last choice of its component.
        last = (self.log_probs > 0.5 * _NEVER).sum(-1) - 1
        return torch.minimum(rng.choice(keys, self.log_probs.exp()), last)

    def mode(self) -> Tensor:
        return self.log_probs.argmax(-1)

    def log_prob(self, action: Tensor) -> Tensor:
        return Categorical(self.log_probs).log_prob(action).sum(-1)

    def entropy(self) -> Tensor:
        return Categorical(self.log_probs).entropy().sum(-1)

    def gradient(self, action: Tensor, by_log_prob: Tensor, by_entropy: Tensor) -> tuple[Tensor]:
        """Differentiate ``(by_log_prob * log_prob(action) + by_entropy * entropy()).sum()`` w.r.t. the field."""
        each = [by[..., None].expand(action.shape) for by in (by_log_prob, by_entropy)]
        return Categorical(self.log_probs).gradient(action, *each)

    def kl(self, other: MultiCategorical) -> Tensor:
        """KL(self ‖ other)."""
        return Categorical(self.log_probs).kl(Categorical(other.log_probs)).sum(-1)

    def fisher(self, tangent: MultiCategorical) -> MultiCategorical:
        """Return the Fisher information matrix in the coordinates `log_probs`, diag(p), times `tangent`."""
        return MultiCategorical(self.log_probs.exp() * tangent.log_probs)


class DiagonalGaussian(NamedTuple):
    """Independent normal distributions ``(…, A)``; log_prob, entropy and kl sum over the last dimension."""

    mean: Tensor
    log_std: Tensor  # broadcasts against mean

    def sample(self, key: Tensor) -> Tensor:
        return self.mean + self.log_std.exp() * rng.normal(key, self.mean.shape[-1])

    def mode(self) -> Tensor:
        return self.mean

    def log_prob(self, action: Tensor) -> Tensor:
        z = (action - self.mean) * torch.exp(-self.log_std)
        return (-0.5 * z * z - self.log_std - _HALF_LOG_2PI).sum(-1)

    def entropy(self) -> Tensor:
        return (self.log_std + 0.5 + _HALF_LOG_2PI).expand_as(self.mean).sum(-1)

    def gradient(self, action: Tensor, by_log_prob: Tensor, by_entropy: Tensor) -> tuple[Tensor, Tensor]:
        """Differentiate ``(by_log_prob * log_prob(action) + by_entropy * entropy()).sum()`` w.r.t. the fields."""
        precision = torch.exp(-self.log_std)
        z = (action - self.mean) * precision
        by_log_prob, by_entropy = by_log_prob[..., None], by_entropy[..., None]
        by_log_std = torch.addcmul(by_entropy - by_log_prob, by_log_prob, z * z)
        return z * precision * by_log_prob, by_log_std.sum_to_size(self.log_std.shape)

    def kl(self, other: DiagonalGaussian) -> Tensor:
        """KL(self ‖ other)."""
        ratio = torch.exp(2.0 * (self.log_std - other.log_std))
        distance = (self.mean - other.mean) * torch.exp(-other.log_std)
        return (0.5 * (ratio + distance * distance - 1.0) + other.log_std - self.log_std).sum(-1)

    def fisher(self, tangent: DiagonalGaussian) -> DiagonalGaussian:
        """Return the Fisher information matrix in the coordinates (mean, log_std), times `tangent`."""
        return DiagonalGaussian(torch.exp(-2.0 * self.log_std) * tangent.mean, 2.0 * tangent.log_std)


Distribution = Categorical | MultiCategorical | DiagonalGaussian


def make_distribution(
    outputs: Tensor, log_std: Tensor | None = None, sizes: Sequence[int] | None = None
) -> Distribution:
    """Make the action distribution from a network's outputs ``(…, F)``.

    With `log_std` it is Gaussian. Otherwise outputs are logits: of components with these `sizes`, or of one index.
    """
    if log_std is not None:
        return DiagonalGaussian(outputs, log_std)
    return Categorical.from_logits(outputs) if sizes is None else MultiCategorical.from_logits(outputs, sizes)


__all__ = ["Categorical", "DiagonalGaussian", "Distribution", "MultiCategorical", "make_distribution"]
