"""metarl's own contenders of the benchmark harness."""

from __future__ import annotations

from collections.abc import Callable

import gymnasium
import torch

import metarl
from benchmarks.works import Work
from metarl import rng
from metarl.agent import AgentConfig, LearningAgent
from metarl.agents import MAMLConfig, RL2Config
from metarl.batch_env import BatchEnv, Outcome
from metarl.capture import Captured
from metarl.family import Key, TaskFamily
from metarl.rollout import run_trial
from metarl.runtime import tune


def build(work: Work, threads: int) -> Callable[[], int]:
    """A function that does the work once and returns the environment steps it took."""
    tune(threads)
    return stepping(work) if work.kind == "stepping" else training(work)


def family_of(work: Work) -> TaskFamily:
    """The family in the work's size; a work without episodes takes the family's own."""
    if work.episodes == 0:
        return metarl.make(work.family)
    horizon = {"horizon": work.horizon} if work.horizon > 1 else {}
    return metarl.make(work.family, episodes_per_trial=work.episodes, **horizon)


def training(work: Work, plain: bool = False) -> Callable[[], int]:
    """One call is one iteration of meta-training on new tasks; with `plain`, nothing is captured on a GPU."""
    family = family_of(work)
    config: AgentConfig
    if work.kind == "rl2":
        config = RL2Config(
            meta_batch_size=work.rows,
            hidden_size=work.hidden,
            update_epochs=work.epochs,
            num_minibatches=work.minibatches,
        )
    else:
        config = MAMLConfig(
            meta_batch_size=work.rows,
            fast_batch_size=work.trajectories,
            hidden_sizes=(work.hidden, work.hidden),
            outer=work.outer,
            update_epochs=work.epochs,
        )
    device = torch.device(work.device)
    agent = config.build(family, 0, device)
    root = rng.key(1, device)
    play = Captured(lambda tasks, key: run_trial(agent, family, tasks, key), device)
    number = 0

    def call() -> int:
        nonlocal number
        number += 1
        key = rng.fold(root, number)
        trial = play(family.sample_tasks(rng.fold(key, 0), work.rows), rng.fold(key, 1))
        agent.update(trial)
        return int(sum(rollout.mask.sum() for rollout in trial))

    call.parts = {"rollout": play, **_captured(agent)}  # type: ignore[attr-defined]
    if plain:
        for part in captured_parts(call).values():
            part.why_not = "plain calls were asked for"
    return call


def captured_parts(call: Callable[[], int]) -> dict[str, Captured]:
    """What a GPU replays of an iteration that `training` made, by name."""
    parts: dict[str, Captured] = call.parts  # type: ignore[attr-defined]
    return parts


def _captured(agent: LearningAgent) -> dict[str, Captured]:
    """The agent's own, of which some may never be called."""
    return {name: value for name, value in vars(agent).items() if isinstance(value, Captured)}


def stepping(work: Work) -> Callable[[], int]:
    """One call steps all rows through a trial, 200 steps at most, with random actions drawn beforehand.

    On a GPU that is one recording, and the outcomes of all steps are kept.
    """
    family, device = family_of(work), torch.device(work.device)
    key = rng.key(0, device)
    task = family.sample_tasks(key, work.rows)
    env = BatchEnv(family, task, key)
    steps = min(env.max_steps, 200)
    actions = [action.to(device) for action in random_actions(family, steps, work.rows)]

    def play(key: Key) -> Outcome:
        env = BatchEnv(family, task, key)
        env.reset()
        # Stacked: what a recording gives back is copied, tensor by tensor.
        return Outcome(*map(torch.stack, zip(*(env.step(action)[0] for action in actions), strict=True)))

    if device.type != "cpu":
        captured = Captured(play, device)

        def replay() -> int:
            captured(key)
            torch.cuda.synchronize()
            return steps * work.rows

        return replay

    def call() -> int:
        env.reset()
        for action in actions:
            env.step(action)
        return steps * work.rows

    return call


def random_actions(family: TaskFamily, steps: int, rows: int) -> list[torch.Tensor]:
    """Uniform over the action space: one tensor of all rows per step."""
    space = family.action_space
    generator = torch.Generator().manual_seed(0)
    if isinstance(space, gymnasium.spaces.Discrete):
        return list(torch.randint(int(space.n), (steps, rows), generator=generator))
    low, high = torch.as_tensor(space.low), torch.as_tensor(space.high)
    return list(low + (high - low) * torch.rand((steps, rows, *space.shape), generator=generator))
