"""What all agents' configurations share: the base dataclass, and schedules over training."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from metarl.family import TaskFamily
from metarl.rollout import Agent

Schedule = float | list[tuple[float, float]]
"""A number, or points ``[[progress, value], …]`` with progress from 0 (start) to 1 (end), joined by straight lines."""


def at(schedule: Schedule, progress: float) -> float:
    """The value of a schedule when the share `progress` of training is done; constant beyond its ends."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    earlier = schedule[0]
    for later in schedule:
        if progress < later[0]:
            share = (progress - earlier[0]) / (later[0] - earlier[0]) if later[0] > earlier[0] else 0.0
            return earlier[1] + max(share, 0.0) * (later[1] - earlier[1])
        earlier = later
    return earlier[1]


def check_schedule(name: str, schedule: Schedule, low: float, high: float) -> None:
    """Raise ValueError unless all values of the schedule lie in [low, high] and its points are in order."""
    points = [(0.0, schedule)] if isinstance(schedule, (int, float)) else schedule
    if not points or any(not low <= value <= high for _, value in points):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {schedule}.")
    if any(b[0] < a[0] for a, b in itertools.pairwise(points)):
        raise ValueError(f"{name}'s points must be in the order of training progress, got {schedule}.")


@dataclass
class AgentConfig(ABC):
    """Base of every agent's configuration. A subclass adds its fields and says how to build the agent."""

    meta_batch_size: int = 512
    """Tasks of one iteration."""

    name: ClassVar[str] = "agent"

    @abstractmethod
    def build(self, family: TaskFamily, seed: int, device: torch.device) -> LearningAgent:
        """A fresh agent for the spaces of `family`, initialised from `seed`, on `device`."""


class LearningAgent(Agent):
    """An agent that can be saved: what `metarl.checkpoint` needs beside the four verbs."""

    config: AgentConfig
    family: TaskFamily
    device: torch.device
    own_loop: ClassVar[bool] = False
    """Whether `update` plays for itself, in the loop of another library. It is then given no trial, and reports the
    environment steps that it took as the metric ``env_steps``, beside ``train/return`` and what else it knows."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that training changes (parameters, optimiser, counters) as a flat dictionary of tensors."""
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue from a `state_dict`."""
        raise NotImplementedError

    def export(self, folder: Path) -> None:
        """Write to `folder`, beside a checkpoint, what another library opens the agent with; by default nothing."""


def optimizer_state(optimizer: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """An Adam-like optimiser's state as ``optimizer.<parameter>.<quantity>`` tensors; `names` in parameter order."""
    state = optimizer.state_dict()["state"]
    return {
        f"optimizer.{names[index]}.{quantity}": torch.as_tensor(value)
        for index, quantities in state.items()
        for quantity, value in quantities.items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, names: list[str], state: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` gave; entries of other names are passed over."""
    full = optimizer.state_dict()
    full["state"] = {}
    for index, name in enumerate(names):
        prefix = f"optimizer.{name}."
        quantities = {k.removeprefix(prefix): v.clone() for k, v in state.items() if k.startswith(prefix)}
        if quantities:
            full["state"][index] = quantities
    optimizer.load_state_dict(full)


class FlatAdam:
    """Adam with the gradient's norm clipped, on all parameters of a module as one vector.

    A step is a handful of operations, however many parameters there are: on small networks Adam's bookkeeping and a
    norm per parameter cost as much as a product. The parameters themselves stay where they are.
    """

    def __init__(self, module: nn.Module, lr: float, eps: float = 1e-5) -> None:
        self.names, self.parameters = zip(*module.named_parameters(), strict=True)
        self.vector = nn.Parameter(self._flat([p.detach() for p in self.parameters]))
        cuda = self.vector.is_cuda  # there the step is part of a recording, which reads the rate from a tensor
        rate = torch.tensor(lr, device=self.vector.device) if cuda else lr
        self.adam = torch.optim.Adam([self.vector], lr=rate, eps=eps, fused=True, capturable=cuda)

    def set_lr(self, lr: float) -> None:
        (group,) = self.adam.param_groups
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr

    def zero_grad(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self, max_grad_norm: float) -> Tensor:
        """One step along the parameters' gradients, which are scaled down to the norm; returns theirs before that."""
        with torch.no_grad():
            gradient = self._flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters])
            norm = torch.linalg.vector_norm(gradient)
            self.vector.grad = gradient.mul_((max_grad_norm / (norm + 1e-6)).clamp_max(1.0))
            self.vector.copy_(self._flat(self.parameters))
            self.adam.step()
            torch._foreach_copy_(self.parameters, self._parts(self.vector))
        return norm

    def state_dict(self) -> dict[str, Tensor]:
        """As ``optimizer.<parameter>.<quantity>`` tensors."""
        state = self.adam.state[self.vector]
        found: dict[str, Tensor] = {}
        for quantity, value in state.items():
            parts = self._parts(value) if value.ndim else [value] * len(self.names)
            found |= {f"optimizer.{name}.{quantity}": part for name, part in zip(self.names, parts, strict=True)}
        return found

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave; a parameter that is not in it starts from zeros."""
        if not (steps := [value for name, value in state.items() if name.endswith(".step")]):
            return
        full: dict[str, Tensor] = {"step": torch.stack(steps).max()}
        for quantity in ("exp_avg", "exp_avg_sq"):
            named = zip(self.names, self.parameters, strict=True)
            full[quantity] = self._flat(
                [state.get(f"optimizer.{name}.{quantity}", torch.zeros_like(p)) for name, p in named]
            )
        self.adam.load_state_dict(self.adam.state_dict() | {"state": {0: full}})

    def _parts(self, vector: Tensor) -> list[Tensor]:
        sizes = [p.numel() for p in self.parameters]
        return [part.view_as(p) for part, p in zip(vector.split(sizes), self.parameters, strict=True)]

    @staticmethod
    def _flat(tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([tensor.reshape(-1) for tensor in tensors])
