"""What can be set of the stable-baselines3 agents; `metarl.agents.sb3` says which values make which baseline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metarl.agent import AgentConfig, Schedule, check_schedule
from metarl.family import TaskFamily

if TYPE_CHECKING:
    from metarl.agents.sb3 import SB3Agent


@dataclass
class PPOConfig(AgentConfig):
    """PPO of stable-baselines3 (Raffin et al. 2021). A schedule is a number or points [[progress, value], …]."""

    meta_batch_size: int = 16
    """Environments side by side in training; each draws a new task for every episode (recurrent: every trial)."""
    num_steps: int | None = None
    """Steps of each environment per iteration; null: one episode (recurrent: one trial)."""
    recurrent: bool = False
    """RecurrentPPO of sb3-contrib on whole trials, with RL²'s inputs; otherwise a policy without memory."""
    task_input: bool = False
    """Show the task to the policy: an oracle, for families that have no scripted one."""
    fast_batch_size: int = 20
    """Episodes of a task that are played before each PPO update on it in evaluations."""
    test_steps: int = 0
    """PPO updates on each task in evaluations, from the trained parameters (with no training: from scratch)."""
    fast_lr: float | None = None
    """Adam's learning rate in these updates; null: `lr` at its start."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Tanh units of the policy's and, apart from it, of the critic's hidden layers."""
    lstm_size: int = 128
    """recurrent: units of the LSTM, which policy and critic share."""
    init_std: float = 0.6
    """Initial standard deviation of continuous actions, in units of half the action range."""
    reward_scale: float | None = None
    """Factor on the rewards that are learned from; null: what makes the root mean square return of an episode of the
    random policy 1, but at most 1. Large returns would take all of the gradient's norm for the critic."""
    lr: Schedule = 3e-4
    """Adam's learning rate."""
    batch_size: int = 64
    """Steps of a minibatch."""
    update_epochs: int = 10
    """Passes over the steps of an iteration."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 0.95
    """Bias against variance of the advantage estimates."""
    clip_coef: float = 0.2
    """PPO's clipping range of the likelihood ratio."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the critic's squared error."""
    max_grad_norm: float = 0.5
    """The gradient is scaled down to at most this norm."""
    target_kl: float | None = None
    """No further passes in an iteration once the approximate KL exceeds 1.5 times this."""

    def __post_init__(self) -> None:
        self.hidden_sizes = tuple(self.hidden_sizes)
        check_schedule("lr", self.lr, 0.0, 1.0)
        for field in ("gamma", "gae_lambda"):
            check_schedule(field, getattr(self, field), 0.0, 1.0)
        for field in ("meta_batch_size", "num_steps", "fast_batch_size", "lstm_size", "update_epochs"):
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}.")
        if self.batch_size < 2:
            raise ValueError(f"batch_size must be at least 2, got {self.batch_size}.")
        if self.test_steps < 0:
            raise ValueError(f"test_steps must not be negative, got {self.test_steps}.")
        for field in ("init_std", "reward_scale", "clip_coef", "max_grad_norm", "target_kl", "fast_lr"):
            if (value := getattr(self, field)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{field} must be positive and finite, got {value}.")
        for field in ("ent_coef", "vf_coef"):
            if not 0 <= (value := getattr(self, field)) < math.inf:
                raise ValueError(f"{field} must be finite and not negative, got {value}.")
        if min(self.hidden_sizes, default=1) < 1:
            raise ValueError(f"hidden_sizes must be at least 1 each, got {list(self.hidden_sizes)}.")
        if self.recurrent and (self.test_steps or self.task_input):
            raise ValueError("recurrent adapts in its memory: it goes with neither test_steps nor task_input.")

    def steps_of(self, family: TaskFamily) -> int:
        """Steps of each environment per iteration. Raises ValueError if minibatches do not divide an iteration."""
        whole = family.horizon * (family.episodes_per_trial if self.recurrent else 1)
        steps = whole if self.num_steps is None else self.num_steps
        if steps * self.meta_batch_size % self.batch_size:
            raise ValueError(
                f"batch_size must divide the {steps * self.meta_batch_size} steps of an iteration ({steps} of each of "
                f"{self.meta_batch_size} environments), got {self.batch_size}."
            )
        return steps

    def build(self, family: TaskFamily, seed: int, device: torch.device) -> SB3Agent:
        from metarl.agents.sb3 import SB3Agent  # stable-baselines3 is slow to import

        return SB3Agent(self, family, seed)
