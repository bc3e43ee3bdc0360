"""The configuration of RL²; `metarl.agents.rl2.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, POSITIVE_FINITE, at_least, between, one_of, option
from metarl.learning.memories import MEMORIES


@dataclass
class RL2Config(AgentConfig):
    """RL² with recurrent PPO. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    memory: str = option("gru", one_of(*MEMORIES))
    """Memory of the policy: gru, lstm, rnn, transformer or fast_weights; none (no memory, but the policy still sees the
    previous action, reward and end of an episode); or reactive (the policy sees only the observation)."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Also show the policy the observation before its previous action, so that one input holds the whole transition."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(0, at_least(0))
    """Hidden ReLU units of the policy's and the critic's head; 0: linear heads."""
    heads: str = option("plain", one_of("plain", "hyper"))
    """plain: the heads read the memory and the step; hyper: they read only the step, with weights generated from an
    embedding of the memory (Beck et al. 2022)."""
    hyper_size: int = option(25, at_least(1))
    """Size of the embedding from which ``heads: hyper`` generates weights."""
    critic: str = option("history", one_of("history", "task", "task_and_time"))
    """Additional input of the critic besides the memory: history (nothing more), task (the true task, as in asymmetric
    actor-critic, Pinto et al. 2018: less variance, no bias; the policy never sees it, and acting does not need it), or
    task_and_time (also the fraction of the trial that is over)."""
    aux_coef: float = option(0.0, NOT_NEGATIVE)
    """Weight of an auxiliary loss, used only in training: a linear layer predicts the (standardised) task from the
    memory (task inference, Humplik et al. 2019), which teaches the memory what to remember. 0: none."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor. A schedule that rises during training makes long trials easier to learn."""
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
    norm_adv: bool = True
    """Normalise the advantages of an iteration to mean 0 and standard deviation 1; if false, only divide them by the
    running size of the rewards."""
    chunk_length: int | None = option(None, at_least(1))
    """Steps through which to backpropagate at most, which saves memory on long trials; null: the whole trial."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds. Images
    are always scaled by their bounds."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory == "reactive" and self.transition_input:
            raise ValueError("transition_input must be false with memory 'reactive', which sees only the observation.")
        if self.num_minibatches > self.meta_batch_size:
            raise ValueError(
                f"num_minibatches must not exceed meta_batch_size = {self.meta_batch_size}, got {self.num_minibatches}."
            )
