"""What the benchmark harness measures, and which contender can do what. Imports nothing heavy: every contender does."""

from __future__ import annotations

from typing import NamedTuple

BANDIT, NAVIGATION = "metarl/BernoulliBandit-v0", "metarl/Navigation2D-v0"
CHEETAH, BODIES = "metarl/HalfCheetahVel-v0", "metarl/Walker2dRandParams-v0"


class Work(NamedTuple):
    """One thing to be measured. Its unit is the environment step of one row; padding does not count."""

    name: str
    title: str
    kind: str  # rl2, maml or stepping
    family: str
    episodes: int = 1  # of a trial
    horizon: int = 1  # steps of an episode
    rows: int = 1  # parallel tasks (rl2, maml), parallel rows (stepping)
    trajectories: int = 1  # of each task and round (maml)
    hidden: int = 128
    outer: str = "trpo"  # the outer step (maml): trpo or ppo
    epochs: int = 4  # passes of PPO
    minibatches: int = 4
    device: str = "cpu"

    @property
    def steps(self) -> int:
        """Time steps of a trial, or of one call of pure stepping."""
        return self.episodes * self.horizon


class Contender(NamedTuple):
    """Who does the work, in a process of its own: ``build(work, threads)`` of a module makes a function to be timed."""

    name: str
    module: str
    works: tuple[str, ...]
    differs: str  # from ours, where the work leaves it open
    needs: tuple[str, ...] = ()  # distributions whose versions are reported
    peers_python: bool = False  # whether it runs with the interpreter of --peers-python


WORKS = {
    work.name: work
    for work in (
        Work("W1", "RL², Bernoulli bandit, 5 arms, 10 pulls, 512 tasks", "rl2", BANDIT, episodes=10, rows=512),
        Work("W1n100", "RL², Bernoulli bandit, 5 arms, 100 pulls, 512 tasks", "rl2", BANDIT, episodes=100, rows=512),
        Work("W2", "RL², Navigation2D, 5 × 20 steps, 256 tasks", "rl2", NAVIGATION, episodes=5, horizon=20, rows=256),
        Work(
            "W3",
            "MAML with TRPO, Navigation2D, 20 tasks × 20 × 100 steps",
            "maml",
            NAVIGATION,
            horizon=100,
            rows=20,
            trajectories=20,
            hidden=64,
        ),
        Work(
            "W3ppo",
            "MAML with PPO (5 epochs), Navigation2D, 20 tasks × 20 × 100 steps",
            "maml",
            NAVIGATION,
            horizon=100,
            rows=20,
            trajectories=20,
            hidden=64,
            outer="ppo",
            epochs=5,
            minibatches=1,
        ),
        Work("W4", "Stepping, HalfCheetah, 16 rows", "stepping", CHEETAH, episodes=2, horizon=200, rows=16),
        Work("W4n512", "Stepping, HalfCheetah, 512 rows", "stepping", CHEETAH, episodes=2, horizon=200, rows=512),
        Work(
            "W4bodies",
            "Stepping, Walker2d, 64 rows with 64 bodies",
            "stepping",
            BODIES,
            episodes=2,
            horizon=200,
            rows=64,
        ),
        Work("W5", "Stepping, Navigation2D, 4096 rows", "stepping", NAVIGATION, episodes=2, horizon=100, rows=4096),
    )
}

FAMILIES = "W5families"
"""Stands for pure stepping of every registered family at 1024 rows, one work each."""

_RL2 = ("W1", "W1n100", "W2")
_MUJOCO = ("W4", "W4n512", "W4bodies")
CONTENDERS = (
    Contender("metarl", "benchmarks.ours", ("*",), "", ("metarl", "torch")),
    Contender(
        "metarl, compiled stepping",
        "benchmarks.ours_compiled",
        ("W5",),
        "`metarl.fast.compiled.CompiledEnv`: ten steps are one program of torch.compile; observations, rewards and "
        "both endings of all steps are kept.",
        ("metarl", "torch"),
    ),
    Contender(
        "JAX PPO-GRU, one jit",
        "benchmarks.peers.jax_ppo_gru",
        _RL2,
        "The iteration (rollout, advantages, all minibatches) is one compiled program. Bandit and point are written in "
        "JAX with the same inputs; randomness comes from its own generator.",
        ("jax", "jaxlib"),
        True,
    ),
    Contender(
        "TorchRL PPO-GRU",
        "benchmarks.peers.torchrl_gru",
        _RL2,
        "GRUModule, GAE and ClipPPOLoss on a batched environment written for it in plain torch; critic's targets are "
        "not rescaled.",
        ("torchrl", "tensordict", "torch"),
        True,
    ),
    Contender(
        "sb3-contrib RecurrentPPO, SB3VecEnv",
        "benchmarks.peers.sb3_recurrent",
        _RL2,
        "One LSTM of 128 units, shared by actor and critic, in place of the GRU; environments are metarl's, through "
        "`metarl.interop.sb3_env` (stepped in one batch). Minibatches are runs of consecutive steps of a row.",
        ("sb3_contrib", "stable_baselines3", "torch"),
    ),
    Contender(
        "sb3-contrib RecurrentPPO, DummyVecEnv",
        "benchmarks.peers.sb3_recurrent_dummy",
        _RL2,
        "The same with one small NumPy environment per task in a Python loop: the stock way.",
        ("sb3_contrib", "stable_baselines3", "torch"),
    ),
    Contender(
        "plain per-task PyTorch loop",
        "benchmarks.peers.maml_reference",
        ("W3", "W3ppo"),
        "Tasks one after the other in Python: rollout, baseline, adaptation, surrogate, KL and its exact Hessian "
        "products per task; the 20 trajectories of a task are one batch. Written by us as a baseline.",
        ("torch",),
    ),
    Contender(
        "tristandeleu/pytorch-maml-rl",
        "benchmarks.peers.pytorch_maml_rl",
        ("W3",),
        "A checkout of the public project, unedited, with its own Navigation2D and the settings of its configuration, "
        "which are W3's. A worker process per core steps one Gym environment per trajectory in a Python loop and sends "
        "the episodes over while the learner begins; of the steps, those before an ending count. Its policy takes the "
        "position unscaled, draws actions with a standard deviation of 1 at first (the environment clips them to 0.1), "
        "and means are taken over each trajectory before over trajectories.",
        ("gym", "torch"),
        True,
    ),
    Contender(
        "Gymnasium SyncVectorEnv, v5",
        "benchmarks.peers.mujoco_vector",
        _MUJOCO,
        "Gymnasium's own environment, one row after the other; the same bodies, its own reward.",
        ("gymnasium", "mujoco"),
    ),
    Contender(
        "Gymnasium AsyncVectorEnv, v5",
        "benchmarks.peers.mujoco_async",
        ("W4", "W4bodies"),
        "The same with a process per row, all on the cores of the measurement.",
        ("gymnasium", "mujoco"),
    ),
    Contender(
        "envpool, HalfCheetah-v5",
        "benchmarks.peers.mujoco_envpool",
        ("W4", "W4n512"),
        "Environment, reward and threads in C++.",
        ("envpool",),
        True,
    ),
    Contender(
        "mujoco.rollout, a call per action",
        "benchmarks.peers.mujoco_rollout",
        _MUJOCO,
        "MuJoCo's own batch of physics alone: no reward, ending, observation, or start of its own per row.",
        ("mujoco",),
    ),
    Contender(
        "mujoco.rollout, 20 actions per call",
        "benchmarks.peers.mujoco_open_loop",
        _MUJOCO,
        "The same, with actions that are known beforehand, as no agent's are.",
        ("mujoco",),
    ),
    Contender(
        "JAX, scan under jit",
        "benchmarks.peers.jax_stepping",
        ("W5",),
        "The whole rollout is one compiled program; actions are drawn beforehand, observations, rewards and both "
        "endings of all steps are written out.",
        ("jax", "jaxlib"),
        True,
    ),
    Contender(
        "Gymnasium SyncVectorEnv",
        "benchmarks.peers.gym_vector",
        ("W5",),
        "One plain NumPy environment per row in a Python loop; 10 steps per call instead of 200.",
        ("gymnasium", "numpy"),
    ),
)


def find(name: str) -> Work:
    """The work of a name, ``W5:ID`` being the stepping of the family ID. Raises ValueError if there is none."""
    if name.startswith("W5:"):
        return Work(name, f"Stepping, {name[3:]}, 1024 rows", "stepping", name[3:], episodes=0, rows=1024)
    if name not in WORKS:
        raise ValueError(f"Unknown work {name!r}. Known: {', '.join([*WORKS, FAMILIES])}.")
    return WORKS[name]


def expand(names: list[str]) -> list[Work]:
    """The works of the names; `FAMILIES` stands for many. MuJoCo's families are another benchmark's and left out."""
    works: list[Work] = []
    for name in names:
        if name != FAMILIES:
            works.append(find(name))
            continue
        from metarl.envs import PLAIN

        works += [find(f"W5:metarl/{family}-v0") for family in sorted(PLAIN)]
    return works


def resized(work: Work, rows: int | None, device: str) -> Work:
    """The work with another number of tasks or rows, or on another device. Raises ValueError for less than one row."""
    if rows is None or rows == work.rows:
        return work._replace(device=device)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}.")
    title = work.title
    for unit in ("tasks", "rows"):
        title = title.replace(f"{work.rows} {unit}", f"{rows} {unit}")
    return work._replace(rows=rows, device=device, title=title)


def tiny(work: Work) -> Work:
    """The same work in a size that takes no time: to try the harness, not to measure."""
    small = work._replace(rows=8, trajectories=min(work.trajectories, 3), hidden=8)
    return small._replace(episodes=min(work.episodes, 2), horizon=min(work.horizon, 5))


def contenders(work: Work, peers: bool) -> list[Contender]:
    """Who can do this work; ours alone without `peers`."""
    able = [c for c in CONTENDERS if work.name in c.works or "*" in c.works]
    return able if peers else [c for c in able if "*" in c.works]
