"""Reference agents for tabular MDPs: posterior sampling, and planning with the known task."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from metarl.agents.random import FixedAgent, scripted
from metarl.agents.reference.told import told
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory


class Planned(NamedTuple):
    """The memory of a `TabularMDPOracle`."""

    policy: Tensor  # (B, horizon, S) int64: the best action in each state, by step of the episode
    t: Tensor  # (B,) int64: steps made in this episode


class TabularMDPOracle(FixedAgent):
    """Knows the tables of a `TabularMDP`, and plans by finite-horizon dynamic programming (Bellman 1957).

    Its expected return is ``family.oracle(task)``, an upper bound for every agent that has to learn the task.
    """

    def __init__(self, horizon: int = 10, device: torch.device | str = "cpu") -> None:
        super().__init__(device)
        self.horizon = horizon

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        task = told(task)
        value = torch.zeros_like(task.reward_mean[..., 0])
        policy: list[Tensor] = []
        for _ in range(self.horizon):
            q = task.reward_mean + torch.einsum("bsan,bn->bsa", task.transition, value)
            value, best = q.max(-1)
            policy.insert(0, best)
        return Planned(torch.stack(policy, dim=1), torch.zeros(num_tasks, dtype=torch.int64, device=self.device))

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        t = torch.where(step.prev_done > 0.5, 0, memory.t)
        state = step.obs.argmax(1)
        action = memory.policy[torch.arange(len(t), device=t.device), t, state]
        return scripted(action, step), Planned(memory.policy, t + 1)


class Experience(NamedTuple):
    """The steps of an MDP so far, and the plan for this episode. S states, A actions, H steps of an episode."""

    moves: Tensor  # (B, n) int64: the transition (s · A + a) · S + s' of each step; S · A · S if it was not seen
    tries: Tensor  # (B, S · A) float32: visits of each state and action
    total: Tensor  # (B, S · A) float32: sum of their rewards
    plan: Tensor  # (B, H, S) int64: the action to take
    t: Tensor  # (B,) int64: steps made in this episode
    state: Tensor  # (B,) int64: the state before the last action


class PSRL(FixedAgent):
    """Plans each episode for one MDP drawn from the posterior (Strens 2000; Osband et al. 2013).

    The posterior of transitions is Dirichlet(1 + counts); that of mean rewards follows from the prior N(prior_mean, 1)
    and noise of variance 1. The last transition of an episode is not counted, since the agent sees the next start
    instead. The default `prior_mean` 0 is that of Osband's code and gives the 138.1 of RL² (Duan et al. 2016, 10
    episodes). `TabularMDP` draws its mean rewards around 1. Under this true prior, untried actions look better, and the
    agent explores more than pays off in 10 episodes: 133.8.

    With ``num_samples > 1`` it is OPSRL: in each step and state, the plan takes the action whose value is the highest
    in any of the drawn MDPs (Osband & Van Roy 2017, "Why is posterior sampling better than optimism", and its code).
    """

    def __init__(
        self,
        num_states: int = 10,
        num_actions: int = 5,
        horizon: int = 10,
        num_samples: int = 1,
        prior_mean: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(device)
        self.num_states, self.num_actions, self.horizon = num_states, num_actions, horizon
        self.num_samples, self.prior_mean = num_samples, prior_mean

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        whole = torch.zeros(num_tasks, self.num_states * self.num_actions, device=self.device)
        none = torch.zeros(num_tasks, dtype=torch.int64, device=self.device)
        plan = none[:, None, None].expand(num_tasks, self.horizon, self.num_states)
        return Experience(none[:, None][:, :0], whole, whole, plan, none, none)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        new = (step.prev_done > 0.5) | (step.prev_action < 0)
        seen = self._learn(memory, step, new)
        if bool(new.any()):
            plan = torch.where(new[:, None, None], self._plan(seen, key), seen.plan)
            seen = seen._replace(plan=plan, t=torch.where(new, 0, seen.t))
        state = step.obs.argmax(1)
        action = seen.plan[torch.arange(len(state), device=state.device), seen.t, state]
        return scripted(action, step), seen._replace(t=seen.t + 1, state=state)

    def _learn(self, memory: Experience, step: Step, new: Tensor) -> Experience:
        met = memory.state * self.num_actions + step.prev_action  # (B,)
        pairs = torch.arange(memory.tries.shape[1], device=met.device)
        hit = ((met[:, None] == pairs) & (step.prev_action >= 0)[:, None]).to(torch.float32)
        move = torch.where(new, self.num_states * len(pairs), met * self.num_states + step.obs.argmax(1))
        return memory._replace(
            moves=torch.cat([memory.moves, move[:, None]], dim=1),
            tries=memory.tries + hit,
            total=memory.total + hit * step.prev_reward[:, None],
        )

    def _plan(self, seen: Experience, key: Key) -> Tensor:
        """Return the best actions ``(B, H, S)``, by the maximum of the action values over the drawn MDPs."""
        envelope: Tensor | None = None
        for number in range(self.num_samples):
            values = self._action_values(*self._draw(seen, rng.fold(key, number)))
            envelope = values if envelope is None else torch.maximum(envelope, values)
        assert envelope is not None
        return envelope.argmax(-1)

    def _draw(self, seen: Experience, key: Key) -> tuple[Tensor, Tensor]:
        """Draw transition probabilities ``(B, S, A, S)`` and mean rewards ``(B, S, A)`` from the posterior."""
        S, A = self.num_states, self.num_actions
        # A Dirichlet draw is Gamma variates divided by their sum, and Gamma(1 + n) is a sum of 1 + n exponentials: one
        # for the prior and one for every transition seen. The last entry collects the transitions that were not seen.
        weights = rng.exponential(rng.fold(key, 0), S * A * S + 1)
        weights = weights.scatter_add(1, seen.moves, rng.exponential(rng.fold(key, 1), seen.moves.shape[1]))
        weights = weights[:, :-1].reshape(-1, S, A, S)
        precision = 1.0 + seen.tries
        mean = (self.prior_mean + seen.total) / precision + rng.normal(rng.fold(key, 2), S * A) / precision.sqrt()
        return weights / weights.sum(-1, keepdim=True), mean.reshape(-1, S, A)

    def _action_values(self, transition: Tensor, reward_mean: Tensor) -> Tensor:
        """Return the action values of an MDP at each step of an episode, ``(B, H, S, A)``."""
        values = [reward_mean]
        for _ in range(self.horizon - 1):
            later = values[-1].amax(-1)  # (B, S)
            values.append(reward_mean + torch.einsum("bsan,bn->bsa", transition, later))
        return torch.stack(values[::-1], dim=1)


class OPSRL(PSRL):
    """Optimistic posterior sampling: `PSRL` with the best of `num_samples` draws.

    It earns 142.0 ± 0.6 in 10 episodes of `TabularMDP`, and no more with more draws; RL² (Duan et al. 2016) has 144.1.
    """

    def __init__(
        self,
        num_states: int = 10,
        num_actions: int = 5,
        horizon: int = 10,
        num_samples: int = 10,
        prior_mean: float = 0.0,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(num_states, num_actions, horizon, num_samples, prior_mean, device)
