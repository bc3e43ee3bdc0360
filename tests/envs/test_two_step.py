"""The two-step task: its rules, exact values, and the signature of planning in the stay probabilities."""

import numpy as np
import pytest
import torch
from test_envs import assert_mean, play, random_policy
from torch import Tensor

from metarl.agents.random import FixedAgent
from metarl.agents.reference.cognitive import TwoStepBayes, TwoStepWinStay
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.envs.cognitive.two_step import Rounds, TwoStep, better_states, stay_probabilities
from metarl.testing import check_family


@pytest.mark.parametrize("family", [TwoStep(rounds=15), TwoStep(rounds=3, episodes_per_trial=2)])
def test_the_contract(family):
    check_family(family)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="rounds must be a whole number of at least 1"):
        TwoStep(rounds=0)
    with pytest.raises(ValueError, match="episodes_per_trial must be a whole number of at least 1"):
        TwoStep(episodes_per_trial=0)


def test_the_better_state_switches():
    for split, common in (("train", [1, 2]), ("test", [1, 2]), ("ood", [2, 1])):
        task = TwoStep().sample_tasks(rng.key(0), 10_000, split)
        assert (task.common == torch.tensor(common)).all()
        better = better_states(task)
        assert better.shape == (10_000, 100) and set(better.flatten().tolist()) == {1, 2}
        assert_mean(better[:, 0] == 1, 0.5, within=0.03)
        assert_mean((better[:, 1:] != better[:, :-1]).double().mean(1), 0.025, within=0.001)
        assert_mean((better == better[:, :1]).all(1), 0.975**99, within=0.012)


def test_a_trial_plays_the_rounds_of_its_task():
    """The better state that the physics uses is the one that the task says, in every round and again in episode 2."""
    family = TwoStep(rounds=40, episodes_per_trial=2)
    task = family.sample_tasks(rng.key(0), 50)
    env = BatchEnv(family, task, rng.key(1))
    env.reset()
    for t in range(160):
        assert torch.equal(env.state.better, better_states(task)[:, t // 2 % 40])
        assert torch.equal(env.state.round, torch.full((50,), t // 2 % 40))
        assert (env.state.current == 0).all() == (t % 2 == 0)
        outcome, _ = env.step(torch.ones(50, dtype=torch.int64))
        assert t % 2 or (outcome.reward == 0).all(), "the first step of a round pays nothing"
        assert not outcome.terminated.any() and outcome.truncated.all() == (t % 80 == 79)


@pytest.mark.parametrize("split", ["train", "ood"])
def test_chances_of_a_round(split):
    family, n = TwoStep(rounds=1), 20_000
    task = family.sample_tasks(rng.key(0), n, split)
    for action in (0, 1):
        env = BatchEnv(family, task, rng.key(1))
        env.reset()
        assert env.step(torch.full((n,), action))[1].obs[:, 0].sum() == 0
        second = env.state.current
        assert_mean(second == task.common[:, action], 0.8, within=0.02)
        reward = env.step(torch.full((n,), 1 - action))[0].reward
        better = second == better_states(task)[:, 0]
        assert_mean(reward[better], 0.9, within=0.02)
        assert_mean(reward[~better], 0.1, within=0.02)


def test_known_task_and_random_returns_are_earned():
    family, n = TwoStep(), 2000
    task = family.sample_tasks(rng.key(0), n)
    assert family.oracle(task).tolist() == pytest.approx([74.0] * n)
    assert family.random_return(task).tolist() == pytest.approx([50.0] * n)
    better = better_states(task)
    told = play(family, task, lambda step, t: better[:, t // 2] - 1)[:, 0]  # action 0 is for S2, the state 1
    assert_mean(told, 74.0, within=0.5)
    assert_mean(play(family, task, random_policy(family))[:, 0], 50.0, within=0.6)
    short = TwoStep(rounds=2)
    task = take(short.sample_tasks(rng.key(0), 10_000), slice(None))
    assert_mean(play(short, task, lambda step, t: better_states(task)[:, t // 2] - 1)[:, 0], 1.48, within=0.03)


# ---- agents --------------------------------------------------------------------------------------------------------


class WinReturn(TwoStepWinStay):
    """Model-based with a memory of one round: chooses for the second state that paid, away from one that did not."""

    def learn(self, number: Tensor, second: Tensor, paid: Tensor) -> Tensor:
        return torch.where(paid, second - 1, 2 - second).float()


def signature(agent: FixedAgent, n: int = 1000) -> Tensor:
    family = TwoStep()
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(0), n), rng.key(1))
    return stay_probabilities(rollout.step.obs, rollout.acted.action, rollout.outcome.reward)


def effects(stay: Tensor) -> tuple[float, float]:
    """(main effect of the reward, interaction of reward and transition), each from -1 to 1."""
    unrewarded, rewarded = stay
    return float((rewarded - unrewarded).mean()), float(rewarded[1] - rewarded[0] - unrewarded[1] + unrewarded[0]) / 2


def test_planning_shows_in_the_interaction():
    main, interaction = effects(signature(TwoStepBayes(sharpness=4.0)))
    assert interaction > 0.3 and abs(main) < interaction / 4, (main, interaction)


def test_repeating_what_paid_shows_in_the_main_effect():
    main, interaction = effects(signature(TwoStepWinStay(noise=0.2)))
    assert main == pytest.approx(0.6, abs=0.02) and interaction == pytest.approx(0.0, abs=0.02)


def test_stay_probabilities_of_pure_strategies():
    assert signature(TwoStepWinStay(), 50).tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert signature(WinReturn(), 50).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_stay_probabilities_by_hand():
    """Five rounds: 0 to S2, paid; 0 to S3, not; 1 to S2, paid; 1 to S3, not; 0 to S2. So each cell is met once."""
    second = torch.tensor([1, 2, 1, 2, 1])
    obs = torch.zeros(10, 1, 3)
    obs[0::2, 0, 0] = 1.0
    obs[torch.arange(1, 10, 2), 0, second] = 1.0
    action = torch.tensor([0, 1, 0, 1, 1, 0, 1, 0, 0, 0])[:, None]
    reward = torch.tensor([0, 1, 0, 0, 0, 1, 0, 0, 0, 1.0])[:, None]
    stay = stay_probabilities(obs, action, reward)
    # rewarded common: stayed; unrewarded uncommon: changed; rewarded uncommon: stayed; unrewarded common: changed
    assert stay.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    swapped = stay_probabilities(obs, action, reward, common=(2, 1))
    assert swapped.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert stay_probabilities(obs[:4], action[:4], reward[:4]).isnan().tolist() == [[True, True], [True, False]]
    for wrong in ((obs[:3], action[:3], reward[:3]), (obs, action, reward[:, 0]), (obs[..., :2], action, reward)):
        with pytest.raises(ValueError, match="two steps per round"):
            stay_probabilities(*wrong)


def bayes_value(rounds: int = 100, cells: int = 4001) -> float:
    """The expected return of acting on the exact belief, by pushing the belief's distribution forward on a grid."""
    belief = np.linspace(0.0, 1.0, cells)
    mass = np.zeros(cells)
    mass[cells // 2] = 1.0
    value = 0.0
    for _ in range(rounds):
        value += float(mass @ (0.26 + 0.48 * np.maximum(belief, 1.0 - belief)))
        after = np.zeros(cells)
        for sign in (0.9, 0.1):
            chance = belief * sign + (1 - belief) * (1 - sign)
            place = (0.025 + 0.95 * belief * sign / chance) * (cells - 1)
            low = np.floor(place).astype(int).clip(0, cells - 2)
            np.add.at(after, low, mass * chance * (low + 1 - place))
            np.add.at(after, low + 1, mass * chance * (place - low))
        mass = after
    return value


def test_the_bayes_optimal_agent_earns_its_value():
    """70.586: knowledge of the rules without being told is worth 3.4 rewards less than being told."""
    assert bayes_value() == pytest.approx(70.586, abs=0.005)
    family, agent = TwoStep(), TwoStepBayes()
    (rollout,) = run_trial(agent, family, family.sample_tasks(rng.key(0), 4000), rng.key(1))
    assert_mean(rollout.outcome.reward.sum(0), 70.586, within=0.4)


def test_a_new_episode_is_played_as_a_first_one():
    """It begins every episode without an opinion, so that each is worth what the first one is."""
    family = TwoStep(rounds=15, episodes_per_trial=3)
    (rollout,) = run_trial(TwoStepBayes(), family, family.sample_tasks(rng.key(2), 3000), rng.key(3))
    reward = rollout.outcome.reward.unflatten(0, (3, 30)).sum(1)  # (episodes, B)
    for episode in reward:
        assert_mean(episode, bayes_value(15), within=0.3)


def test_pictures():
    family = TwoStep()
    task = family.sample_tasks(rng.key(0), 1)

    def picture(seed: int) -> np.ndarray:
        env, policy = BatchEnv(family, task, rng.key(0)), random_policy(family, seed)
        step = env.reset()
        states = [env.state]
        for t in range(60):
            step = env.step(policy(step, t))[1]
            states.append(env.final_state)
        return family.render(task, states)

    image = picture(1)
    assert image.dtype == np.uint8 and image.shape[2] == 3
    assert min(image.shape[:2]) > 100 and max(image.shape[:2]) < 1500
    assert not np.array_equal(image, picture(2)), "the choices are not in the picture"
    assert family.render(task, []).shape[2] == 3


def test_the_first_round_of_a_fixed_tape():
    task = Rounds(torch.tensor([[0.4, 0.5, 0.01], [0.6, 0.02, 0.9]]), torch.tensor([[1, 2], [1, 2]]))
    assert better_states(task).tolist() == [[2, 2, 1], [1, 2, 2]]
