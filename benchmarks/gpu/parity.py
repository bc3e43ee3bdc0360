"""One iteration of an agent on two devices from the same seed: how far apart they end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from metarl import rng
from metarl.agent import AgentConfig, LearningAgent
from metarl.agents import MAMLConfig, RL2Config
from metarl.envs import BernoulliBandit, Navigation2D
from metarl.family import TaskFamily
from metarl.memories import MEMORIES
from metarl.rollout import run_trial

SMALL: dict[str, Any] = {"meta_batch_size": 8, "fast_batch_size": 10, "hidden_sizes": (32, 32)}
AGENTS: dict[str, tuple[AgentConfig, TaskFamily]] = {
    **{
        f"RL², {memory}": (RL2Config(meta_batch_size=64, memory=memory, hidden_size=32), BernoulliBandit(5, 10))
        for memory in MEMORIES
    },
    "RL², continuous": (RL2Config(meta_batch_size=64, hidden_size=32), Navigation2D(20, 2)),
    "MAML, vpg, TRPO": (MAMLConfig(**SMALL, inner_loss="vpg"), Navigation2D(20, 1)),
    "MAML, likelihood ratio, PPO": (
        MAMLConfig(**SMALL, inner_loss="likelihood_ratio", outer="ppo", num_minibatches=1),
        Navigation2D(20, 1),
    ),
    "ProMP": (
        MAMLConfig(**SMALL, inner_loss="likelihood_ratio", outer="ppo", inner_kl_coef=5e-4, num_minibatches=1),
        Navigation2D(20, 1),
    ),
    "FOMAML": (MAMLConfig(**SMALL, first_order=True), Navigation2D(20, 1)),
    "ANIL": (MAMLConfig(**SMALL, adapted="head"), Navigation2D(20, 1)),
    "Meta-SGD": (MAMLConfig(**SMALL, rates="per_parameter"), Navigation2D(20, 1)),
    "Reptile": (MAMLConfig(**SMALL, outer="reptile"), Navigation2D(20, 1)),
}


def compare(name: str, device: torch.device, folder: Path) -> dict[str, Any]:
    """Train an agent for an iteration on the CPU and on `device`, and send a checkpoint there and back.

    ``difference`` is the largest relative difference of the networks' tensors, ``first``  that before any training (0,
    since both start from the same seed). A tensor's is max |a - b| / max |a|. ``there_and_back`` says whether the
    state is the same bit for bit after the way device → file → CPU → file → device, ``goes_on`` how far the next
    iteration of the agent that went this way ends from that of the one that stayed.
    """
    config, family = AGENTS[name]
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")  # what is compared is arithmetic, not precision
    try:
        cpu, there = (config.build(family, 1, where) for where in (torch.device("cpu"), device))
        first = difference(cpu.state_dict(), there.state_dict())
        for agent in (cpu, there):
            iterate(agent, family, 1)
        found = difference(cpu.state_dict(), there.state_dict())
        here, back = (config.build(family, 1, where) for where in (torch.device("cpu"), device))
        here.load_state_dict(through_a_file(there, folder / "parity.safetensors"))
        back.load_state_dict(through_a_file(here, folder / "parity.safetensors"))
        (folder / "parity.safetensors").unlink()
        a, b = there.state_dict(), back.state_dict()
        same = a.keys() == b.keys() and all(torch.equal(a[key].cpu(), b[key].cpu()) for key in a)
        for agent in (there, back):
            iterate(agent, family, 2)
        goes_on = difference(there.state_dict(), back.state_dict())
    finally:
        torch.set_float32_matmul_precision(precision)
    return {"difference": found, "first": first, "there_and_back": same, "goes_on": goes_on}


def iterate(agent: LearningAgent, family: TaskFamily, number: int) -> None:
    """Train for one iteration on tasks and noise of that number."""
    key = rng.fold(rng.key(3, agent.device), number)
    tasks = family.sample_tasks(rng.fold(key, 0), agent.config.meta_batch_size, "train")
    agent.update(run_trial(agent, family, tasks, rng.fold(key, 1)), 0.5)


def through_a_file(agent: LearningAgent, path: Path) -> dict[str, Tensor]:
    """The agent's state, written and read, on the CPU."""
    state = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in agent.state_dict().items()}
    safetensors.torch.save_file(state, path)
    return safetensors.torch.load_file(path)


def difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """The largest relative difference of the networks' tensors of two states."""
    worst = 0.0
    for name in (name for name in a if name.startswith("net.") and a[name].is_floating_point()):
        x, y = a[name].detach().cpu().double(), b[name].detach().cpu().double()
        size = float(x.abs().max()) if x.numel() else 0.0
        if size > 0.0:
            worst = max(worst, float((x - y).abs().max()) / size)
        elif y.numel() and bool(y.any()):
            return float("inf")
    return worst
