"""What users give: numbers of any library, tasks in any form that we hand out, agents for the right spaces."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Length, Reach, Target, TwoDoors
from wrong_families import Line, Start

import metarl
from metarl.agents.maml import MAMLConfig
from metarl.agents.random import RandomAgent
from metarl.agents.rl2 import RL2Config
from metarl.core import rng
from metarl.core.checks import same_spaces
from metarl.core.errors import truth
from metarl.core.family import TaskFamily
from metarl.core.rollout import TrialProtocol
from metarl.core.tree import features, take
from metarl.evaluation.arguments import as_greedy, as_int, as_tasks, check_rounds

CPU = torch.device("cpu")


@pytest.mark.parametrize("five", [5, np.int64(5), np.uint8(5), np.array(5), torch.tensor(5), torch.tensor([5])])
def test_whole_numbers_of_every_library(five):
    number = as_int("tasks", five)
    assert number == 5 and type(number) is int


NO_WHOLE_NUMBERS = [5.0, np.float32(5), "5", None, True, np.True_, torch.tensor(5.0), torch.arange(3), [5]]


@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=repr)
def test_what_is_no_whole_number(value):
    with pytest.raises(ValueError, match=r"^tasks must be a whole number, got .*\.$"):
        as_int("tasks", value)


def test_too_small_a_number():
    with pytest.raises(ValueError, match=r"^rounds must be at least 1, got 0\.$"):
        as_int("rounds", np.int32(0))
    assert as_int("seed", 0, least=0) == 0 and as_int("first", -3, least=None) == -3


def test_truth_values():
    for value in (True, np.True_, np.array([True])[0]):
        assert truth("greedy", value) is True
    assert truth("greedy", np.bool_(False)) is False
    for value in (1, "yes", None, np.array([True, False])):
        with pytest.raises(ValueError, match="greedy must be True or False"):
            truth("greedy", value)


@pytest.mark.parametrize("of_protocol", [True, False])
def test_the_protocol_says_whether_evaluations_are_greedy_and_the_caller_may_say_otherwise(of_protocol: bool):
    agent = RandomAgent(metarl.make("metarl/GridNavi-v0"))
    agent.protocol = TrialProtocol(test_greedy=of_protocol)
    assert as_greedy(agent, None) is of_protocol
    assert as_greedy(agent, True) is True and as_greedy(agent, np.bool_(False)) is False
    with pytest.raises(ValueError, match="greedy must be True or False, got 1"):
        as_greedy(agent, 1)


def equal(a, b) -> bool:
    return type(a) is type(b) and torch.equal(features(a), features(b))


def test_tasks_in_every_form():
    family = Corridor()
    whole = family.sample_tasks(rng.key(0), 4)
    rows = [take(whole, slice(i, i + 1)) for i in range(4)]
    assert as_tasks(family, 7) == as_tasks(family, np.int64(7)) == 7 and type(as_tasks(family, np.int64(7))) is int
    assert equal(as_tasks(family, whole), whole)
    assert equal(as_tasks(family, Length(whole.length.numpy())), whole)
    for parts in (rows, tuple(rows), [take(whole, slice(0, 3)), rows[3]]):
        assert equal(as_tasks(family, parts), whole)


@pytest.mark.parametrize("id", ["metarl/BernoulliBandit-v0", "metarl/Harlow-v0", "metarl/CartPole-v0"])
def test_what_the_gymnasium_view_samples(id: str):
    env = gymnasium.make(id).unwrapped
    family = metarl.make(id)
    assert equal(as_tasks(family, env.sample_tasks(5, seed=3)), family.sample_tasks(rng.key(3), 5))


WRONG_TASKS = {
    "another family's": (Length(torch.ones(2).long()), "A task of Reach must be a Target, got a value of Length"),
    "a bare tensor": (torch.zeros(2, 2), "A task of Reach must be a Target, got a value of Tensor"),
    "float64": (Target(torch.zeros(2, 2).double()), r"Target.position must be float32 of shape \(N, 2\), got float64"),
    "NaN": (Target(torch.tensor([[0.0, torch.nan]])), "Target.position must be finite"),
    "an empty list": ([], "at least one task"),
    "a wrong one in a list": ([Target(torch.zeros(1, 2)), 3], "A task of Reach must be a Target, got a value of int"),
    "half a task": (2.5, "tasks must be a whole number"),
    "none": (0, "tasks must be at least 1, got 0"),
    "a truth value": (True, "tasks must be a whole number, got True"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG_TASKS)
def test_wrong_tasks_get_one_sentence(name: str):
    value, sentence = WRONG_TASKS[name]
    with pytest.raises(ValueError, match=sentence):
        as_tasks(Reach(), value)


def rl2(family: TaskFamily):
    return RL2Config(meta_batch_size=4, hidden_size=8).build(family, 1, CPU)


def test_an_agent_fits_its_own_family_and_others_with_its_spaces():
    bandit = rl2(metarl.make("metarl/BernoulliBandit-v0", num_arms=5))
    same_spaces(bandit, bandit.family)
    same_spaces(bandit, metarl.make("metarl/BernoulliBandit-v0", num_arms=5, episodes_per_trial=3))
    wider = Line()
    wider.observation_space = gymnasium.spaces.Box(-99, 99, (1,))
    same_spaces(rl2(Line()), wider)
    same_spaces(RandomAgent(Corridor()), Reach())  # it knows no family


OTHER_SPACES = {
    "more arms": ("metarl/BernoulliBandit-v0", {"num_arms": 5}, "metarl/BernoulliBandit-v0", {"num_arms": 10},
                  r"^This RL2 was made for the actions 0 … 4 \(BernoulliBandit\), but those of .* are 0 … 9\.$"),
    "other observations": ("metarl/CartPole-v0", {}, "metarl/GridNavi-v0", {},
                           r"observations of shape \(4,\) \(CartPole\), but those of GridNavi have the shape \(2,\)"),
    "continuous actions": ("metarl/GridNavi-v0", {}, "metarl/Navigation2D-v0", {}, r"actions 0 … 4 .* are Box"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_SPACES)
def test_other_spaces_get_one_sentence(name: str):
    mine, options, other, more, sentence = OTHER_SPACES[name]
    with pytest.raises(ValueError, match=sentence):
        same_spaces(rl2(metarl.make(mine, **options)), metarl.make(other, **more))


def test_the_start_and_the_bounds_of_actions_count():
    agent = rl2(Line())
    with pytest.raises(ValueError, match=r"actions 0 … 1 \(Line\), but those of Start are 1 … 2"):
        same_spaces(agent, Start())
    wide = Reach()
    wide.action_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
    with pytest.raises(ValueError, match="made for the actions Box"):
        same_spaces(rl2(Reach()), wide)


def test_rounds_are_for_agents_that_adapt_in_rounds():
    memory, gradients = rl2(TwoDoors()), MAMLConfig(meta_batch_size=4).build(TwoDoors(), 1, CPU)
    for rounds in (None, 1):
        check_rounds(memory, rounds)
    check_rounds(gradients, 5)
    with pytest.raises(ValueError, match=r"^RL2 does not adapt in rounds, so rounds must be 1, got 3: .* episodes"):
        check_rounds(memory, 3)
