"""The evaluator: plays trials of an agent on held-out tasks and returns an adaptation curve."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from metarl.core import rng
from metarl.core.agent import LearningAgent
from metarl.core.batch_env import BatchEnv
from metarl.core.checks import same_spaces
from metarl.core.errors import short, truth
from metarl.core.family import Key, Task, TaskFamily, made_with
from metarl.core.faults.given import check_is_agent
from metarl.core.registry import make
from metarl.core.rollout import (
    Agent,
    check_endings,
    episode_lengths,
    episode_returns,
    episode_rewards,
    episode_success,
    play_rounds,
)
from metarl.core.tree import named_leaves, num_bytes, num_rows, take, to_device
from metarl.evaluation.arguments import as_greedy, as_int, as_tasks, check_size
from metarl.evaluation.bounds import Bounds, bounds_of
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.provenance import versions
from metarl.evaluation.results import GIVEN
from metarl.evaluation.step_curve import StepCurve, binned, borders
from metarl.evaluation.tails.tail import halves_of
from metarl.learning import ranks

EVALUATION = 0x6576616C  # "eval" in ASCII
"""The address of all evaluations: ``fold(key(seed), EVALUATION)``. Training numbers its streams from 0."""


CHUNK_ROWS = 4096


CHUNK_BYTES = 1 << 28
"""Limits on the rows that an evaluation plays at once: their number, and their memory in bytes."""


PROBED = 16
"""Number of trials that are played first, to measure the memory of a trial."""


STEPS_OF_A_POINT = 20
"""Smallest number of steps per task in a point; shorter episodes are repeated by default."""


WIDEST_FIELD = 32
"""Largest field of a task, in numbers, that is stored with the returns."""


Array = NDArray[np.float32]


def evaluate(
    agent: Agent,
    family: str | TaskFamily | None = None,
    split: str = "test",
    tasks: int | Task = 1000,
    repeats: int | None = None,
    episodes: int | None = None,
    rounds: int | None = None,
    seed: int = 0,
    greedy: bool | None = None,
    step_curve: bool = True,
) -> AdaptationCurve:
    """Evaluate `agent` on tasks of a split, or on the given tasks, and return its adaptation curve.

    `family` is a family or the id of one; by default it is the family that the agent was trained on or made for.

    **Tasks.** From a distribution, `tasks` tasks are drawn. A finite split (`TaskFamily.num_tasks`) with at most that
    many tasks is played completely, each task once; from a larger one, `tasks` distinct tasks are chosen. The curve
    therefore has only distinct tasks, over which its intervals resample.

    **Repeats.** Every task is played in `repeats` trials, whose mean is the task's result. By default the steps of an
    episode times the repeats are at least `STEPS_OF_A_POINT` (20 pulls of a bandit's arm; 1 repeat from 20 steps on),
    and a finite split that is played completely gets as many trials in total as the tasks that were asked for. For a
    slow agent (`Agent.costly`) only the second rule applies.

    **Points** are the episodes of a trial. For an agent that adapts in rounds (MAML), or with ``rounds > 1``, they are
    the rounds, i.e. returns after 0, 1, 2 … adaptation steps, each a mean over the round's episodes and the task's
    rows. `episodes` (per round) and `rounds` default to those of the agent's protocol.

    **Greedy** play takes the most likely action in the episodes that are reported. The episodes from which `adapt`
    learns are still sampled (`play_rounds`). By default actions are sampled as in training, except for agents that
    explore only during training (R2D2, whose protocol has `test_greedy`).

    **Noise.** Tasks, start states and noise depend only on `seed`, `repeats` and the number of the task: agents are
    compared on the same tasks with the same noise, the first 100 of 1000 tasks are the same as 100 tasks, and nothing
    is shared with a training run of any seed. The random bound is the family's exact one, or that of `RandomAgent` on
    the same tasks. `step_curve` adds the reward at every step (`AdaptationCurve.steps`), with random and oracle;
    without it the evaluation is faster.

    The environment is on the agent's `device` (on the CPU for an agent without one). Trials are played in chunks, which
    bounds the memory, including the agent's; the chunks can only change the last bit of a network's matrix products.

    Raises ValueError for an unknown id or split, for tasks of another family, and for a count below 1.
    """
    family = _family_of(agent, family)
    same_spaces(agent, family)
    tasks, seed, greedy = as_tasks(family, tasks), as_int("seed", seed, least=0), as_greedy(agent, greedy)
    given = {"repeats": repeats, "episodes": episodes, "rounds": rounds}
    repeats, episodes, rounds = (None if n is None else as_int(name, n) for name, n in given.items())
    if isinstance(tasks, int):
        trained = agent.protocol.test()
        points = rounds or (trained.rounds if trained.rounds > 1 else None)
        check_size(family, split, tasks, repeats, episodes or trained.episodes, points, trained.envs_per_task)
    device = torch.device(getattr(agent, "device", "cpu"))
    root = rng.fold(rng.key(seed, device), EVALUATION)
    task, distinct = choose_tasks(family, root, split, tasks)
    if repeats is None:
        wanted = tasks if isinstance(tasks, int) else num_rows(task)
        repeats = default_repeats(family, wanted, distinct, agent.costly)
    plan = _plan(agent, family, episodes, rounds, repeats, greedy, truth("step_curve", step_curve))
    played = _play(agent, family, task, rng.fold(root, 1), plan)
    bounds = bounds_of(
        family, task, root, plan.episodes * plan.repeats, plan.steps, memory=(most_rows(family), CHUNK_BYTES)
    )
    split = split if isinstance(tasks, int) else GIVEN
    return _curve(agent, family, task, plan, played, bounds, split=split, seed=seed, distinct=distinct)


class Plan(NamedTuple):
    """The settings with which an evaluation plays its trials."""

    repeats: int  # trials per task
    rounds: int
    episodes: int  # episodes per round
    each: int  # rows that play a task in parallel
    by_rounds: bool  # whether a point is a round; otherwise it is an episode
    greedy: bool
    steps: bool  # whether the reward of every step is wanted

    @property
    def episodes_of_a_point(self) -> int:
        """Number of episodes of experience in one point."""
        return self.episodes * self.each if self.by_rounds else 1


class Played(NamedTuple):
    """Returns and lengths of trials, with one row per trial for a chunk, and one row per task for an evaluation."""

    returns: Array  # (tasks, points)
    lengths: Array  # (tasks, points) environment steps that were learned from
    rewards: Array | None  # (tasks, bins) mean reward of a step
    noise: NDArray[np.float64] | None = None  # (points + 2,) see `Results.noise`; None for a chunk
    success: Array | None = None  # (tasks, points) fraction of episodes; None if the family does not count it
    halves: Array | None = None  # (tasks, 2) see `Results.halves`; None for a chunk


def choose_tasks(family: TaskFamily, root: Key, split: str, tasks: int | Task) -> tuple[Task, int | None]:
    """Return an evaluation's tasks on the CPU, and the size of the split (None: infinite, or tasks were given)."""
    if not isinstance(tasks, int):
        return to_device(tasks, "cpu"), None
    distinct = family.num_tasks(split)
    if distinct is None:
        return to_device(family.sample_tasks(rng.fold(root, 0), tasks, split), "cpu"), None
    order = rng.permutation(rng.fold(root, 3), distinct)[:tasks].cpu()
    return take(family.tasks_of(split), order), distinct


def default_repeats(family: TaskFamily, tasks: int, distinct: int | None, costly: bool = False) -> int:
    """Return the default trials per task: enough steps for a point, and at least `tasks` trials in total."""
    enough = 1 if costly else -(-STEPS_OF_A_POINT // family.horizon)
    return enough if distinct is None else max(enough, -(-tasks // distinct))


def most_rows(family: TaskFamily) -> int:
    """Return the largest number of rows that are played at once."""
    return CHUNK_ROWS if family.max_rows is None else min(CHUNK_ROWS, family.max_rows)


def describe(family: TaskFamily) -> str:
    """Describe a family with its options: ``BernoulliBandit(num_arms=5, episodes_per_trial=10)``."""
    return made_with(family)


def task_values(task: Task) -> dict[str, Array]:
    """Return the tasks' values by field, ``(tasks, d)`` each; fields wider than `WIDEST_FIELD` are left out."""
    found: dict[str, Array] = {}
    for name, field in named_leaves(task).items():
        if field[0].numel() <= WIDEST_FIELD:
            found[name] = field.reshape(len(field), -1).to(torch.float32).cpu().numpy()
    return found


def training_of(agent: Agent) -> tuple[dict[str, Any], ...]:
    """Return the progress of an agent's training (seed, iteration, steps); empty for an untrained agent."""
    return (dict(agent.trained),) if isinstance(agent, LearningAgent) and agent.trained else ()


def _family_of(agent: Agent, family: str | TaskFamily | None) -> TaskFamily:
    """Return the given family, made if it is an id, or else the agent's family."""
    check_is_agent(agent)
    if isinstance(family, str):
        return make(family)
    if isinstance(family, TaskFamily):
        return family
    if family is not None:
        raise ValueError(f"family must be a TaskFamily or the id of one, got {short(family)}.")
    known = getattr(agent, "family", None)
    if not isinstance(known, TaskFamily):
        raise ValueError(f"A family is needed: {type(agent).__name__} was not made for one.")
    return known


def _plan(
    agent: Agent, family: TaskFamily, episodes: int | None, rounds: int | None, repeats: int, greedy: bool, steps: bool
) -> Plan:
    """Make the plan; `episodes` and `rounds` that are None come from the agent's protocol."""
    protocol = agent.protocol.test()
    rounds = protocol.rounds if rounds is None else rounds
    return Plan(
        repeats=repeats,
        rounds=rounds,
        episodes=(protocol.episodes or family.episodes_per_trial) if episodes is None else episodes,
        each=protocol.envs_per_task,
        by_rounds=max(rounds, protocol.rounds) > 1,
        greedy=greedy,
        steps=steps,
    )


def _curve(
    agent: Agent, family: TaskFamily, task: Task, plan: Plan, played: Played, bounds: Bounds,
    *, split: str, seed: int, distinct: int | None,
) -> AdaptationCurve:  # fmt: skip
    """Assemble the curve from returns, settings and provenance."""
    lengths = played.lengths.mean(axis=0, dtype=np.float64)
    return AdaptationCurve(
        returns=played.returns[None],
        episodes=np.arange(len(lengths), dtype=np.float64) * plan.episodes_of_a_point,
        env_steps=np.cumsum(lengths) - lengths,
        labels=_labels(len(lengths), plan.by_rounds, agent),
        random=bounds.random,
        oracle=bounds.oracle,
        agent=getattr(agent, "title", type(agent).__name__),
        family=describe(family),
        split=split,
        greedy=plan.greedy,
        rounds=plan.by_rounds,
        repeats=plan.repeats,
        eval_seed=seed,
        distinct=distinct,
        episodes_of_a_point=plan.episodes_of_a_point,
        total_steps=float(lengths.sum()),
        task_values=task_values(task),
        training=training_of(agent),
        versions=versions(),
        steps=_step_curve(family, plan, played.rewards, bounds),
        noise=None if played.noise is None else played.noise[None],
        success=None if played.success is None else played.success[None],
        halves=None if played.halves is None else played.halves[None],
    )


def _play(agent: Agent, family: TaskFamily, task: Task, key: Key, plan: Plan) -> Played:
    """Play all trials, in chunks sized by the memory of the first few trials; each rank plays its own tasks."""
    most = most_rows(family) // plan.each
    mine, size = ranks.part(num_rows(task)), max(1, min(PROBED, most))
    first, end = mine.start * plan.repeats, mine.stop * plan.repeats
    chunks: list[Played] = []
    while first < end:
        numbers = torch.arange(first, min(first + size, end))
        rows = to_device(take(task, numbers // plan.repeats), key.device)
        chunk, taken = _play_chunk(agent, family, rows, key, plan, first)
        chunks.append(chunk)
        first += len(numbers)
        size = max(1, min(most, int(CHUNK_BYTES * len(numbers) / taken)))
    chunks = list(itertools.chain(*ranks.all_gather(chunks)))
    returns = [chunk.returns for chunk in chunks]
    rewards = [chunk.rewards for chunk in chunks if chunk.rewards is not None]
    success = [chunk.success for chunk in chunks if chunk.success is not None]
    trials = np.concatenate(returns).reshape(num_rows(task), plan.repeats, -1)
    noise = _noise(trials, plan.by_rounds)
    return Played(
        _of_tasks(returns, plan.repeats),
        _of_tasks([chunk.lengths for chunk in chunks], plan.repeats),
        _of_tasks(rewards, plan.repeats) if rewards else None,
        noise,
        _of_tasks(success, plan.repeats) if success else None,
        halves_of(trials[:, :, -1] if plan.by_rounds else trials.sum(axis=2)),
    )


def _of_tasks(chunks: list[Array], repeats: int) -> Array:
    """Return means over each task's `repeats` trials, given the chunks' rows of single trials."""
    trials = np.concatenate(chunks)
    by_task = trials.reshape(-1, repeats, trials.shape[1])
    return by_task[:, 0] if repeats == 1 else by_task.mean(axis=1, dtype=np.float64).astype(np.float32)


def _noise(returns: Array, by_rounds: bool) -> NDArray[np.float64] | None:
    """Return the standard errors of means over ``(tasks, repeats, points)`` due to the trials alone, ``(points + 2,)``.

    They are those of each point, of the score, and of the last point minus the first. None with a single trial per
    task.
    """
    tasks, repeats, _ = returns.shape
    if repeats == 1:
        return None
    score = returns[:, :, -1] if by_rounds else returns.sum(axis=2)
    change = returns[:, :, -1] - returns[:, :, 0]
    columns = np.concatenate([returns, score[..., None], change[..., None]], axis=2, dtype=np.float64)
    return np.sqrt(columns.var(axis=1, ddof=1).sum(axis=0) / repeats) / tasks


def _play_chunk(agent: Agent, family: TaskFamily, task: Task, key: Key, plan: Plan, first: int) -> tuple[Played, int]:
    """Play a trial on each row of `task`; also return the peak memory in bytes, of a round and the agent's memory."""
    n, taken = num_rows(task), 1
    returns, lengths, rewards, success = [], [], [], []
    watched = list[Tensor]()
    for played, learned, memory in play_rounds(
        agent, family, task, key, rounds=plan.rounds, episodes=plan.episodes, envs_per_task=plan.each,
        greedy=plan.greedy, first_task=first, watch=_watch_success(watched) if family.counts_success else None,
    ):  # fmt: skip
        check_endings(family, [played])
        got, took = _points(episode_returns(played, plan.episodes), episode_lengths(learned, plan.episodes), n, plan)
        returns.append(got)
        lengths.append(took)
        if watched:
            solved = episode_success(played, torch.stack(watched), plan.episodes)
            success.append(_points(solved, solved, n, plan)[0])
            watched.clear()
        if plan.steps:
            each_step = episode_rewards(played, plan.episodes, family.horizon)
            rewards.append(each_step.reshape(n, plan.each, -1).mean(dim=1))
        # The memory of an agent may grow with every step, and then the old and the new one exist at the same time.
        taken = max(taken, num_bytes(played) + 3 * num_bytes(memory))
    edges = borders(plan.rounds, plan.episodes, family.horizon)
    found = binned(torch.cat(rewards, dim=1).cpu().numpy(), edges) if plan.steps else None
    solved_by = torch.cat(success, dim=1).cpu().numpy() if success else None
    joined = torch.cat(returns, dim=1).cpu().numpy(), torch.cat(lengths, dim=1).cpu().numpy()
    return Played(joined[0], joined[1], found, success=solved_by), taken


def _watch_success(found: list[Tensor]) -> Callable[[BatchEnv], None]:
    """Return a watcher that appends the rows' success, bool ``(B,)``, to `found` after each step."""

    def watch(env: BatchEnv) -> None:
        success = env.family.success(env.task, env.final_state)
        assert success is not None, "a family that counts success has one"
        found.append(success)

    return watch


def _points(returns: Tensor, lengths: Tensor, tasks: int, plan: Plan) -> tuple[Tensor, Tensor]:
    """Convert returns and lengths of a round's episodes to those of its points, ``(tasks, points)`` each."""
    shape = (tasks, plan.each, plan.episodes)
    returns, lengths = returns.reshape(shape), lengths.reshape(shape)
    if plan.by_rounds:
        return returns.mean(dim=(1, 2))[:, None], lengths.sum(dim=(1, 2))[:, None]
    # Rows of one task play in parallel and learn nothing from each other.
    return returns.mean(dim=1), lengths.mean(dim=1)


def _step_curve(family: TaskFamily, plan: Plan, rewards: Array | None, bounds: Bounds) -> StepCurve | None:
    """Return the binned steps of the trial, with random and oracle, which are the same in every episode."""
    if rewards is None:
        return None
    edges = borders(plan.rounds, plan.episodes, family.horizon)
    random, oracle = (
        None if steps is None else binned(np.tile(steps, plan.rounds * plan.episodes), edges)
        for steps in (bounds.random_steps, bounds.oracle_steps)
    )
    return StepCurve(edges.astype(np.float64) * plan.each, rewards[None], random, oracle)


def _labels(points: int, by_rounds: bool, agent: Agent) -> tuple[str, ...]:
    if not by_rounds:
        return tuple(f"episode {number}" for number in range(1, points + 1))
    if agent.protocol.test().rounds == 1:  # its `adapt` may do anything or nothing
        return tuple(f"round {number}" for number in range(1, points + 1))
    return tuple(f"{number} {agent.step_name}{'s'[: number != 1]}" for number in range(points))
