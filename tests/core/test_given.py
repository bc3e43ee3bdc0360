"""What users hand to the Python functions in place of a family, an agent, a key, a task or a device."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

import metarl
from metarl.agents import RL2Config
from metarl.agents.random import RandomAgent
from metarl.agents.text.agent import TextAgent
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.envs.grids.grid_navi import GridNavi
from metarl.interop.gym_env import GymEnv, GymVectorEnv
from metarl.interop.sb3_env import SB3VecEnv

FAMILY, OTHER = GridNavi(), metarl.make("metarl/Navigation2D-v0")
TASKS = FAMILY.sample_tasks(rng.key(0), 3)
AGENT = RandomAgent(FAMILY)

NO_FAMILY: dict[str, tuple[Any, str]] = {
    "class": (GridNavi, "it is a class; create an instance, such as GridNavi()"),
    "environment": (gymnasium.make("metarl/GridNavi-v0"), "whose family is env.unwrapped.family"),
    "another environment": (gymnasium.make("CartPole-v1"), "metarl.make('metarl/Gym-v0', env=ID"),
    "number": (3, "got 3"),
}
TAKES_A_FAMILY = {
    "build": lambda family: RL2Config().build(family),
    "check_family": metarl.check_family,
    "check_agent": lambda family: metarl.check_agent(RL2Config(), family),
    "run_trial": lambda family: metarl.run_trial(AGENT, family, TASKS, rng.key(0)),
    "BatchEnv": lambda family: BatchEnv(family, TASKS, rng.key(0)),
    "TextAgent": lambda family: TextAgent(str, family),
    "GymEnv": GymEnv,
    "GymVectorEnv": lambda family: GymVectorEnv(family, 2),
    "SB3VecEnv": lambda family: SB3VecEnv(family, 2),
}


@pytest.mark.parametrize("what", NO_FAMILY)
@pytest.mark.parametrize("where", TAKES_A_FAMILY)
def test_what_is_no_family_is_said_in_one_sentence(where: str, what: str):
    given, advice = NO_FAMILY[what]
    with pytest.raises((ValueError, AssertionError), match=r"^A task family is needed, got") as caught:
        TAKES_A_FAMILY[where](given)
    assert advice in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("where", ["build", "check_family", "check_agent", "run_trial", "BatchEnv"])
def test_the_id_of_a_family_is_no_family(where: str):
    with pytest.raises((ValueError, AssertionError), match=r"metarl.make makes the family of an id"):
        TAKES_A_FAMILY[where]("metarl/GridNavi-v0")


@pytest.mark.parametrize("given", [GridNavi, FAMILY, None, 3])
def test_only_a_text_is_the_id_of_a_family(given: Any):
    with pytest.raises(ValueError, match=r"^A family's id must be a string, such as 'metarl/GridNavi-v0', got"):
        metarl.make(given)


class Model:
    """It has what a model of stable-baselines3 is known by."""

    policy = predict = None


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ("pretrained:rl2_gridnavi", "metarl.load makes the agent"),
        (RL2Config(), r"a configuration makes one by build\(family, seed, device\)"),
        (Model(), r"SB3Model\(model, family\) makes one"),
        (RandomAgent, "<class"),
        (3, r"3\.$"),
    ],
)
def test_what_is_no_agent_is_said_with_what_makes_one(given: Any, advice: str):
    for call in (
        lambda: metarl.evaluate(given, FAMILY, tasks=2),
        lambda: metarl.evaluate(given, tasks=2),
        lambda: metarl.run_trial(given, FAMILY, TASKS, rng.key(0)),
        lambda: metarl.Player(given),
    ):
        with pytest.raises(TypeError, match=f"^agent must be an agent, such as metarl.load returns, got .*{advice}"):
            call()


@pytest.mark.parametrize("given", [0, 7, 1.5, None, "a", np.int64(3), torch.tensor(1.0)])
def test_a_seed_is_no_key(given: Any):
    for call in (
        lambda: FAMILY.sample_tasks(given, 4),
        lambda: BatchEnv(FAMILY, TASKS, given),
        lambda: metarl.run_trial(AGENT, FAMILY, TASKS, given),
    ):
        with pytest.raises(ValueError, match=r"^A key is needed, such as metarl.core.rng.key\(seed\) returns, got"):
            call()


def test_fold_takes_no_number_for_a_key():
    with pytest.raises(ValueError, match=r"^A key is needed"):
        rng.fold(0, 1)


@pytest.mark.parametrize("seed", [1.5, "a", None, -1, 2**63])
def test_a_seed_is_a_whole_number(seed: Any):
    for call in (rng.key, lambda seed: RL2Config().build(FAMILY, seed)):
        with pytest.raises(ValueError, match=r"^A seed must be an integer from 0 to 2\^63 - 1, got"):
            call(seed)
    assert torch.equal(rng.key(np.int64(3)), rng.key(3))


@pytest.mark.parametrize("n", [-1, 1.5, "4", None])
def test_a_number_of_tasks_is_a_whole_number(n: Any):
    with pytest.raises(ValueError, match=r"^n must be a whole number of at least 0, got"):
        FAMILY.sample_tasks(rng.key(0), n)
    assert len(FAMILY.sample_tasks(rng.key(0), np.int64(2)).goal) == 2


def test_a_trial_is_played_on_tasks_of_the_family_by_an_agent_for_its_spaces():
    for tasks in (8, [TASKS], OTHER.sample_tasks(rng.key(0), 2)):
        with pytest.raises(ValueError, match=r"^A task of GridNavi must be a GoalCell, got a value of"):
            metarl.run_trial(AGENT, FAMILY, tasks, rng.key(0))
    learner = RL2Config(meta_batch_size=4).build(FAMILY)
    with pytest.raises(ValueError, match=r"^This RL2 was made for the actions"):
        metarl.run_trial(learner, OTHER, OTHER.sample_tasks(rng.key(0), 2), rng.key(0))


def test_an_agent_is_built_on_a_device_of_this_machine():
    assert RL2Config().build(FAMILY, 1, "cpu").device == torch.device("cpu")
    with pytest.raises(ValueError, match=r"device must be 'cpu', 'cuda' or 'auto', got 'gpu'"):
        RL2Config().build(FAMILY, 1, "gpu")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"lr": "a"}, r"lr must lie in \[0, 1\], got 'a'"),
        ({"lr": [0.1]}, r"lr must lie in \[0, 1\], got \[0.1\]"),
        ({"meta_batch_size": 2.5}, "meta_batch_size must be a whole number, got 2.5"),
        ({"update_epochs": True}, "update_epochs must be a whole number, got True"),
        ({"norm_obs": "yes"}, "norm_obs must be True or False, got 'yes'"),
    ],
)
def test_an_option_of_another_kind_is_said_in_one_sentence(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=rf"^{sentence}"):
        RL2Config(**options)


def test_check_agent_wants_a_configuration():
    with pytest.raises(AssertionError, match=r"check_agent takes an AgentConfig"):
        metarl.check_agent(RL2Config().build(FAMILY), FAMILY)


def test_a_player_needs_an_agent_that_knows_its_family():
    class Stranger(RandomAgent):
        def __init__(self) -> None:
            super().__init__(FAMILY)
            self.family = None

    with pytest.raises(ValueError, match=r"Stranger has no family"):
        metarl.Player(Stranger())


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda: metarl.register("theirs/Given-v0", FAMILY),
            "theirs/Given-v0 needs a TaskFamily class, or a function",
        ),
        (
            lambda: metarl.register(GridNavi, "theirs/Given-v0"),
            "A family's id must be like 'namespace/Name-v0', got <cl",
        ),
        (lambda: metarl.register_agent(3, RL2Config), "An agent's name must consist of letters, digits and _"),
        (lambda: metarl.register_baseline(GridNavi, "given", 3), "A baseline 'given' must be a function that makes it"),
    ],
)
def test_what_cannot_be_registered_is_refused_at_once(call: Any, sentence: str):
    with pytest.raises(ValueError, match=rf"^{sentence}"):
        call()
    assert "theirs/Given-v0" not in metarl.registered()


@pytest.mark.parametrize("name", ["rounds", "episodes", "envs_per_task"])
@pytest.mark.parametrize("number", [0, 1.5, "2"])
def test_the_numbers_of_a_trial_are_whole_and_above_0(name: str, number: Any):
    with pytest.raises(ValueError, match=f"^{name} must be a whole number of at least 1, got"):
        metarl.run_trial(AGENT, FAMILY, TASKS, rng.key(0), **{name: number})


def test_a_trial_has_a_task():
    with pytest.raises(ValueError, match="at least one task"):
        metarl.run_trial(AGENT, FAMILY, FAMILY.sample_tasks(rng.key(0), 0), rng.key(0))


def test_an_ensemble_is_made_of_runs():
    with pytest.raises(
        ValueError, match=r"^The members of an ensemble must be run directories or pretrained:NAME, got <RL2"
    ):
        metarl.ensemble([RL2Config().build(FAMILY)] * 2)


@pytest.mark.parametrize(
    ("attribute", "value", "sentence"),
    [
        ("observation_space", None, "has no observation_space: set it in the class or in its constructor"),
        ("observation_space", gymnasium.spaces.Discrete(3), "observation_space must be a float32 Box, got Discrete"),
        ("action_space", gymnasium.spaces.MultiBinary(3), "action_space must be Discrete, or a one-dimensional"),
        ("horizon", 0, "horizon must be an int of at least 1, got 0"),
        ("horizon", 2.5, "horizon must be an int of at least 1, got 2.5"),
        ("episodes_per_trial", "3", "episodes_per_trial must be an int of at least 1, got '3'"),
    ],
)
@pytest.mark.parametrize("where", TAKES_A_FAMILY)
def test_a_family_that_lacks_something_is_said_wherever_it_is_used(where: str, attribute: str, value: Any, sentence):
    family = GridNavi()
    setattr(family, attribute, value)
    with pytest.raises((ValueError, AssertionError)) as caught:
        TAKES_A_FAMILY[where](family)
    assert sentence in str(caught.value) and str(caught.value).startswith("GridNavi") and "\n" not in str(caught.value)
