"""The configurations of ES and ES-MAML; `metarl.agents.es.population` describes their common part."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE_FINITE, Rule, at_least, between, one_of, option
from metarl.learning.nets import ACTIVATIONS

EVEN = Rule("be an even number of at least 2", lambda value: value >= 2 and value % 2 == 0)


@dataclass
class EvolutionConfig(AgentConfig):
    """Evolution strategies. A schedule is a number, or points [[progress, value], …] joined by straight lines.

    Every policy of the population plays every task of an iteration, so that an iteration has
    ``meta_batch_size × population`` trials.
    """

    meta_batch_size: int = option(32, at_least(1))
    """Tasks per iteration."""
    population: int = option(64, EVEN)
    """Policies per iteration: half of them have the parameters θ + σ ε, the others θ - σ ε with the same ε."""
    sigma: Schedule = option(0.05, POSITIVE_FINITE)
    """Standard deviation σ of the perturbations. A schedule lags by one iteration, because perturbations are drawn at
    the end of the iteration before."""
    shaping: str = option("ranks", one_of("ranks", "standardise"))
    """Fitness of a policy: ranks (the centred rank of its mean return in the population, from -0.5 to 0.5), or
    standardise (that return, scaled over the population to mean 0 and standard deviation 1)."""
    common_noise: bool = True
    """Use common random numbers: all policies of the population face the same environment and action noise on a task.
    If false, each row has its own noise."""
    optimizer: str = option("adam", one_of("adam", "sgd"))
    """Optimiser for the estimated gradient: adam, or sgd with `momentum`."""
    lr: Schedule = option(0.01, NOT_NEGATIVE)
    """Learning rate."""
    momentum: float = option(0.9, between(0, 1))
    """Momentum of sgd."""
    weight_decay: float = option(0.0, NOT_NEGATIVE)
    """Weight of the penalty ½ ‖θ‖², whose gradient is subtracted from the estimated gradient."""


@dataclass
class ESConfig(EvolutionConfig):
    """ES on a recurrent policy. A schedule is a number, or points [[progress, value], …] joined by straight lines."""

    hidden_size: int = option(32, at_least(1))
    """Units of the GRU."""
    head_sizes: tuple[int, ...] = option((), at_least(1))
    """Units of hidden tanh layers between the GRU and the actions; empty: none."""
    transition_input: bool = False
    """Also show the policy the observation before its previous action, so that one input holds the whole transition."""
    norm_obs: bool = False
    """Normalise observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""


@dataclass
class ESMAMLConfig(EvolutionConfig):
    """ES-MAML. A schedule is a number, or points [[progress, value], …] joined by straight lines.

    An iteration has ``meta_batch_size × population × fast_batch_size × (inner_steps + 1)`` episodes.
    """

    meta_batch_size: int = option(20, at_least(1))
    """Tasks per iteration."""
    hidden_sizes: tuple[int, ...] = option((32, 32), at_least(1))
    """Units of the hidden layers."""
    activation: str = option("tanh", one_of(*ACTIVATIONS))
    """Activation function of the hidden layers: tanh, relu, elu or silu."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    min_std: float = option(0.01, POSITIVE_FINITE)
    """Lower bound of the standard deviation, in the same units."""
    fast_batch_size: int = option(10, at_least(1))
    """Trajectories per task and policy for each inner step."""
    test_fast_batch_size: int | None = option(None, at_least(1))
    """Trajectories per task for each inner step in evaluations; null: as in training."""
    inner_steps: int = option(1, at_least(1))
    """Inner steps on a task in training."""
    test_steps: int = option(3, at_least(1))
    """Inner steps on a task in evaluations."""
    fast_lr: float = option(0.1, NOT_NEGATIVE)
    """Step size of the inner steps."""
    later_rate: float = option(0.5, NOT_NEGATIVE)
    """Factor on the step size of inner steps beyond `inner_steps`, in evaluations (Finn et al. halve it)."""
    gamma: float = option(0.99, between(0, 1))
    """Discount factor of the inner steps' policy gradient. Fitness is not discounted."""
    gae_lambda: float = option(1.0, between(0, 1))
    """λ of GAE in the inner steps, which trades bias against variance of the advantage estimates."""

    def __post_init__(self) -> None:
        super().__post_init__()
        # `act` distinguishes a round of the population from one of the mean policy by the number of rows per task.
        if self.test_fast_batch_size == self.population * self.fast_batch_size:
            raise ValueError(
                "test_fast_batch_size must not be population * fast_batch_size, the rows of a task in training, got "
                f"{self.test_fast_batch_size}."
            )
