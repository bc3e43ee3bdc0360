"""A trained agent in a Gymnasium loop: it does there what it does in a trial."""

from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from small_families import Corridor, Reach
from toy import Guess

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.core.rollout import collect, episode_returns
from metarl.core.tree import take
from metarl.envs import GridNavi
from metarl.interop.gym_env import GymEnv
from metarl.interop.player import PLAYING, Moment, Player

CPU = torch.device("cpu")


def rl2(family: TaskFamily, **options):
    return RL2Config(hidden_size=8, **options).build(family, 1, CPU)


def one_task(family: TaskFamily, seed: int = 3):
    return family.sample_tasks(rng.key(seed), 1, "train")


class Recorded(gymnasium.Wrapper):
    """Notes down the actions."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.actions: list[int] = []

    def step(self, action):
        self.actions.append(int(action))
        return self.env.step(action)


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("which", ["fresh", "transitions", "trained"])
def test_episodes_in_gymnasium_s_loop_are_the_trial(which: str, greedy: bool):
    """The same inputs, memory and noise as in `collect`, hence the same actions; GridNavi's physics has no chance."""
    family = GridNavi()
    trained = metarl.load("pretrained:rl2_gridnavi") if which == "trained" else None
    agent, task = trained or rl2(family, transition_input=which == "transitions"), one_task(family)
    key = rng.fold(rng.fold(rng.key(5), PLAYING), 0)
    rollout, _ = collect(agent, agent.begin(1), BatchEnv(family, task, rng.key(0)), key, greedy)
    env = GymEnv(family)
    env.set_task(task)
    recorded = Recorded(env)
    returns = Player(agent, seed=5, greedy=greedy).play(recorded, episodes=4)
    np.testing.assert_allclose(returns, episode_returns(rollout, 4)[0], rtol=1e-5)
    assert recorded.actions == rollout.acted.action[:, 0].tolist()


def test_play_is_the_loop_that_is_written_out():
    family = GridNavi()
    agent, env = rl2(family), GymEnv(family)
    env.set_task(one_task(family))
    player, returns = Player(agent), []
    for _ in range(3):
        obs, _ = env.reset()
        total, done = 0.0, False
        while not done:
            obs, reward, terminated, truncated, _ = env.step(player.act(obs))
            player.tell(reward, terminated, truncated)
            total += reward
            done = terminated or truncated
        returns.append(total)
    np.testing.assert_array_equal(returns, Player(agent).play(env, episodes=3))


def test_a_trained_agent_remembers_the_goal_until_it_begins_again():
    """In episode 2 it goes where episode 1 found the goal; with a fresh memory it has to search again."""
    agent = metarl.load("pretrained:rl2_gridnavi")
    env = GymEnv(agent.family)
    firsts, seconds, again = [], [], []
    for task in env.sample_tasks(12, split="all", seed=1):
        env.set_task(task)
        player = Player(agent, greedy=True)
        first, second = player.play(env, episodes=2)
        player.begin()
        firsts.append(first), seconds.append(second), again.append(player.play(env)[0])
    assert np.mean(seconds) > np.mean(firsts) + 3 and again == firsts


def test_an_environment_that_metarl_did_not_make():
    """Gymnasium's own pole on a cart, twice as heavy a pull; the agent knows it only by acting in it."""
    agent = metarl.load("pretrained:rl2_cartpole")
    env = gymnasium.make("CartPole-v1")
    env.unwrapped.gravity = 19.6
    returns = Player(agent, greedy=True).play(env, episodes=2, seed=0)
    np.testing.assert_array_equal(returns, [500.0, 500.0])


def test_actions_are_what_the_environment_takes():
    discrete, box = Player(rl2(GridNavi())), Player(rl2(Reach()))
    action = discrete.act(np.zeros(2))
    assert isinstance(action, np.int64) and GridNavi().action_space.contains(action)
    space = Reach().action_space
    for step in range(50):  # a Gaussian goes beyond the bounds now and then
        action = box.act(np.zeros(Reach().observation_space.shape))
        assert space.contains(action), action
        box.tell(0.0, step % 5 == 4)


def test_players_do_not_share_anything_but_the_agent():
    agent, obs = rl2(GridNavi()), np.zeros(2)
    one, other = Player(agent, seed=1), Player(agent, seed=1)
    for step in range(6):
        assert one.act(obs) == other.act(obs)
        one.tell(1.0, step == 3)
        other.tell(1.0, step == 3)
    noise = [[int(player.act(obs)), player.tell(0.0, False)] for _ in range(20) for player in (one, Player(agent))]
    assert len({action for action, _ in noise}) > 1


def test_a_gradient_agent_adapts_to_it_between_rounds():
    """The episodes of the loop, as rows of a round, give the gradient step that the same episodes give side by side."""
    family = Guess()
    agent = MAMLConfig(meta_batch_size=2, fast_batch_size=5, hidden_sizes=[8], fast_lr=0.5).build(family, 1, CPU)
    env = GymEnv(family)
    env.set_task(one_task(family))
    player = Player(agent)
    before = player.memory
    player.play(env, episodes=5)
    moments = player._round
    player.adapt()
    assert int(player.memory.steps) == 1 and player._round == []
    assert any(not torch.equal(a, b) for a, b in zip(before.params, player.memory.params))
    again = Player(agent)
    again._round = moments[::-1]
    again.adapt()
    for a, b in zip(player.memory.params, again.memory.params):
        torch.testing.assert_close(a, b)  # the order of a round's episodes says nothing


def test_episodes_of_unlike_length_are_padded():
    family = Guess()
    agent = MAMLConfig(meta_batch_size=2, fast_batch_size=2, hidden_sizes=[8], fast_lr=0.5).build(family, 1, CPU)

    def adapted(lengths: list[int]):
        player = Player(agent)
        for length in lengths:
            for step in range(length):
                player.act(np.zeros(1))
                player.tell(float(step), step == length - 1)
        seen = []
        agent_adapt, agent.adapt = agent.adapt, lambda memory, rollout: seen.append(rollout) or memory
        player.adapt()
        agent.adapt = agent_adapt
        return seen[0]

    rollout = adapted([1, 3])
    assert rollout.mask.T.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert (rollout.outcome.reward * rollout.mask).T.tolist() == [[0, 0, 0], [0, 1, 2]]
    assert rollout.outcome.terminated.T.tolist() == [[True] * 3, [False, False, True]]


def actions_of(player: Player, steps: int, horizon: int = 2) -> list[int]:
    """Of whole episodes."""
    found = []
    for step in range(steps):
        found.append(int(player.act(np.zeros(1))))
        player.tell(float(found[-1]), False, step % horizon == horizon - 1, np.zeros(1))
    return found


def test_what_adapt_learns_from_is_sampled_also_by_a_greedy_player():
    """Until it has adapted as often as it was made to; what is reported then is greedy."""
    config = MAMLConfig(meta_batch_size=2, fast_batch_size=5, hidden_sizes=[8], fast_lr=0.5, test_steps=2)
    agent = config.build(Guess(numbers=5), 1, CPU)
    greedy, sampled = Player(agent, seed=4, greedy=True), Player(agent, seed=4)
    for adapted in range(2):
        assert greedy.exploring and greedy.adapted == adapted
        actions = actions_of(greedy, 40)
        assert actions == actions_of(sampled, 40) and len(set(actions)) > 1
        greedy.adapt(), sampled.adapt()
    assert not greedy.exploring
    assert len(set(actions_of(greedy, 40))) == 1 < len(set(actions_of(sampled, 40)))
    sampled.adapt()  # as often as one likes
    with pytest.raises(
        ValueError, match=r"sampled actions, but this agent has adapted 2 times and now plays greedily.*begin"
    ):
        greedy.adapt()
    greedy.begin()
    assert greedy.exploring and len(set(actions_of(greedy, 40))) > 1
    assert not Player(rl2(GridNavi()), greedy=True).exploring, "it learns while it acts"


def fine_tuned(family: TaskFamily, **options):
    config = PPOConfig(meta_batch_size=4, fast_batch_size=3, hidden_sizes=[8], test_steps=2, batch_size=4, **options)
    return replace(config, batch_size=config.steps_of(family) * 4).build(family, 1, CPU)


@pytest.mark.parametrize("family", [Corridor(), Reach()], ids=["episodes of unlike length", "all truncated"])
def test_fine_tuned_ppo_adapts_to_an_environment_as_in_a_trial(family: TaskFamily):
    """The episodes of a round, one after the other, give each update that they give side by side; fewer do, too."""
    agent = fine_tuned(family)
    task = take(family.sample_tasks(rng.key(1), 1), torch.zeros(3, dtype=torch.int64))
    rollout, _ = collect(agent, agent.begin(1), BatchEnv(family, task, rng.key(2), episodes=1), rng.key(3))
    expected = agent.adapt(agent.begin(1), rollout)
    player = Player(agent)
    lengths = rollout.mask.sum(0).int().tolist()
    assert len(set(lengths)) > 1 or isinstance(family, Reach)
    for row, length in enumerate(lengths):
        one = [[take(take(part, t), slice(row, row + 1)) for part in rollout[:3]] for t in range(length)]
        player._round.append([Moment(*parts) for parts in one])
    player.adapt()
    assert int(player.memory.updates) == 1
    for name, value in expected.learned.items():
        torch.testing.assert_close(player.memory.learned[name], value, rtol=1e-4, atol=1e-5)
    player.play(GymEnv(family), episodes=5)  # more than it was trained with
    player.adapt()
    assert int(player.memory.updates) == 2 and not player.exploring


def test_the_observation_after_a_truncated_episode_is_used():
    """By an agent that estimates what would have followed; in `play` it is told."""
    agent = fine_tuned(Reach())
    learned = []
    for last in (None, [1.0, 1.0], [-1.0, -1.0]):
        player = Player(agent)
        for step in range(3):
            player.act(np.zeros(2))
            player.tell(-1.0, False, step == 2, last)
        player.adapt()
        learned.append(player.memory.learned["net.value_net.weight"])
    assert not torch.equal(learned[1], learned[2]) and not torch.equal(learned[0], learned[1])
    player = Player(agent)
    env = GymEnv(Reach())
    player.play(env, episodes=1, seed=0)
    final = player._round[0][-1].outcome.final_obs[0]
    assert not torch.equal(final, player._round[0][-1].step.obs[0])


def test_numbers_of_every_library():
    agent, env = rl2(GridNavi()), GymEnv(GridNavi())
    plain = Player(agent, seed=3, greedy=True).play(env, episodes=2, seed=1)
    numpy = Player(agent, seed=np.int64(3), greedy=np.True_).play(env, episodes=np.int32(2), seed=np.int64(1))
    np.testing.assert_array_equal(plain, numpy)
    player, other = Player(agent), Player(agent)
    player.act([0, 0]), other.act(torch.zeros(2))
    player.tell(1, False), other.tell(np.float32(1.0), np.False_, np.False_)
    for one in (np.array(1.0), np.array([1.0]), torch.tensor(1.0), torch.tensor([[1.0]])):
        assert player.act([0, 1]) == other.act(np.array([0, 1]))
        player.tell(1.0, True), other.tell(one, np.True_)


def test_an_agent_that_learns_while_it_acts_has_nothing_to_adapt():
    player = Player(rl2(GridNavi()))
    player.act(np.zeros(2))
    player.tell(1.0, False)
    before = player.memory
    player.adapt()
    assert player.memory is before and not player._round


def test_mistakes_are_one_sentence():
    player = Player(rl2(GridNavi()))
    with pytest.raises(ValueError, match="first: tell reports the result of an action"):
        player.tell(0.0, False)
    with pytest.raises(ValueError, match=r"observations of shape \(2,\), got \(3,\)"):
        player.act(np.zeros(3))
    player.act(np.zeros(2))
    with pytest.raises(ValueError, match=r"Call tell\(reward"):
        player.act(np.zeros(2))
    for reward in (float("nan"), np.inf, None, "x", [1.0, 2.0]):
        with pytest.raises(ValueError, match="A reward must be a finite number, got"):
            player.tell(reward, False)
    with pytest.raises(ValueError, match=r"observations of shape \(2,\), got \(3,\)"):
        player.tell(0.0, False, True, np.zeros(3))
    for ends in (("no",), (None,), (1.0,), (False, "yes"), (np.zeros(2, bool),)):
        with pytest.raises(ValueError, match=r"^(terminated|truncated) must be True or False, got"):
            player.tell(0.0, *ends)
    assert player._waiting is not None, "nothing was told"
    for env in ("CartPole-v1", GridNavi(), None, gymnasium.make_vec("CartPole-v1", num_envs=2)):
        with pytest.raises(ValueError, match=r"^env must be a single environment, such as gymnasium.make returns, got"):
            player.play(env)
    with pytest.raises(ValueError, match=r"^episodes must be a whole number of at least 1, got 1\.5"):
        player.play(GymEnv(GridNavi()), episodes=1.5)
    other = Player(rl2(GridNavi()))
    other.act(torch.zeros(2, requires_grad=True)), other.tell(0, 0, torch.tensor(False))
    for obs in ([0.0, np.nan], [np.inf, 0.0], [1e300, 0.0]):
        with pytest.raises(ValueError, match="An observation must be finite, got"):
            other.act(obs)
    for obs in ({"x": 1}, "ab", [[1], [2, 3]], None):
        with pytest.raises(
            ValueError, match=r"^(An observation must consist of numbers of|The agent was trained on obs.*) shape"
        ):
            other.act(obs)
    with pytest.raises(ValueError, match=r"observation space is Box.*trained on GridNavi"):
        player.play(gymnasium.make("CartPole-v1"))
    maml = MAMLConfig(meta_batch_size=2, fast_batch_size=2, hidden_sizes=[8]).build(Guess(), 1, CPU)
    with pytest.raises(ValueError, match="complete episodes"):
        Player(maml).adapt()
