"""The configuration of R2D2; `metarl.agents.r2d2.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, at_least, between, one_of, option
from metarl.learning.memories import MEMORIES


@dataclass
class R2D2Config(AgentConfig):
    """R2D2. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(32, at_least(1))
    """Tasks, and hence new trials, per iteration; each row is an actor."""
    memory: str = option("gru", one_of(*MEMORIES))
    """Memory of the network: gru, lstm, rnn, transformer or fast_weights; none (no memory, but the network still sees
    the previous action, reward and end of an episode); or reactive (the network sees only the observation)."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Also show the network the observation before its previous action, so that one input holds the whole
    transition."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(64, at_least(1))
    """Hidden ReLU units of the value head and of the advantage head."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of the trial, across the ends of its episodes."""
    n_step: int = option(5, at_least(1))
    """Rewards that a target sums before it bootstraps from the target network."""
    value_rescaling: bool = True
    """Learn h(Q) instead of Q, with ``h(x) = sign(x) (√(|x| + 1) - 1) + 0.001 x``, in units of the rewards' running
    size."""
    epsilon: float = option(0.4, between(0, 1))
    """ε of the row that explores most: the probability of a uniformly random action."""
    epsilon_alpha: float = option(7.0, NOT_NEGATIVE)
    """Spread of ε over rows: a row with place u in [0, 1], drawn for each trial, has ε = epsilon^(1 + u
    epsilon_alpha)."""
    buffer_size: int = option(4096, at_least(1))
    """Capacity of the buffer in trials; the newest ones are kept."""
    learning_starts: int = option(64, at_least(1))
    """Trials in the buffer before the first gradient step."""
    updates_per_iteration: int = option(16, at_least(1))
    """Gradient steps per iteration."""
    batch_size: int = option(64, at_least(1))
    """Sequences per gradient step. On average a trial that is replayed whole is drawn updates_per_iteration ×
    batch_size / meta_batch_size times while it is in the buffer."""
    target_network_frequency: int = option(100, at_least(1))
    """Gradient steps between two copies of the online network to the target network."""
    priority_exponent: float = option(0.9, NOT_NEGATIVE)
    """Exponent of the priorities: a sequence of priority p is drawn with probability proportional to p to this power;
    0: uniformly."""
    priority_eta: float = option(0.9, between(0, 1))
    """Weight η of the largest TD error in a sequence's priority; the mean TD error has weight 1 - η."""
    importance_exponent: float = option(0.6, between(0, 1))
    """Exponent of the importance weights: 1 corrects fully for the priorities, 0 not at all."""
    replay_whole: int = option(100, at_least(1))
    """Longest trials, in steps, that are replayed whole, from an empty memory; longer ones are replayed in
    sequences."""
    sequence_length: int = option(80, at_least(2))
    """Steps of a sequence to learn from. Sequences overlap by half."""
    burn_in: int = option(40, at_least(0))
    """Steps before a sequence that warm up the memory, without gradient, from the state stored when the trial was
    played."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """Largest norm of the gradient; a larger gradient is scaled down."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds. Images
    are always scaled by their bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.memory == "reactive" and self.transition_input:
            raise ValueError("transition_input must be false with memory 'reactive', which sees only the observation.")
        if self.burn_in > self.sequence_length // 2:
            raise ValueError(
                f"burn_in must be at most half of sequence_length, {self.sequence_length // 2}, got {self.burn_in}."
            )
        for name in ("meta_batch_size", "learning_starts"):
            if getattr(self, name) > self.buffer_size:
                raise ValueError(
                    f"buffer_size must be at least {name} = {getattr(self, name)}, got {self.buffer_size}."
                )
