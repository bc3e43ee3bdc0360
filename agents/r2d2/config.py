"""The configuration of R2D2; `metarl.agents.r2d2.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, at_least, between, one_of, option
from metarl.learning.memories import MEMORIES


@dataclass
class R2D2Config(AgentConfig):
    """R2D2. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(32, at_least(1))
    """Tasks, and so new trials, of one iteration: each row is an actor."""
    memory: str = option("gru", one_of(*MEMORIES))
    """gru, lstm, rnn, transformer or fast_weights; none: no memory, but the network sees the last step; or reactive: it
    sees only the observation, no previous action, reward or end of an episode."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Show the network also the observation before its previous action: the whole last step in one input."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(64, at_least(1))
    """Hidden ReLU units of the head for the value, and of that for the advantages."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of the trial, across the ends of its episodes."""
    n_step: int = option(5, at_least(1))
    """Rewards that a target adds up before it asks the target network."""
    value_rescaling: bool = True
    """Learn h(Q) in place of Q, with ``h(x) = sign(x) (√(|x| + 1) - 1) + 0.001 x``, in units of the rewards' running
    size."""
    epsilon: float = option(0.4, between(0, 1))
    """Share of uniform actions of the row that explores most."""
    epsilon_alpha: float = option(7.0, NOT_NEGATIVE)
    """A row at the place u in [0, 1], drawn for each trial, has the share epsilon^(1 + u epsilon_alpha)."""
    buffer_size: int = option(4096, at_least(1))
    """Trials that are kept for learning, the newest ones."""
    learning_starts: int = option(64, at_least(1))
    """Trials that are there before the first gradient step."""
    updates_per_iteration: int = option(16, at_least(1))
    """Gradient steps of an iteration."""
    batch_size: int = option(64, at_least(1))
    """Sequences of a gradient step. A new trial that is replayed whole is drawn updates_per_iteration × batch_size /
    meta_batch_size times in the mean over its time in the buffer."""
    target_network_frequency: int = option(100, at_least(1))
    """Gradient steps between two copies of the online network to the target network."""
    priority_exponent: float = option(0.9, NOT_NEGATIVE)
    """A sequence of priority p is drawn with a probability in proportion to p to this power; 0: all the same."""
    priority_eta: float = option(0.9, between(0, 1))
    """The priority of a sequence: this share of its largest TD error, plus the rest of the mean one."""
    importance_exponent: float = option(0.6, between(0, 1))
    """Power of the importance weights: 1 corrects for the priorities in full, 0 not at all."""
    replay_whole: int = option(100, at_least(1))
    """Trials of at most so many steps are replayed whole, from their empty memory; longer ones in sequences."""
    sequence_length: int = option(80, at_least(2))
    """Steps of a sequence to learn from. Sequences begin at every half of it, so they overlap."""
    burn_in: int = option(40, at_least(0))
    """Steps before a sequence that fill the memory, without gradient, from the state that was stored when the trial was
    played."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """The gradient is scaled down to at most this norm."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds.
    Images keep their bounds."""

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
