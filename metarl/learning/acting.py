"""Acting modules: an agent's computation for one action as a deterministic module, for export.

`metarl.core.agent.LearningAgent.acting_module` returns one. It contains only the networks that acting needs and the
scales of observations, actions and rewards. Actions are sampled outside the module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from metarl.core.batch_env import Step
from metarl.core.distributions import Distribution
from metarl.core.units import ActionUnits
from metarl.learning.memories import Memory
from metarl.learning.soft import Point, SquashedGaussian

Policy = Distribution | SquashedGaussian | Point
"""A distribution over a network's own actions; a `Point` is a deterministic policy."""


class ActingModule(nn.Module, ABC):
    """Base class of acting modules. `actions` converts the policy's actions to the family's."""

    actions: ActionUnits

    @abstractmethod
    def initial(self, rows: int) -> Any:
        """Return the initial memory of `rows` trials: a NamedTuple of tensors ``(rows, …)``, all zeros, or ``()``."""

    @abstractmethod
    def forward(self, step: Step, memory: Any) -> tuple[Policy, Any]:
        """Return the policy for a step of B rows ``(B, …)``, and the memory after it, with the same shapes."""


def check_fixed_size(title: str, kind: str, memory: Memory) -> None:
    """Raise ValueError for a memory whose state grows with the trial."""
    if memory.grows:
        raise ValueError(
            f"{title} with memory {kind} cannot be exported: its state grows at every step, and an exported program "
            "has a memory of a fixed size; train an agent with memory gru or lstm."
        )
