"""stable-baselines3's agents: they keep the contract, update as SB3 does, learn, and are saved by SB3's own means."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sb3_contrib import RecurrentPPO
from small_families import Corridor, Reach, Start, TwoDoors
from stable_baselines3 import PPO

import metarl
from metarl.agents.random import FixedAgent
from metarl.agents.sb3.agent import EPISODES, ZIP, SB3Agent, SB3Model
from metarl.agents.sb3.config import PPOConfig
from metarl.agents.sb3.models import filled_buffer
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Step
from metarl.core.family import Task, TaskFamily
from metarl.core.rollout import Acted, collect
from metarl.core.tree import features
from metarl.evaluation.evaluator import evaluate
from metarl.interop.sb3_env import SB3VecEnv
from metarl.testing import check_agent
from metarl.train import main as train
from metarl.training import checkpoint

CPU = torch.device("cpu")
KINDS = {"multi-task": {}, "recurrent": {"recurrent": True}, "told": {"task_input": True}, "tuned": {"test_steps": 2}}


def config(family: TaskFamily, **options) -> PPOConfig:
    """Of one minibatch per pass, so that the first step's likelihood ratio is 1."""
    small = PPOConfig(meta_batch_size=4, fast_batch_size=3, hidden_sizes=(8,), lstm_size=8, batch_size=4, **options)
    return replace(small, batch_size=small.steps_of(family) * 4)


@pytest.mark.parametrize("family", [Reach(), TwoDoors(), Corridor()], ids=lambda family: type(family).__name__)
@pytest.mark.parametrize("kind", KINDS)
def test_they_keep_the_contract(family: TaskFamily, kind: str):
    check_agent(config(family, **KINDS[kind]), family)


class Again(FixedAgent):
    """Repeats noted actions."""

    def __init__(self, actions: torch.Tensor, log_probs: torch.Tensor) -> None:
        super().__init__()
        self.actions, self.log_probs = actions, log_probs

    def begin(self, num_tasks: int, task: Task | None = None) -> int:
        return 0

    def act(self, memory: int, step: Step, key: torch.Tensor, greedy: bool = False) -> tuple[Acted, int]:
        return Acted(self.actions[memory], self.log_probs[memory], torch.zeros(len(key))), memory + 1


@pytest.mark.parametrize("family", [Reach(), TwoDoors(), Corridor(), Start()], ids=lambda family: type(family).__name__)
def test_an_update_on_a_task_learns_from_what_the_library_would_learn_from(family: TaskFamily):
    """SB3's own loop plays and fills its buffer; the same play through our rollout fills an equal one."""
    options = {"test_steps": 1, "fast_batch_size": 4, "reward_scale": 0.5}
    agent = SB3Agent(replace(config(family), **options), family, 0)
    buffers = []
    agent.model.train = lambda: buffers.append(copy.deepcopy(agent.model.rollout_buffer))
    with pytest.raises(KeyError):  # nothing was learned, so there is nothing to report
        agent.learn("train")
    (theirs,) = buffers
    root = rng.key(1_000_003)  # of the first update of seed 0
    task = family.sample_tasks(rng.fold(root, 0), 4)
    played = torch.as_tensor(theirs.actions)
    played = agent.env.to_family(played if agent.env.scale else played[..., 0].to(torch.int64))
    env = BatchEnv(family, task, rng.fold(root, 1), episodes=1)
    rollout, _ = collect(Again(played, torch.as_tensor(theirs.log_probs)), 0, env, rng.key(0))
    memory = agent.begin(4, task)
    inputs = (agent._inputs(x, memory) for x in (rollout.step.obs, rollout.outcome.final_obs))
    own = rollout._replace(acted=rollout.acted._replace(action=agent.env.from_family(rollout.acted.action)))
    ours = filled_buffer(agent.model, own, *inputs, slice(0, 4), agent.env.reward_scale)
    mask = rollout.mask.numpy() > 0
    for name in ("observations", "actions", "rewards", "values", "log_probs", "advantages", "returns"):
        expected = getattr(theirs, name)[: len(mask)][mask]
        found = getattr(ours, name)
        found = found[:, 0] if ours.n_envs == 1 else found[mask]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5, err_msg=name)


def test_each_task_learns_for_itself_and_nothing_is_left_behind():
    family = Reach()
    agent = SB3Agent(config(family, test_steps=2), family, 0)
    before = {name: value.clone() for name, value in agent.state_dict().items()}
    both = evaluate(agent, family, "test", tasks=2).returns
    alone = evaluate(agent, family, "test", tasks=1).returns
    np.testing.assert_allclose(both[:, :1], alone, rtol=1e-4, atol=1e-5)
    for name, value in agent.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_the_experience_that_an_update_needs_is_counted():
    family = Corridor()
    curve = evaluate(SB3Agent(config(family, test_steps=3), family, 0), family, "test", tasks=2)
    assert curve.labels == ("0 PPO updates", "1 PPO update", "2 PPO updates", "3 PPO updates") and curve.rounds
    assert curve.episodes.tolist() == [0, 3, 6, 9], "three episodes before each"
    assert 3 <= curve.env_steps[1] <= 3 * family.horizon


def test_what_it_is_told_is_the_task_of_its_row():
    family = Reach()
    env = SB3VecEnv(family, 3, show_task=True)
    env.seed(0)
    first = env.reset()
    size = features(family.sample_tasks(rng.key(0), 1)).shape[1]
    assert env.observation_space.shape == (first.shape[1],) and env.observation_space.contains(first[0])
    tasks = [features(env.env_method("get_task", indices=row)[0])[0] for row in range(3)]
    np.testing.assert_array_equal(first[:, -size:], torch.stack(tasks).numpy())
    for _ in range(family.horizon):
        obs, _, done, infos = env.step(np.zeros((3, *env.action_space.shape), dtype=np.float32))
    assert done.all()
    np.testing.assert_array_equal(infos[1]["terminal_observation"][-size:], tasks[1].numpy())
    assert not np.array_equal(obs[1, -size:], tasks[1].numpy()), "the next episode has another task"
    with pytest.raises(ValueError, match="begin needs it"):
        SB3Agent(config(family, task_input=True), family, 0).begin(2)


def test_it_learns_only_in_its_own_loop():
    agent = SB3Agent(config(Corridor()), Corridor(), 0)
    with pytest.raises(TypeError, match=r"^SB3Agent plays its own episodes .*: call learn\(split, progress\)\.$"):
        agent.update([])
    metrics, env_steps = agent.learn("train")
    assert env_steps == agent.steps * agent.env.num_envs and "train/return" in metrics
    assert not agent.captured and agent.step_name == "PPO update" and not agent.costly
    assert SB3Agent(config(Corridor(), test_steps=1), Corridor(), 0).costly


def test_it_is_trained_on_the_split_of_the_run():
    """Corridors of the split `ood` are longer than those of `train`."""
    lengths = {}
    for split in ("train", "ood"):
        agent = SB3Agent(config(Corridor()), Corridor(), 0)
        agent.learn(split)
        lengths[split] = set(agent.env.venv.venv._stream.playing().length.tolist())
    assert lengths["train"] <= {1, 2, 4} and lengths["ood"] <= {6, 7}


def test_from_scratch_it_learns_a_task_and_the_rest_stays_fair():
    """On each task alone, PPO improves; before its first update it is as blind as a random start."""
    family = metarl.make("metarl/BernoulliBandit-v0", num_arms=3, episodes_per_trial=10)
    config = PPOConfig(test_steps=6, fast_batch_size=30, num_steps=16, batch_size=16, fast_lr=0.01)
    curve = evaluate(SB3Agent(config, family, 1), family, "test", tasks=12)
    assert curve.mean()[-1] > curve.mean()[0] + 0.05 and curve.mean()[-1] > curve.bounds["random"] + 0.05


@pytest.mark.parametrize("family", [Reach(), TwoDoors()], ids=lambda family: type(family).__name__)
@pytest.mark.parametrize("trial", [False, True])
def test_a_model_of_somebody_s_own_is_evaluated(family: TaskFamily, trial: bool, tmp_path: Path):
    """By its likeliest action it does what SB3's `predict` does; a model for other spaces is refused."""
    kind, name = (RecurrentPPO, "MlpLstmPolicy") if trial else (PPO, "MlpPolicy")
    env = SB3VecEnv(family, 4, trial=trial)
    kind(name, env, n_steps=4, batch_size=16, seed=0, device="cpu").save(tmp_path / "model.zip")
    model = kind.load(tmp_path / "model.zip", device="cpu")
    agent = SB3Model(model, family, trial)
    assert evaluate(agent, family, "train", tasks=5).returns.shape == (1, 5, family.episodes_per_trial)
    env.seed(1)
    obs, task = env.reset(), family.sample_tasks(rng.fold(rng.key(1), 0), 4)
    batch = BatchEnv(family, task, rng.fold(rng.key(1), 1))
    step, memory, state, starts = batch.reset(), agent.begin(4), None, np.ones(4, dtype=bool)
    for _ in range(batch.max_steps):
        acted, memory = agent.act(memory, step, rng.fold(rng.key(0), torch.arange(4)), greedy=True)
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        np.testing.assert_allclose(acted.action.numpy(), action, atol=1e-5)
        _, step = batch.step(acted.action)
        obs, _, starts, _ = env.step(action)
        if not trial and starts.any():
            break
    with pytest.raises(ValueError, match="which are not those of Corridor"):
        SB3Model(model, Corridor(), trial)


def test_a_run_is_trained_saved_and_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    small = [
        "--config=ppo_gridnavi", "--total_iterations=2", "--agent.meta_batch_size=4", "--agent.batch_size=60",
        "--agent.test_steps=1", "--agent.fast_batch_size=2", "--eval_every=1", "--eval_tasks=4", "--final_eval_tasks=4",
        "--num_threads=1",
    ]  # fmt: skip
    assert train([*small, f"--run_dir={run}"]) == 0
    agent = metarl.load(run)
    model = PPO.load(run / ZIP, device="cpu")
    for name, value in agent.model.policy.state_dict().items():
        torch.testing.assert_close(model.policy.state_dict()[name], value, rtol=0, atol=0)
    _, counters = checkpoint.load_state(run)
    assert counters.env_steps == 2 * 4 * 15
    again = tmp_path / "again"
    assert train([*small, "--total_iterations=1", f"--run_dir={again}"]) == 0
    assert train([f"--resume={again}", "--total_iterations=2"]) == 0
    for name, value in metarl.load(again).state_dict().items():
        torch.testing.assert_close(value, agent.state_dict()[name], rtol=0, atol=0)


def test_the_episodes_whose_mean_is_logged_are_in_the_checkpoint():
    """SB3 logs the mean of the latest 100 episodes; the best agent's file and other runs do without them."""
    family = metarl.make("metarl/GridNavi-v0")
    first, second = (PPOConfig(meta_batch_size=4, batch_size=60).build(family, 1, CPU) for _ in range(2))
    for _ in range(3):
        first.learn("train")
    state = {name: value.clone() for name, value in first.state_dict().items()}
    second.load_state_dict(state)
    assert second.model.num_timesteps == first.model.num_timesteps == 180
    assert second.learn("train").metrics == first.learn("train").metrics
    assert state.keys() == second.state_dict().keys()
    former = PPOConfig(meta_batch_size=4, batch_size=60).build(family, 1, CPU)
    former.load_state_dict({name: value for name, value in state.items() if name != EPISODES})
    assert former.state_dict()[EPISODES].count_nonzero() == 0, "a former checkpoint has none"
    former.start_from(state)
    assert former.state_dict()[EPISODES].count_nonzero() == 0, "those of another run are not this one's"


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 7}, "batch_size must divide the 60 steps of an iteration"),
        ({"test_steps": -1}, "test_steps must be at least 0, got -1"),
        ({"recurrent": True, "test_steps": 1}, "recurrent must be false with test_steps or task_input"),
        ({"reward_scale": 0.0}, "reward_scale must be positive"),
    ],
)
def test_mistakes(options: dict, match: str):
    with pytest.raises(ValueError, match=match):
        PPOConfig(**({"meta_batch_size": 4, "batch_size": 60} | options)).build(
            metarl.make("metarl/GridNavi-v0"), 0, CPU
        )
