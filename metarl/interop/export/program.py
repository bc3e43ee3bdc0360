"""The program that is exported: an acting module with plain tensors as inputs and outputs.

Inputs are a step and the memory, outputs the policy, the greedy action and the memory after the step. Numbers are in
the family's units: the program itself scales observations, actions and rewards. It is deterministic.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarl.core.batch_env import Step
from metarl.core.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical
from metarl.core.family import AnyFamily
from metarl.core.tree import leaves, tree_map
from metarl.core.units import ActionUnits, no_action
from metarl.learning.acting import ActingModule, Policy
from metarl.learning.soft import Point, SquashedGaussian

STEP = Step._fields


class Kind(NamedTuple):
    """A kind of policy: the program's outputs for it, and how to sample an action from them."""

    outputs: tuple[str, ...]
    how: str  # in NumPy, with the names of the outputs


KINDS: dict[str, Kind] = {
    "categorical": Kind(
        ("log_probs",), "action = first + rng.choice(len(p), p=p / p.sum()) with p = np.exp(log_probs), a row's"
    ),
    "multi_categorical": Kind(
        ("log_probs",), "action[i] = first[i] + rng.choice(len(p), p=p / p.sum()) with p = np.exp(log_probs[i])"
    ),
    "gaussian": Kind(("mean", "std"), "action = mean + std * rng.standard_normal(mean.shape)"),
    "squashed_gaussian": Kind(
        ("mean", "std"), "action = centre + unit * np.tanh(mean + std * rng.standard_normal(mean.shape))"
    ),
    "deterministic": Kind((), "nothing to draw: take the output action"),
}


class Program(nn.Module):
    """An acting module whose memory is a tuple of tensors; empty tensors are left out."""

    def __init__(self, acting: ActingModule) -> None:
        super().__init__()
        self.acting = copy.deepcopy(acting).cpu().eval().requires_grad_(False)
        memory = self.acting.initial(1)
        self.memory_names = tuple(name for name, leaf in _named(memory) if leaf.shape[1:].numel())
        self.kind = ""  # of the policy; set by the first call

    def initial(self, rows: int) -> tuple[Tensor, ...]:
        """Return the memory of `rows` trials at their start: zeros."""
        # Copy, since tracing would merge a tensor used in two places into one input.
        return tuple(leaf.clone() for leaf in leaves(self.acting.initial(rows)) if leaf.shape[1:].numel())

    def forward(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, prev_done: Tensor, memory: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Return the policy's parameters, the greedy action, and the memory after the step."""
        given = iter(memory)
        whole = tree_map(
            lambda leaf: next(given) if leaf.shape[1:].numel() else obs.new_zeros(obs.shape[0], 0),
            self.acting.initial(1),
        )
        policy, after = self.acting(Step(obs, prev_action, prev_reward, prev_done), whole)
        self.kind = kind_of(policy)
        kept = [leaf for leaf in leaves(after) if leaf.shape[1:].numel()]
        return (*_numbers(policy, self.acting.actions), *kept)

    def outputs(self) -> tuple[str, ...]:
        """Return the names of the outputs; needs a previous call of the program."""
        return (*KINDS[self.kind].outputs, "action", *(f"next_{name}" for name in self.memory_names))


def example(program: Program, family: AnyFamily, rows: int) -> tuple[Any, ...]:
    """Return example inputs for `family`: a trial's first step, with observations of 0."""
    obs = torch.zeros(rows, *(family.observation_space.shape or ()))
    zeros = torch.zeros(rows)
    return obs, no_action(family.action_space, rows), zeros, zeros.clone(), program.initial(rows)


def kind_of(policy: Policy) -> str:
    """Return the name of a policy's kind, a key of `KINDS`."""
    kinds = {
        Categorical: "categorical",
        MultiCategorical: "multi_categorical",
        DiagonalGaussian: "gaussian",
        SquashedGaussian: "squashed_gaussian",
        Point: "deterministic",
    }
    return kinds[type(policy)]


def policy_of(kind: str, outputs: dict[str, Tensor], actions: ActionUnits) -> Distribution | SquashedGaussian | None:
    """Return the distribution over network actions from a program's outputs; None for a deterministic policy."""
    if kind == "categorical":
        return Categorical(outputs["log_probs"])
    if kind == "multi_categorical":
        return MultiCategorical(outputs["log_probs"])
    if kind == "gaussian":
        return DiagonalGaussian(actions.to_own(outputs["mean"]), (outputs["std"] / actions.unit).log())
    if kind == "squashed_gaussian":
        return SquashedGaussian(outputs["mean"], outputs["std"].log())
    return None


def _numbers(policy: Policy, actions: ActionUnits) -> tuple[Tensor, ...]:
    """Return the parameters of a policy, then its greedy action."""
    if isinstance(policy, Point):
        return (actions.to_family(policy.action),)
    greedy = actions.to_family(policy.mode())
    if isinstance(policy, SquashedGaussian):
        return policy.mean, policy.log_std.exp(), greedy
    if isinstance(policy, DiagonalGaussian):
        std = policy.log_std.exp().expand_as(policy.mean) * actions.unit
        return greedy, std, greedy.clone()
    return policy.log_probs, greedy


def _named(tree: Any, name: str = "") -> list[tuple[str, Tensor]]:
    """Return the tensors of a memory with their names: fields of NamedTuples, indices of plain tuples."""
    if isinstance(tree, Tensor):
        return [(name, tree)]
    fields = getattr(tree, "_fields", range(len(tree)))
    return [
        pair for field, part in zip(fields, tree, strict=True) for pair in _named(part, f"{name}_{field}".strip("_"))
    ]
