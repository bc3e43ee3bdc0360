"""Rounds and trials of an agent in an environment: `collect` plays one round, `run_trial` a whole trial.

A trial consists of `rounds` rollouts on fixed tasks, with `agent.adapt` between them. RL² plays one round of K episodes
and adapts in its memory while it acts; MAML plays ``inner_steps + 1`` rounds and adapts by a gradient step between
them. Training, evaluation and baselines all use this loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step, make_env
from metarl.core.checks import check_kind, same_spaces
from metarl.core.errors import WrongResult, add_place, short, whole_number
from metarl.core.family import AnyFamily, Key, Task
from metarl.core.faults.diagnosis import check_round, explained
from metarl.core.faults.given import check_is_agent, check_is_family, wrong_acted
from metarl.core.faults.results import shown_task
from metarl.core.tree import features, num_rows, stack, take

Memory = Any  # any pytree: recurrent state; per-task parameters; ()


class Acted(NamedTuple):
    """An action of an agent, with its log-probability and the critic's value."""

    action: Tensor  # (B,) or (B, A) int64, or (B, A) float32
    log_prob: Tensor  # (B,) float32; for a Box the log-density, in the agent's own action units
    value: Tensor  # (B,) float32: the critic's estimate before the action; 0 for agents without one


class Rollout(NamedTuple):
    """One round of a batch of rows. Every tensor except those of `task` is ``(T, B, …)``, time first."""

    step: Step
    acted: Acted
    outcome: Outcome
    mask: Tensor  # (T, B) float32: 0 after a row's last episode of the trial
    task: Task  # (B, …) the tasks of the rows. Evaluators, oracles and critics may use them; a learner's policy may not
    target: Any = ()  # like acted.action: the correct actions, if the agent's protocol asks for them


class TrialProtocol(NamedTuple):
    """The form of an agent's trials."""

    rounds: int = 1
    episodes: int | None = None  # episodes per round; None: the family's episodes_per_trial
    envs_per_task: int = 1  # rows that play the same task in parallel
    test_rounds: int | None = None  # rounds in evaluations; None: as in training
    test_envs_per_task: int | None = None  # rows per task in evaluations; None: as in training
    targets: bool = False  # rollouts contain the family's correct actions, for a supervised loss
    test_greedy: bool = False  # evaluations are greedy by default
    noises: int | None = None  # in training: noise streams per task; row r of a task uses stream r % noises

    def test(self) -> TrialProtocol:
        """Return the protocol of an evaluation."""
        rounds = self.rounds if self.test_rounds is None else self.test_rounds
        each = self.envs_per_task if self.test_envs_per_task is None else self.test_envs_per_task
        return TrialProtocol(rounds, self.episodes, each, targets=self.targets, test_greedy=self.test_greedy)


@runtime_checkable
class Agent(Protocol):
    """An agent: `begin` a trial, `act`, `adapt` between rounds, `update` on a trial. Agents inherit the defaults."""

    protocol: TrialProtocol
    step_name: str = "gradient step"
    """Name of one `adapt` between two rounds of an evaluation, for labels such as "3 gradient steps"."""
    costly: bool = False
    """True if the agent is so slow that comparisons should play fewer tasks."""

    def begin(self, num_tasks: int, task: Task | None = None) -> Memory:
        """Return the memory of `num_tasks` new trials. `task` (num_tasks rows) is only for oracles."""

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        """Choose actions for ``num_tasks × envs_per_task`` rows; `key` is ``(B,)``."""

    def adapt(self, memory: Memory, rollout: Rollout) -> Memory:
        """Learn from a round; return the memory for the next one."""

    def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
        """Do one meta-training step on a trial; return metrics. `progress` in [0, 1) is the fraction of training."""


@runtime_checkable
class Believer(Protocol):
    """An agent that can map where it expects reward, for pictures of beliefs."""

    def goal_map(self, memory: Memory, points: Tensor) -> Tensor:
        """Return how much reward ``(B, P)`` the agent expects when it observes each of `points` ``(P, D)``.

        It may be the expected reward or the probability of the goal, in any unit: greater is better. `memory` is the
        memory after `act`, and must depend only on the steps passed to `act`.
        """


@runtime_checkable
class Embedder(Protocol):
    """An agent that adapts in rounds and represents the task by a vector, for pictures of embeddings."""

    def task_embedding(self, memory: Memory) -> Tensor:
        """Return the embeddings of the tasks, float32 ``(N, Z)``, for a memory that `adapt` returned."""


def collect(
    agent: Agent,
    memory: Memory,
    env: BatchEnv,
    key: Key,
    greedy: bool = False,
    first_row: int = 0,
    watch: Callable[[BatchEnv], None] | None = None,
) -> tuple[Rollout, Memory]:
    """Play a round until every row has finished its episodes.

    `key` is a scalar, and the agent's draws in row i depend on ``fold(key, first_row + i)`` and the step; or it is
    ``(B,)``, one key per row. The environment has its own key. `watch` is called after each step. Returns the rollout
    and the memory after it. Raises WrongResult if the family or the agent returns wrong types or shapes.
    """
    check_is_agent(agent)
    if not isinstance(env, BatchEnv):
        raise ValueError(f"env must be a BatchEnv(family, task, key), got {short(env)}.")
    rng.check_is_key(key)
    numbers = torch.arange(first_row, first_row + env.num_envs, device=key.device)
    rows = key if key.ndim else rng.fold(key, numbers)
    steps, acts, outcomes, masks = list[Step](), list[Acted](), list[Outcome](), list[Tensor]()
    targets = list[Tensor]()
    with explained(env, steps, acts, outcomes):
        step = env.reset()
        while not env.all_done():
            masks.append(env.alive)
            steps.append(step)
            returned = agent.act(memory, step, rng.fold(rows, len(masks)), greedy)
            if not acts and (sentence := wrong_acted(agent, returned, env.family.action_space, env.num_envs)):
                raise WrongResult(sentence)
            acted, memory = returned
            acts.append(acted)
            if agent.protocol.targets:
                targets.append(_target(env))
            outcome, step = env.step(acted.action)
            outcomes.append(outcome)
            if watch is not None:
                watch(env)
        mask = torch.stack(masks).to(torch.float32)
        target = torch.stack(targets) if targets else ()
        rollout = Rollout(stack(steps), stack(acts), stack(outcomes), mask, env.task, target)
        check_round(env, steps, acts, outcomes, rollout)
    return rollout, memory


def _target(env: BatchEnv) -> Tensor:
    """Return the correct actions in the states of all rows. Raises ValueError if the family has none."""
    target = env.family.target(env.task, env.state)
    if target is None:
        raise ValueError(no_target(env.family))
    return target


class Round(NamedTuple):
    """One round of a trial: the rollout to evaluate, and the rollout to learn from."""

    played: Rollout  # the rollout to evaluate, greedy on request
    learned: Rollout  # the rollout for `adapt`, always with sampled actions; the same one unless `played` is greedy
    memory: Memory  # after `learned`


def run_trial(
    agent: Agent,
    family: AnyFamily,
    task: Task,
    key: Key,
    *,
    rounds: int | None = None,
    episodes: int | None = None,
    envs_per_task: int | None = None,
    first_task: int = 0,
) -> list[Rollout]:
    """Play a trial of `agent` on `task` (N tasks): one rollout per round, N × envs_per_task rows, task-major.

    The options are those of `play_rounds`. Raises ValueError for tasks of another family, for an agent made for other
    spaces, and for an invalid family or key. Raises TypeError for an invalid agent.
    """
    check_is_agent(agent)
    check_is_family(family)
    rng.check_is_key(key)
    same_spaces(agent, family)
    check_kind(family, task)
    if not num_rows(task):
        raise ValueError("A trial needs at least one task, got none.")
    for name, number in (("rounds", rounds), ("episodes", episodes), ("envs_per_task", envs_per_task)):
        if number is not None:
            whole_number(name, number)
    trial = play_rounds(
        agent, family, task, key, rounds=rounds, episodes=episodes, envs_per_task=envs_per_task, first_task=first_task
    )
    return [played for played, _, _ in trial]


def play_rounds(
    agent: Agent,
    family: AnyFamily,
    task: Task,
    key: Key,
    *,
    rounds: int | None = None,
    episodes: int | None = None,
    envs_per_task: int | None = None,
    greedy: bool = False,
    first_task: int = 0,
    watch: Callable[[BatchEnv], None] | None = None,
) -> Iterator[Round]:
    """Play a trial and yield its rounds one by one, so that the caller need not keep all of them.

    `rounds`, `episodes` (per round) and `envs_per_task` default to the agent's protocol, then to the family's
    episodes_per_trial. If the tasks are part of a larger batch, `first_task` is the index of the first one, so that
    randomness is the same as in the whole batch. With `greedy`, every round that `adapt` learns from is played twice,
    from the same starts and with the same noise: once with greedy actions, and once with sampled actions for `adapt`,
    which cannot learn without exploration. `watch` is called after each step of the evaluated rollouts. No gradients
    are recorded; an agent that differentiates through its adaptation does so in `update`.
    """
    protocol = agent.protocol
    n = num_rows(task)
    each = protocol.envs_per_task if envs_per_task is None else envs_per_task
    rows = take(task, torch.arange(n, device=key.device).repeat_interleave(each)) if each > 1 else task
    first_row = first_task * each
    # Rows that share a noise stream differ only in their policies: common random numbers.
    shared = protocol.noises if envs_per_task is None else None
    streams = None if shared is None else _streams(first_task, n, each, shared, key.device)
    rounds = protocol.rounds if rounds is None else rounds
    episodes = protocol.episodes if episodes is None else episodes
    with torch.no_grad():
        memory = agent.begin(n, task)
        for number in range(rounds):
            keys = [rng.fold(rng.fold(key, number), part) for part in (0, 1)]  # for environment and agent
            keys = keys if streams is None else [rng.fold(part, streams) for part in keys]

            def play(
                greedy: bool,
                watch: Callable[[BatchEnv], None] | None = None,
                keys: list[Key] = keys,
                memory: Memory = memory,
                number: int = number,
            ) -> tuple[Rollout, Memory]:
                env = make_env(family, rows, keys[0], episodes, first_row)
                try:
                    return collect(agent, memory, env, keys[1], greedy, first_row, watch)
                except Exception as error:
                    add_place(error, f"round {number + 1} of {rounds}")
                    raise

            last = number == rounds - 1
            played, memory = play(greedy, watch)
            learned = played
            if greedy and not last:
                learned, memory = play(False)
            yield Round(played, learned, memory)
            if not last:
                memory = agent.adapt(memory, learned)


def _streams(first_task: int, tasks: int, each: int, noises: int, device: torch.device) -> Tensor:
    """Return the index of each row's noise stream, int64 ``(tasks * each,)``; the first task is `first_task`."""
    numbers = torch.arange(first_task, first_task + tasks, device=device)
    return (numbers[:, None] * noises + torch.arange(each, device=device) % noises).flatten()


def check_endings(family: AnyFamily, trial: list[Rollout]) -> None:
    """Raise ValueError if an episode was terminated although the family has ``terminates = False``.

    Environments then ignore terminations and play on to the horizon, so the returns of the trial are wrong.
    """
    if not family.terminates and any(bool(rollout.outcome.terminated.any()) for rollout in trial):
        raise ValueError(undeclared_ending(family))


class NotFinite(NamedTuple):
    """The first number of a trial that is not finite."""

    what: str  # "task", "observation", "action" or "reward"
    place: str  # such as "step 3, row 1 of 4: Goal(goal=[0.7519]); round 2 of 2"


def first_not_finite(trial: list[Rollout]) -> NotFinite | None:
    """Find the first number in a trial that is not finite; None if all are finite.

    "action" includes the log-probability and the value. Later numbers may be wrong only because of the first one.
    Padding is checked last: it has weight 0, but 0 times NaN is NaN.
    """
    return _first_not_finite(trial, padding=False) or _first_not_finite(trial, padding=True)


def _first_not_finite(trial: list[Rollout], padding: bool) -> NotFinite | None:
    for number, rollout in enumerate(trial, start=1):
        acted = [x.flatten(2) for x in (rollout.acted.action[..., None], rollout.acted.log_prob[..., None])]
        parts = {
            "task": features(rollout.task)[None],
            "observation": rollout.step.obs.flatten(2),
            "action": torch.cat([*(x.to(torch.float32) for x in acted), rollout.acted.value[..., None]], dim=-1),
            "reward": rollout.outcome.reward[..., None],
        }
        times = {}
        for name, part in parts.items():
            broken = (~part.isfinite().all(-1) & ((rollout.mask[: len(part)] > 0) ^ padding)).nonzero()
            if len(broken):
                times[name] = broken[0].tolist()
        if times:  # the order within a step is task, observation, action, reward
            what = min(times, key=lambda name: times[name][0])
            step, row = times[what]
            at = f"row {row} of {rollout.mask.shape[1]}: {shown_task(rollout.task, row)}"
            after = ", after the row's last episode" if padding else ""
            return NotFinite(what, f"step {step + 1}, {at}; round {number} of {len(trial)}{after}")
    return None


def episode_index(rollout: Rollout) -> Tensor:
    """Return the index of the episode of each step, counted from 0, int64 ``(T, B)``."""
    done = (rollout.outcome.terminated | rollout.outcome.truncated).to(torch.int64)
    return done.cumsum(0) - done


def episode_returns(rollout: Rollout, episodes: int) -> Tensor:
    """Return the undiscounted return of every episode of the round, float32 ``(B, episodes)``, without padding."""
    index = episode_index(rollout).clamp_max(episodes - 1)
    reward = rollout.outcome.reward * rollout.mask
    returns = torch.zeros(episodes, reward.shape[1], device=reward.device)
    return returns.scatter_add_(0, index, reward).T


def episode_success(rollout: Rollout, success: Tensor, episodes: int) -> Tensor:
    """Return 1 for episodes with `success`, bool ``(T, B)``, at some step, otherwise 0: float32 ``(B, episodes)``."""
    index = episode_index(rollout).clamp_max(episodes - 1)
    found = torch.zeros(episodes, index.shape[1], device=index.device)
    return found.scatter_reduce_(0, index, success * rollout.mask, "amax").T


def episode_lengths(rollout: Rollout, episodes: int) -> Tensor:
    """Return the number of steps of every episode of the round, float32 ``(B, episodes)``."""
    index = episode_index(rollout).clamp_max(episodes - 1)
    lengths = torch.zeros(episodes, index.shape[1], device=index.device)
    return lengths.scatter_add_(0, index, rollout.mask).T


def episode_rewards(rollout: Rollout, episodes: int, horizon: int) -> Tensor:
    """Return the reward at every step of every episode, float32 ``(B, episodes, horizon)``; 0 after an episode's end.

    The sum over the last dimension is `episode_returns`.
    """
    index = episode_index(rollout)
    time = torch.arange(len(index), device=index.device)[:, None]
    began = torch.zeros_like(index)
    began[1:] = torch.where(index[1:] > index[:-1], time[1:], 0)
    place = index * horizon + time - began.cummax(0).values
    reward = rollout.outcome.reward * rollout.mask
    rewards = torch.zeros(episodes * horizon, reward.shape[1], device=reward.device)
    rewards.scatter_add_(0, place.clamp_max(episodes * horizon - 1), reward)  # clamped steps are padding, reward 0
    return rewards.T.reshape(-1, episodes, horizon)


def no_target(family: AnyFamily) -> str:
    """Return the message for a supervised loss on a family without correct actions."""
    name = type(family).__name__
    return f"A supervised loss needs target actions, and {name} has none: implement target(task, state)."


def undeclared_ending(family: AnyFamily) -> str:
    """Return the message for an episode that was terminated although the family has ``terminates = False``."""
    name = type(family).__name__
    return f"{name}.step terminated an episode, but {name}.terminates is False: set terminates = True in the class."
