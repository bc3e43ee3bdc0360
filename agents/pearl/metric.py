"""Losses that train an encoder on distances: contexts of one task should be close, those of different tasks far apart.

They need neither critics nor a prior: in FOCAL (Li, Yang & Luo 2021) the encoder learns from such a loss alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from metarl.agents.pearl.config import PEARLConfig

EPSILON = 0.1
"""The ε₀ that bounds FOCAL's repulsion where embeddings coincide, with the value of its published code."""


class Pairs(NamedTuple):
    """The pairs of a gradient step: R of P contexts, each paired with all P. With a single process, R is P."""

    context: Tensor  # (P, C, F) encoded transitions
    rows: Tensor  # (R,) int64: the indices of the R contexts
    same: Tensor  # (R, P) weights of pairs of one task; sum to 1 over all ranks; 0 for a context with itself
    other: Tensor  # (R, P) weights of pairs of different tasks; sum to 1 over all ranks


def weights(tasks: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights ``(R, P)`` of pairs of one task and of pairs of different tasks, given P task indices.

    If there are no pairs of a kind, its weights are 0.
    """
    same = tasks[:, None] == tasks
    other = ~same
    same = same.clone().fill_diagonal_(False)
    of_same, of_other = ((kind / kind.sum().clamp_min(1))[rows] for kind in (same, other))
    return of_same, of_other


def distances(x: Tensor, y: Tensor, kind: str) -> Tensor:
    """Return the distances ``(R, P)`` of embeddings ``(R, Z)`` and ``(P, Z)``.

    euclidean: between the embeddings. cosine: between their directions, whose square is 2 (1 - cos), from 0 to 4.
    """
    if kind == "cosine":
        x, y = F.normalize(x, dim=-1), F.normalize(y, dim=-1)
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def contrastive_loss(distance: Tensor, same: Tensor, other: Tensor, repulsion: float, power: float) -> Tensor:
    """Attract by squared distances and repel by inverse powers of them (FOCAL, Li, Yang & Luo 2021, equation 8).

    The mean of d² over pairs of one task, plus `repulsion` (β) times the mean of 1 / (d^n + ε₀) over the others, with
    n = `power`. All tensors are ``(R, P)``; returns a scalar.
    """
    return (same * distance**2).sum() + repulsion * (other / (distance**power + EPSILON)).sum()


def siamese_loss(distance: Tensor, same: Tensor, other: Tensor, margin: float) -> Tensor:
    """Attract by squared distances, and repel pairs within the margin (Hadsell, Chopra & LeCun 2006, section 2).

    The mean of ½ d² over pairs of one task, plus that of ½ max(0, margin - d)² over the others. All tensors are
    ``(R, P)``; returns a scalar.
    """
    return 0.5 * (same * distance**2).sum() + 0.5 * (other * F.relu(margin - distance) ** 2).sum()


def embedding_loss(config: PEARLConfig, embedding: Tensor, pairs: Pairs) -> Tensor:
    """Return this rank's part of the loss that `config` names, given the embeddings ``(P, Z)`` of all contexts."""
    distance = distances(embedding[pairs.rows], embedding, config.distance)
    if config.embedding_loss == "contrastive":
        return contrastive_loss(distance, pairs.same, pairs.other, config.repulsion, config.power)
    return siamese_loss(distance, pairs.same, pairs.other, config.margin)
