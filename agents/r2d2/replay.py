"""R2D2's prioritised replay of whole trials, or of overlapping sequences of long ones (Kapturowski et al. 2019, §2.3).

A `TrialRing` stores the trials, and each trial has `parts` sequences. Together with a trial, the ring stores the state
of the memory at the start of the burn-in of every sequence but the first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from metarl.core.batch_env import Step
from metarl.core.family import Key, TaskFamily
from metarl.core.rollout import Rollout
from metarl.core.tree import leaves, tree_map
from metarl.learning import ranks
from metarl.learning.priorities import Drawn, Priorities
from metarl.learning.trial_ring import TrialRing

if TYPE_CHECKING:
    from metarl.agents.r2d2.config import R2D2Config
    from metarl.agents.r2d2.network import QNetwork


class Batch(NamedTuple):
    """Sequences in the form that the update uses: ``(L, B, …)``, including the n later steps that targets need."""

    raw: Tensor  # (L, B, F) encoded steps
    action: Tensor  # (L, B) int64 in the network's own units
    reward: Tensor  # (L, B) in the family's units
    mask: Tensor  # (L, B) 0 for padding
    weight: Tensor  # (B,) importance weights
    burn_in: Any  # (S, B, F) encoded steps before the sequences; () where trials are replayed whole
    state: Any  # the memory's state before the burn-in
    begins: Any  # (B,) bool: the sequence starts a trial, so it has neither burn-in nor state


class Sequences(NamedTuple):
    """Those of a set of sequences that are in this process's part of the ring."""

    slot: Tensor  # (m,) int64: the index of the trial in the ring's columns
    part: Tensor  # (m,) int64: the index of the sequence in the trial
    order: Tensor  # (m,) int64: the index of the sequence in the set over all processes


class Replay:
    """The ring of trials, and the priorities of their sequences."""

    def __init__(self, config: R2D2Config, family: TaskFamily, device: torch.device) -> None:
        """Make an empty replay. Raises ValueError if trials are long and the memory's state cannot be stored."""
        self.ring = TrialRing(config.buffer_size, family)
        steps = self.ring.steps
        self.whole = steps <= config.replay_whole
        if not self.whole and config.memory == "transformer":
            raise ValueError(
                f"agent.replay_whole must be at least {steps}, the steps of a trial, with memory transformer, whose "
                f"state is not stored, got {config.replay_whole}: raise it, or choose another memory."
            )
        self.length = steps if self.whole else config.sequence_length
        self.after = 0 if self.whole else config.n_step
        self.burn_in = 0 if self.whole else config.burn_in
        self.stride = self.length if self.whole else self.length // 2
        self.parts = 1 + math.ceil(max(0, steps - self.length) / self.stride)
        self.importance = config.importance_exponent
        self.priorities = Priorities(config.buffer_size * self.parts, config.priority_exponent, device)

    def add(self, rollout: Rollout, net: QNetwork) -> tuple[Tensor, Sequences]:
        """Add a rollout that `net` played; return the entries of its sequences, and those in this process."""
        ring = self.ring
        ring.add(rollout, {} if self.whole else self._states(rollout, net))
        end = ring.first + len(ring)
        new = ranks.shard(rollout.mask.shape[1]).every
        numbers = torch.arange(max(ring.first, end - new), end, device=rollout.mask.device)
        parts = torch.arange(self.parts, device=numbers.device)
        numbers, part = numbers.repeat_interleave(self.parts), parts.repeat(len(numbers))
        return self._entry(numbers, part), self._found(numbers, part)

    def draw(self, key: Key, n: int) -> tuple[Drawn, Sequences]:
        """Draw n sequences by priority, the same ones in every process; return them, and those in this process."""
        drawn = self.priorities.draw(key, n, self.importance, among=len(self.ring) * self.parts)
        capacity, first = self.ring.capacity, self.ring.first
        place, part = drawn.entry // self.parts, drawn.entry % self.parts
        # The trial at a place is the one whose number is congruent to the place modulo the capacity.
        numbers = first + (place - first) % capacity
        return drawn, self._found(numbers, part)

    def _entry(self, numbers: Tensor, part: Tensor) -> Tensor:
        return numbers % self.ring.capacity * self.parts + part

    def _found(self, numbers: Tensor, part: Tensor) -> Sequences:
        order, slot = self.ring.find(numbers)
        return Sequences(slot, part[order], order)

    def prioritise(self, entry: Tensor, order: Tensor, priority: Tensor) -> None:
        """Set the priorities of entries, from those ``(m,)`` that this process computed and those of all others."""
        every = torch.zeros(len(entry), dtype=torch.float64, device=entry.device)
        every[order] = priority.to(torch.float64)
        self.priorities.put(entry, ranks.total(every))

    def lengths(self, found: Sequences) -> Tensor:
        """Return the number of steps of sequences ``(m,)``, without padding."""
        mask = self.ring.stored["mask"][found.slot]  # (m, T)
        first = (found.part * self.stride)[:, None]
        time = torch.arange(mask.shape[1], device=mask.device)
        return (mask * (time >= first) * (time < first + self.length)).sum(1)

    def batch(self, found: Sequences, weight: Tensor, net: QNetwork) -> Batch:
        """Return sequences with the importance weights `weight` ``(m,)``, encoded by `net`."""
        start = found.part * self.stride
        steps = self._steps(found.slot, start, self.length + self.after)
        raw = self._raw(steps.step, found.slot, start, net)
        action = net.actions.to_own(steps.action).clamp_min(0)  # padding may have no action
        batch = Batch(raw, action, steps.reward, steps.mask, weight.to(steps.reward.dtype), (), (), ())
        if self.whole:
            return batch
        begins = start == 0
        before = (start - self.burn_in).clamp_min(0)
        burn_in = self._raw(self._steps(found.slot, before, self.burn_in).step, found.slot, before, net)
        return batch._replace(burn_in=burn_in, state=self._stored(found, net), begins=begins)

    def _states(self, rollout: Rollout, net: QNetwork) -> dict[str, Tensor]:
        """Return the memory's state during play before the burn-in of all sequences but the first."""
        encoder, rows, played = net.encoder, rollout.mask.shape[1], len(rollout.mask)
        raw, _ = encoder.raw(rollout.step, encoder.initial(rows))
        state, at, states = net.memory.initial(rows, raw.device), 0, []
        for part in range(1, self.parts):
            # A trial that ended earlier does not have this sequence.
            until = min(part * self.stride - self.burn_in, played)
            if until > at:
                state, at = net.after(raw[at:until], state), until
            states.append(leaves(state))
        return {f"state.{n}": torch.stack(each, dim=1) for n, each in enumerate(zip(*states, strict=True))}

    def _stored(self, found: Sequences, net: QNetwork) -> Any:
        """Return the stored states; for the first sequence of a trial, which needs none, an arbitrary one."""
        earlier = (found.part - 1).clamp_min(0)
        row = torch.arange(len(earlier), device=earlier.device)
        numbers = iter(range(len(leaves(net.memory.initial(1)))))
        return tree_map(
            lambda leaf: self.ring.noted(f"state.{next(numbers)}", found.slot)[row, earlier], net.memory.initial(1)
        )

    def _steps(self, slot: Tensor, start: Tensor, length: int) -> Played:
        """Return `length` steps of each trial from the step `start` ``(m,)`` on, padded at the end of the trial."""
        stored, steps = self.ring.stored, self.ring.steps
        time = start[:, None] + torch.arange(length, device=start.device)
        there, rows = (time < steps).T, slot[:, None]

        def part(name: str) -> Tensor:
            column = stored[name]
            if self.whole:
                return column.index_select(0, slot).transpose(0, 1)
            return column[rows, time.clamp_max(steps - 1)].transpose(0, 1)

        step = Step(*(part(f"step.{name}") for name in Step._fields))
        mask = part("mask") * there
        return Played(step, part("acted.action"), part("outcome.reward"), mask)

    def _raw(self, step: Step, slot: Tensor, start: Tensor, net: QNetwork) -> Tensor:
        """Encode consecutive steps of trials, the first of which is step `start`."""
        encoder = net.encoder
        last_obs = encoder.initial(len(slot))
        if encoder.last_size and not self.whole:
            before = self.ring.stored["step.obs"][slot, (start - 1).clamp_min(0)]
            last_obs = encoder.scaled(before, 1) * (start > 0)[:, None]
        return encoder.raw(step, last_obs)[0]


class Played(NamedTuple):
    """Steps of trials in the ring, ``(L, m, …)``."""

    step: Step
    action: Tensor
    reward: Tensor
    mask: Tensor
