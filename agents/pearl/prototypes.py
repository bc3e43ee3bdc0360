"""Prototypes: embeddings of training tasks, among which the nearest to a new task is looked up."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.pearl.metric import distances
from metarl.core import rng
from metarl.core.family import Key
from metarl.core.faults.memory import check_memory


class Prototypes(nn.Module):
    """At most `capacity` embeddings of size Z, in buffers of a fixed size, so that checkpoints contain them."""

    embedding: Tensor  # (capacity, Z); zeros beyond `count`
    count: Tensor  # () int64

    def __init__(self, capacity: int, size: int, distance: str) -> None:
        """Allocate the buffers. `distance` names the distance that `nearest` uses.

        Raises ValueError if this machine does not have enough memory.
        """
        super().__init__()
        check_memory("The list of prototypes", float(capacity) * size, "prototypes")
        self.distance = distance
        self.register_buffer("embedding", torch.zeros(capacity, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, embedding: Tensor) -> None:
        """Replace all prototypes by `embedding` ``(M, Z)``, at most `capacity` rows."""
        self.embedding.zero_()[: len(embedding)] = embedding
        self.count.fill_(len(embedding))

    def draw(self, key: Key) -> Tensor:
        """Draw one prototype uniformly for each key ``(N,)``: ``(N, Z)``; zeros if there are none.

        This is posterior sampling under the prior that a new task is one of the training tasks.
        """
        number = (rng.uniform(key, 1)[:, 0] * self.count).to(torch.int64)
        return self.embedding[torch.minimum(number, (self.count - 1).clamp_min(0))]

    def mean(self) -> Tensor:
        """Return the mean of the prototypes, ``(Z,)``; zeros if there are none."""
        return self.embedding.sum(0) / self.count.clamp_min(1)

    def nearest(self, embedding: Tensor) -> Tensor:
        """Return the nearest prototype to each embedding ``(N, Z)``; the embedding itself if there are none."""
        distance = distances(embedding, self.embedding, self.distance)
        there = torch.arange(len(self.embedding), device=distance.device) < self.count
        found = self.embedding[torch.where(there, distance, torch.inf).argmin(1)]
        return torch.where(self.count > 0, found, embedding)
