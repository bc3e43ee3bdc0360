"""The configuration of PPO on a belief; `metarl.agents.belief.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, POSITIVE_FINITE, Rule, at_least, between, one_of, option
from metarl.learning.nets import ACTIVATIONS

SPLIT = Rule("be the name of a split, such as 'train' or 'all'", lambda value: isinstance(value, str) and value != "")


@dataclass
class PPOOnBeliefConfig(AgentConfig):
    """PPO on a belief, exact or learned. A schedule is a number, or points [[progress, value], …] joined by lines."""

    hidden_sizes: tuple[int, ...] = option((64, 64), at_least(1))
    """Units of the hidden layers of policy and critic, which are separate networks."""
    activation: str = option("relu", one_of(*ACTIVATIONS))
    """Activation function of the hidden layers: tanh, relu, elu or silu."""
    critic: str = option("belief", one_of("belief", "task"))
    """Additional input of the critic besides the policy's inputs: belief (nothing more), or task (the true task: less
    variance, no bias; the policy never sees it, and acting does not need it)."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    gamma: Schedule = option(1.0, between(0, 1))
    """Discount factor."""
    gae_lambda: float = option(0.95, between(0, 1))
    """λ of GAE, which trades bias against variance of the advantage estimates."""
    update_epochs: int = option(4, at_least(1))
    """Passes over the batch per iteration."""
    num_minibatches: int = option(4, at_least(1))
    """Minibatches per pass; each holds whole trials of some of the tasks."""
    clip_coef: float = option(0.2, POSITIVE)
    """PPO's clipping range of the likelihood ratio."""
    ent_coef: Schedule = option(0.01, between(0, 100))
    """Weight of the entropy bonus."""
    vf_coef: float = option(0.5, NOT_NEGATIVE)
    """Weight of the critic's squared error (of returns scaled to standard deviation 1)."""
    max_grad_norm: float = option(0.5, POSITIVE)
    """Largest norm of the gradient; a larger gradient is scaled down."""
    target_kl: float | None = option(None, POSITIVE)
    """Stop the passes of an iteration once the approximate KL from the acting policy exceeds 1.5 times this."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_minibatches > self.meta_batch_size:
            raise ValueError(
                f"num_minibatches must not exceed meta_batch_size = {self.meta_batch_size}, got {self.num_minibatches}."
            )


@dataclass
class BeliefConfig(PPOOnBeliefConfig):
    """PPO on the exact belief. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    split: str = option("train", SPLIT)
    """Split whose tasks are the prior of the belief, in training and in evaluations on every split."""
