"""Models of every algorithm of stable-baselines3 and sb3-contrib, played by the evaluator as SB3 itself plays them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from sb3_contrib import ARS, QRDQN, TQC, TRPO, CrossQ, MaskablePPO, RecurrentPPO
from small_families import Corridor, Reach, Start
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.vec_env import VecNormalize

from metarl.agents.sb3.agent import SB3Agent, SB3Model
from metarl.agents.sb3.config import PPOConfig
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.evaluation.evaluator import evaluate
from metarl.interop.gym_env import GymEnv
from metarl.interop.sb3_env import SB3VecEnv

ON = {"n_steps": 8}
OFF = {"learning_starts": 8, "batch_size": 8, "buffer_size": 100, "train_freq": 1}
ALGORITHMS: dict[str, tuple[Any, str, dict, str]] = {
    "PPO": (PPO, "MlpPolicy", ON | {"batch_size": 8}, "both"),
    "PPO, squashed": (PPO, "MlpPolicy", ON | {"batch_size": 8, "use_sde": True, "squash": True}, "box"),
    "A2C": (A2C, "MlpPolicy", ON, "both"),
    "TRPO": (TRPO, "MlpPolicy", ON | {"batch_size": 8}, "both"),
    "RecurrentPPO": (RecurrentPPO, "MlpLstmPolicy", ON | {"batch_size": 8}, "both"),
    "DQN": (DQN, "MlpPolicy", OFF, "discrete"),
    "QRDQN": (QRDQN, "MlpPolicy", OFF, "discrete"),
    "SAC": (SAC, "MlpPolicy", OFF, "box"),
    "SAC, state-dependent": (SAC, "MlpPolicy", OFF | {"use_sde": True}, "box"),
    "TQC": (TQC, "MlpPolicy", OFF, "box"),
    "CrossQ": (CrossQ, "MlpPolicy", OFF, "box"),
    "TD3": (TD3, "MlpPolicy", OFF, "box"),
    "DDPG": (DDPG, "MlpPolicy", OFF, "box"),
    "ARS": (ARS, "LinearPolicy", {"n_delta": 2, "n_eval_episodes": 1}, "both"),
    "ARS, squashed": (ARS, "MlpPolicy", {"n_delta": 2, "n_eval_episodes": 1}, "both"),
}


class Wide(Reach):
    """Actions in other units, so that squashed ones have to be scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.action_space = gymnasium.spaces.Box(np.float32([-3.0, 1.0]), np.float32([1.0, 2.0]), dtype=np.float32)


CASES = [
    (name, family)
    for name, (_, _, _, kind) in ALGORITHMS.items()
    for family in (Corridor(), Wide())
    if kind in ("both", "discrete" if isinstance(family, Corridor) else "box")
]


def trained(name: str, env: Any, steps: int = 40) -> Any:
    """A tiny model that has learned for a few steps."""
    kind, policy, options, _ = ALGORITHMS[name]
    network: dict[str, Any] = {"net_arch": [8]} if policy != "LinearPolicy" else {}
    if options.get("squash"):
        network["squash_output"] = True
    if name == "RecurrentPPO":
        network["lstm_hidden_size"] = 8
    options = {key: value for key, value in options.items() if key != "squash"}
    model = kind(policy, env, seed=0, device="cpu", policy_kwargs=network, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what SB3 says of tiny batches and of single environments
        return model.learn(steps)


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize(("name", "family"), CASES, ids=[f"{name}, {type(family).__name__}" for name, family in CASES])
def test_it_does_what_predict_does(name: str, family: TaskFamily, trial: bool, tmp_path: Path):
    """After a save and a load, along what SB3's view plays, the likeliest actions are those of SB3's `predict`."""
    env = SB3VecEnv(family, 1 if name.startswith("ARS") else 2, trial=trial)
    model = trained(name, env)
    model.save(tmp_path / "model.zip")
    model = type(model).load(tmp_path / "model.zip", device="cpu")
    agent = SB3Model(model, family, trial)
    rows = env.num_envs
    env.seed(1)
    obs, task = env.reset(), family.sample_tasks(rng.fold(rng.key(1), 0), rows)
    batch = BatchEnv(family, task, rng.fold(rng.key(1), 1))
    step, memory, state, starts = batch.reset(), agent.begin(rows), None, np.ones(rows, dtype=bool)
    for _ in range(6):
        acted, memory = agent.act(memory, step, rng.fold(rng.key(0), torch.arange(rows)), greedy=True)
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        np.testing.assert_allclose(acted.action.numpy(), action, atol=1e-5)
        assert all(family.action_space.contains(each) for each in acted.action.numpy())
        _, step = batch.step(acted.action)
        obs, _, starts, _ = env.step(action)
        if starts.any():
            break
    curve = evaluate(agent, family, "train", tasks=4, repeats=1)
    assert np.isfinite(curve.returns).all()


def sampled(model: Any, family: TaskFamily, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Observation, actions and their log-probabilities of `n` rows that see the same."""
    agent = SB3Model(model, family)
    batch = BatchEnv(family, family.sample_tasks(rng.key(0), 1), rng.key(1))
    one = batch.reset()
    step = type(one)(*(field.expand(n, *field.shape[1:]) for field in one))
    acted, _ = agent.act(agent.begin(n), step, rng.fold(rng.key(2), torch.arange(n)))
    return one.obs, acted.action, acted.log_prob


@pytest.mark.parametrize("name", ["SAC", "TQC", "CrossQ", "PPO, squashed"])
def test_samples_of_a_squashed_distribution_are_sb3_s(name: str):
    """The same mean, spread and log-probabilities as SB3's own draws."""
    family = Wide()
    model = trained(name, SB3VecEnv(family, 2))
    obs, action, log_prob = sampled(model, family)
    torch.manual_seed(0)
    theirs = np.concatenate([model.predict(obs.numpy(), deterministic=False)[0] for _ in range(4000)])
    np.testing.assert_allclose(action.mean(0), theirs.mean(0), atol=0.05)
    np.testing.assert_allclose(action.std(0), theirs.std(0), atol=0.05)
    if name == "SAC":
        policy, own = model.policy, torch.as_tensor(model.policy.scale_action(action.numpy()))
        with torch.no_grad():
            mean, log_std, _ = policy.actor.get_action_dist_params(obs.expand(len(action), -1))
            expected = policy.actor.action_dist.proba_distribution(mean, log_std).log_prob(own)
        torch.testing.assert_close(log_prob, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", ["DQN", "QRDQN"])
@pytest.mark.parametrize("rate", [0.0, 0.3, 1.0])
def test_random_actions_are_as_frequent_as_training_ended_with(name: str, rate: float):
    model = trained(name, SB3VecEnv(Corridor(), 2))
    model.exploration_rate = rate
    obs, action, log_prob = sampled(model, Corridor())
    best = int(model.predict(obs.numpy(), deterministic=True)[0][0])
    share = float((action == best).float().mean())
    expected = 1.0 - rate / 2
    assert share == pytest.approx(expected, abs=0.04)
    torch.testing.assert_close(log_prob[action == best].exp().mean(), torch.tensor(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["TD3", "DDPG", "ARS"])
def test_the_others_are_deterministic(name: str):
    model = trained(name, SB3VecEnv(Reach(), 1 if name == "ARS" else 2))
    _, action, log_prob = sampled(model, Reach(), n=5)
    assert bool((action == action[0]).all()) and not log_prob.any()


def test_rows_draw_by_their_own_keys():
    """A row of a batch is a batch of one, whichever policy draws."""
    for name, family in (("SAC", Reach()), ("DQN", Corridor())):
        model = trained(name, SB3VecEnv(family, 2))
        agent = SB3Model(model, family)
        step, keys = (
            BatchEnv(family, family.sample_tasks(rng.key(0), 5), rng.key(1)).reset(),
            rng.fold(rng.key(2), torch.arange(5)),
        )
        whole, _ = agent.act(agent.begin(5), step, keys)
        for row in range(5):
            one = take(step, slice(row, row + 1))
            alone, _ = agent.act(agent.begin(1), one, keys[row : row + 1])
            torch.testing.assert_close(alone.action[0], whole.action[row])


@pytest.mark.parametrize("name", ["PPO", "DQN", "ARS", "SAC", "RecurrentPPO"])
@pytest.mark.parametrize("how", ["path", "object", "its own"])
def test_statistics_of_vec_normalize(name: str, how: str, tmp_path: Path):
    """They normalise what the model sees, as they do in SB3; a loaded model without them is noticed."""
    family: TaskFamily = Reach() if name == "SAC" else Corridor()
    env = VecNormalize(SB3VecEnv(family, 1 if name == "ARS" else 4), clip_obs=3.0)
    model = trained(name, env, steps=64)
    env.save(str(tmp_path / "statistics.pkl"))
    model.save(tmp_path / "model.zip")
    loaded = type(model).load(tmp_path / "model.zip", device="cpu")
    with pytest.raises(ValueError, match=r"trained with VecNormalize: give its statistics.*vec_normalize=False .*\.$"):
        SB3Model(loaded, family)
    options = {"path": tmp_path / "statistics.pkl", "object": env, "its own": None}
    agent = SB3Model(model if how == "its own" else loaded, family, vec_normalize=options[how])
    batch = BatchEnv(family, family.sample_tasks(rng.key(5), 4), rng.key(1))
    batch.reset()
    _, step = batch.step(torch.ones(4, dtype=torch.int64) if name != "SAC" else 0.9 * torch.ones(4, 2))
    keys = rng.fold(rng.key(0), torch.arange(4))
    seen = env.normalize_obs(step.obs.numpy())
    assert np.abs(seen - step.obs.numpy()).max() > 0.1
    acted, _ = agent.act(agent.begin(4), step, keys, greedy=True)
    np.testing.assert_allclose(acted.action, model.predict(seen, deterministic=True)[0], atol=1e-5)
    raw = SB3Model(loaded, family, vec_normalize=False)
    acted, _ = raw.act(raw.begin(4), step, keys, greedy=True)
    np.testing.assert_allclose(acted.action, model.predict(step.obs.numpy(), deterministic=True)[0], atol=1e-5)


def test_statistics_that_do_not_fit(tmp_path: Path):
    family = Corridor()
    model = trained("PPO", SB3VecEnv(family, 2))
    SB3Model(model, family)  # it was trained without
    other = VecNormalize(SB3VecEnv(family, 2, trial=True))
    with pytest.raises(ValueError, match=r"of observations of shape \(2,\), as the model's, got \(6,\)\.$"):
        SB3Model(model, family, vec_normalize=other)
    other.save(str(tmp_path / "trial.pkl"))
    (tmp_path / "no.pkl").write_text("nothing")
    for path in ("trial.pkl", "no.pkl"):
        with pytest.raises(ValueError, match=f"{path} has no VecNormalize statistics for these observations"):
            SB3Model(model, family, vec_normalize=tmp_path / path)
    with pytest.raises(FileNotFoundError):
        SB3Model(model, family, vec_normalize="nowhere.pkl")
    for wrong in (True, 3, {}):
        with pytest.raises(ValueError, match="vec_normalize must be a VecNormalize, the path of its file, or False"):
            SB3Model(model, family, vec_normalize=wrong)
    rewards_only = VecNormalize(SB3VecEnv(family, 2, trial=True), norm_obs=False)
    SB3Model(trained("PPO", rewards_only), family, trial=True)


def test_a_model_whose_way_of_acting_is_not_known():
    class Masked(gymnasium.Wrapper):
        def action_masks(self) -> np.ndarray:
            return np.ones(2, dtype=bool)

    model = MaskablePPO("MlpPolicy", Masked(GymEnv(Corridor())), n_steps=8, batch_size=8, device="cpu")
    with pytest.raises(ValueError, match=r"^SB3Model plays PPO, .*; got MaskableActorCriticPolicy\.$"):
        SB3Model(model, Corridor())


def test_discrete_actions_that_do_not_start_at_0():
    """SB3 counts from 0: its baselines are trained so, and a model of two actions is played with the family's own."""
    family = Start(start=5)
    config = PPOConfig(
        meta_batch_size=4, hidden_sizes=[8], batch_size=12, test_steps=1, fast_batch_size=2, reward_scale=1.0
    )
    agent = SB3Agent(config, family, 0)
    agent.learn("train")
    task = family.sample_tasks(rng.key(0), 3)
    trial = run_trial(agent, family, task, rng.key(1), rounds=2)
    assert len(trial) == 2 and {5, 6} >= set(trial[1].acted.action.flatten().tolist())

    class FromZero(gymnasium.ActionWrapper):
        action_space = gymnasium.spaces.Discrete(2)

        def action(self, action: int) -> int:
            return action + 5

    model = DQN("MlpPolicy", FromZero(GymEnv(family)), device="cpu")
    played = SB3Model(model, family)
    step = BatchEnv(family, family.sample_tasks(rng.key(0), 3), rng.key(1)).reset()
    acted, _ = played.act(played.begin(3), step, rng.fold(rng.key(0), torch.arange(3)))
    assert set(acted.action.tolist()) <= {5, 6}
