"""What users hand to an agent's verbs, to a task sampler and to a round in place of what it takes: one sentence."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import metarl
from metarl.agents import (
    BeliefConfig,
    ESConfig,
    ESMAMLConfig,
    MAMLConfig,
    PEARLConfig,
    PPOConfig,
    R2D2Config,
    RecurrentSACConfig,
    RL2Config,
    VariBADConfig,
)
from metarl.agents.random import RandomAgent
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import Rollout
from metarl.core.tree import take
from metarl.learning.samplers.fresh import FreshOptions
from metarl.learning.samplers.plr import PLROptions

FAMILY, OTHER = metarl.make("metarl/BernoulliBandit-v0", episodes_per_trial=3), metarl.make("metarl/GridNavi-v0")
TASKS = FAMILY.sample_tasks(rng.key(0), 4)
ELSEWHERE = metarl.run_trial(RandomAgent(OTHER), OTHER, OTHER.sample_tasks(rng.key(0), 4), rng.key(1))
LEARNERS = (
    BeliefConfig, ESConfig, ESMAMLConfig, MAMLConfig, PEARLConfig, R2D2Config, RecurrentSACConfig, RL2Config,
    VariBADConfig,
)  # fmt: skip
"""Every agent that learns from trials."""


@functools.cache
def played(config: type[AgentConfig]) -> tuple[LearningAgent, list[Rollout]]:
    agent = config(meta_batch_size=4).build(FAMILY)
    return agent, metarl.run_trial(agent, FAMILY, TASKS, rng.key(1))


def test_every_registered_agent_is_among_them():
    known = {metarl.core.agent.agent_class(name) for name in metarl.core.agent.registered_agents()}
    own_loop = {"DPTConfig", "DAggerConfig", "ADConfig", "PPOConfig"}
    assert {each.__name__ for each in known if each.__module__.startswith("metarl.")} == own_loop | {
        each.__name__ for each in LEARNERS
    }


def refuses(call: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("config", LEARNERS)
def test_an_agent_learns_from_a_trial(config: type[AgentConfig]):
    agent, trial = played(config)
    name = type(agent).__name__
    whole = r"give \[rollout\]" if len(trial) == 1 else "give all rounds of the trial"
    refuses(
        lambda: agent.update(trial[0]), rf"^{name}.update takes a trial, a list of rollouts .* one Rollout: {whole}"
    )
    refuses(lambda: agent.update(trial=trial[0]), "got one Rollout")
    for wrong in ([], None, iter(trial), [trial], [trial[0], None], trial[0].mask):
        refuses(lambda wrong=wrong: agent.update(wrong), f"^{name}.update takes a trial, a list of rollouts .*, got ")
    refuses(lambda: agent.update(ELSEWHERE), rf"^This {name} was made for observations of shape \(1,\), .* \(2,\)")
    if len(trial) == 1:
        refuses(lambda: agent.update(trial * 2), "of a single round, got 2 rollouts")


@pytest.mark.parametrize("config", LEARNERS)
def test_an_agent_adapts_to_a_round_and_begins_with_a_number(config: type[AgentConfig]):
    agent, trial = played(config)
    memory = agent.begin(4, TASKS)
    agent.begin(np.int64(4), task=TASKS)
    agent.adapt(memory, rollout=trial[0])
    for wrong in (trial, None, memory, trial[0].step):
        refuses(lambda wrong=wrong: agent.adapt(memory, wrong), rf"^{type(agent).__name__}.adapt takes a Rollout, got ")
    refuses(lambda: agent.adapt(memory, ELSEWHERE[0]), "was made for observations of shape")
    for number in (TASKS, 1.5, -1, None, True):
        refuses(lambda number=number: agent.begin(number), rf"^{type(agent).__name__}.begin takes the number of tasks")


@pytest.mark.parametrize("config", [*LEARNERS, functools.partial(PPOConfig, batch_size=4)])
def test_an_agent_acts_on_a_step_with_a_key_for_each_row(config: Callable[..., AgentConfig]):
    agent = config(meta_batch_size=4).build(FAMILY)
    each = agent.protocol.envs_per_task
    rows = take(TASKS, torch.arange(4).repeat_interleave(each))
    step, keys = BatchEnv(FAMILY, rows, rng.key(0)).reset(), rng.fold(rng.key(0), torch.arange(4 * each))
    memory, name = agent.begin(4, TASKS), type(agent).__name__
    agent.act(memory, step=step, key=keys)
    (rollout,) = metarl.run_trial(RandomAgent(FAMILY), FAMILY, TASKS, rng.key(1))
    for wrong in (step.obs, None, (), rollout, rollout.step):
        refuses(lambda wrong=wrong: agent.act(memory, wrong, keys), f"^{name}.act takes a Step, such as BatchEnv.reset")
    for wrong in (rng.key(0), 0, None, torch.zeros(4)):
        refuses(lambda wrong=wrong: agent.act(memory, step, wrong), f"^{name}.act takes a key for each row, such as")


def test_what_is_left_out_python_says():
    agent, trial = played(RL2Config)
    with pytest.raises(TypeError, match=r"update\(\) missing 1 required positional argument: 'trial'"):
        agent.update()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'rollouts'"):
        agent.update(rollouts=trial)  # type: ignore[call-arg]


def test_an_agent_of_another_project_has_the_checks_and_what_it_hands_on_is_its_own():
    class Theirs(type(played(RL2Config)[0])):  # type: ignore[misc]
        def update(self, trial: list[Rollout], progress: float = 0.0) -> dict[str, float]:
            """Say it."""
            return {"loss/rounds": float(len(trial))}

    agent = Theirs(RL2Config(meta_batch_size=4), FAMILY, 0, torch.device("cpu"))
    trial = metarl.run_trial(agent, FAMILY, TASKS, rng.key(1))
    assert agent.update(trial) == {"loss/rounds": 1.0} and Theirs.update.__doc__ == "Say it."
    refuses(lambda: agent.update(trial[0]), "^Theirs.update takes a trial")


@pytest.mark.parametrize("options", [FreshOptions(), PLROptions()])
def test_a_task_sampler_sees_a_trial(options: Any):
    agent, trial = played(RL2Config)
    sampler = options.build(agent, "train")
    proposal, name = sampler.propose(rng.key(0), 4), type(sampler).__name__
    for wrong in (trial[0], [], None, [trial]):
        refuses(lambda wrong=wrong: sampler.score(proposal, wrong), f"^{name}.score takes a trial, a list of rollouts")
    refuses(lambda: sampler.score(TASKS, trial), f"^{name}.score takes the Proposal whose trial it is")
    refuses(lambda: sampler.score(trial, proposal), f"^{name}.score takes the Proposal whose trial it is")
    for key in (0, None, rng.fold(rng.key(0), torch.arange(4))):
        refuses(lambda key=key: sampler.propose(key, 4), f"^{name}.propose takes one key, such as metarl.core.rng.key")
    for number in (0, 1.5, None, TASKS):
        refuses(lambda number=number: sampler.propose(rng.key(0), number), f"^{name}.propose takes the number of tasks")


@pytest.mark.parametrize("given", [FAMILY, TASKS, None, "metarl/BernoulliBandit-v0"])
def test_a_round_is_played_in_a_batch_environment(given: Any):
    agent, _ = played(RL2Config)
    refuses(lambda: metarl.collect(agent, agent.begin(4), given, rng.key(0)), r"^env must be a BatchEnv\(family, t")


def test_a_batch_environment_is_of_the_family_s_tasks_and_has_a_key_for_all_or_each():
    for tasks in (4, None, OTHER.sample_tasks(rng.key(0), 4), [TASKS]):
        refuses(
            lambda tasks=tasks: BatchEnv(FAMILY, tasks, rng.key(0)),
            "^A task of BernoulliBandit must be a BernoulliArms",
        )
    keys = rng.fold(rng.key(0), torch.arange(7))
    refuses(lambda: BatchEnv(FAMILY, TASKS, keys), r"^The key must be a scalar, or one for each of 4 rows, got \(7,\)")
    for episodes in (0, 1.5, "2"):
        refuses(
            lambda episodes=episodes: BatchEnv(FAMILY, TASKS, rng.key(0), episodes),
            "^episodes must be a whole number of at",
        )
    env = BatchEnv(FAMILY, TASKS, keys[:4], np.int64(2))
    assert env.episodes == 2
