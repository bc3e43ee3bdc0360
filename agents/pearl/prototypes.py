"""Prototypes: the embeddings of some training tasks, among which a new task finds its nearest one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from metarl.agents.pearl.metric import distances
from metarl.core import rng
from metarl.core.family import Key
from metarl.core.faults.memory import check_memory


class Prototypes(nn.Module):
    """At most `capacity` embeddings of Z numbers, in buffers of a fixed size, so that the checkpoint has them."""

    embedding: Tensor  # (capacity, Z); zeros beyond `count`
    count: Tensor  # () int64

    def __init__(self, capacity: int, size: int, distance: str) -> None:
        """Make room. `distance` names the distance by which `nearest` chooses.

        Raises ValueError, one sentence, if this machine has not the memory.
        """
        super().__init__()
        check_memory("The list of prototypes", float(capacity) * size, "prototypes")
        self.distance = distance
        self.register_buffer("embedding", torch.zeros(capacity, size))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def put(self, embedding: Tensor) -> None:
        """Replace all prototypes by these ``(M, Z)``, at most `capacity`."""
        self.embedding.zero_()[: len(embedding)] = embedding
        self.count.fill_(len(embedding))

    def draw(self, key: Key) -> Tensor:
        """Draw one prototype for each key ``(N,)``, all with the same probability: ``(N, Z)``; zeros if there is none.

        It is posterior sampling by the prior that a new task is one of those of training.
        """
        number = (rng.uniform(key, 1)[:, 0] * self.count).to(torch.int64)
        return self.embedding[torch.minimum(number, (self.count - 1).clamp_min(0))]

    def mean(self) -> Tensor:
        """Return the mean of the prototypes, ``(Z,)``; zeros if there is none."""
        return self.embedding.sum(0) / self.count.clamp_min(1)

    def nearest(self, embedding: Tensor) -> Tensor:
        """Return for each embedding ``(N, Z)`` its nearest prototype; the embedding itself while there is none."""
        distance = distances(embedding, self.embedding, self.distance)
        there = torch.arange(len(self.embedding), device=distance.device) < self.count
        found = self.embedding[torch.where(there, distance, torch.inf).argmin(1)]
        return torch.where(self.count > 0, found, embedding)
