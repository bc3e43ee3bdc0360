"""The configuration of PEARL; `metarl.agents.pearl.agent` describes the algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import NOT_NEGATIVE, POSITIVE, POSITIVE_FINITE, SHARE, at_least, between, one_of, option


@dataclass
class PEARLConfig(AgentConfig):
    """PEARL. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(16, at_least(1))
    """Tasks, and so new trials, of one iteration."""
    rounds: int = option(3, at_least(2))
    """Episodes of a trial; the agent adapts after each of them. An evaluation may play more or fewer."""
    prior_rounds: int = option(1, at_least(1))
    """The first episodes of a trial act on a latent from the prior, to explore, and later ones on the posterior. Where
    there are prototypes, that of a random training task takes the place of the prior."""
    latent_size: int = option(5, at_least(1))
    """Dimensions of the latent task."""
    encoder_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the encoder."""
    hidden_sizes: tuple[int, ...] = option((128, 128), at_least(1))
    """Units of the hidden ReLU layers of the policy, and of those of each critic."""
    next_obs: bool = False
    """The encoder sees the next observation of a transition, too: for tasks that change what actions do."""
    embedding_loss: str = option("critic", one_of("critic", "contrastive", "siamese"))
    """The loss that trains the encoder. critic: that of the critics and the KL divergence, as in PEARL. Otherwise pairs
    of contexts alone, which are to be near each other if they are of one task, and the latent is the posterior's mean:
    contrastive, which repels those of different tasks by an inverse power of their distance (FOCAL, Li et al. 2021);
    siamese, which moves them apart up to a margin (Hadsell et al. 2006)."""
    kl_weight: float = option(0.1, NOT_NEGATIVE)
    """critic: weight of the KL divergence of the posterior from the prior, next to losses in units of the rewards'
    size."""
    distance: str = option("euclidean", one_of("euclidean", "cosine"))
    """Distance of two embeddings, for these losses and for `nearest`: euclidean; or cosine, that of their directions,
    d² = 2 (1 - cos)."""
    repulsion: float = option(1.0, POSITIVE_FINITE)
    """contrastive: weight of the repulsion."""
    power: float = option(2.0, between(1, 8))
    """contrastive: power of the distance in the repulsion 1 / (dⁿ + 0.1)."""
    margin: float = option(1.0, POSITIVE_FINITE)
    """siamese: distance beyond which contexts of different tasks no longer repel each other."""
    inference: str = option("posterior", one_of("posterior", "nearest"))
    """The latent that the policy gets after the first rounds: posterior, what the encoder makes of the trial; or
    nearest, the prototype that is nearest to its mean, a classical reference."""
    prototypes: int = option(100, at_least(1))
    """Training tasks at most whose embeddings are kept as prototypes, renewed in every iteration; of more tasks in the
    buffer random ones. There are none with `critic` and `posterior`."""
    context_size: int = option(64, at_least(1))
    """Transitions of a task from which a gradient step infers its latent (the paper: 64 to 1024)."""
    context_episodes: int | None = option(None, at_least(1))
    """Newest episodes of a task from which these are drawn; None: as many as `rounds`, those of its last trial."""
    task_batch: int = option(8, at_least(1))
    """Tasks of a gradient step, drawn from those in the buffer."""
    batch_size: int = option(128, at_least(1))
    """Transitions of each of these tasks for actor and critics, from all of its episodes in the buffer."""
    updates_per_iteration: int = option(50, at_least(1))
    """Gradient steps of an iteration."""
    encoder_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the encoder."""
    policy_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the policy."""
    q_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the critics."""
    alpha_lr: Schedule = option(3e-4, between(0, 1))
    """Adam's learning rate of the temperature's logarithm."""
    init_alpha: float = option(0.1, POSITIVE)
    """Temperature at the start, in units of the rewards' running size per nat of entropy."""
    target_entropy: Schedule = option(-1.0, between(-100, 100))
    """Box: the entropy that the temperature aims at, in nats per coordinate of the action, whose range is [-1, 1]."""
    target_entropy_share: Schedule = option(0.3, between(0, 1))
    """Discrete: the entropy that the temperature aims at, as a share of that of the uniform policy."""
    gamma: Schedule = option(0.99, between(0, 1))
    """Discount factor of an episode."""
    tau: float = option(0.005, SHARE)
    """Share by which the target critics move towards the critics after every gradient step."""
    buffer_size: int = option(4000, at_least(1))
    """Episodes that are kept for learning, the newest ones of all tasks."""
    learning_starts: int = option(32, at_least(0))
    """Trials that are played before the first gradient step."""
    max_grad_norm: float = option(10.0, POSITIVE)
    """The gradients of encoder, policy and critics are each scaled down to at most this norm."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("encoder_sizes", "hidden_sizes"):
            if not getattr(self, name):
                raise ValueError(f"{name} must have at least one layer, such as [128].")
        if self.prior_rounds >= self.rounds:
            raise ValueError(
                f"prior_rounds must be below rounds = {self.rounds}, so that the posterior is used, got "
                f"{self.prior_rounds}."
            )
        if self.buffer_size < self.meta_batch_size * self.rounds:
            raise ValueError(
                f"buffer_size must be at least meta_batch_size × rounds = {self.meta_batch_size * self.rounds}, got "
                f"{self.buffer_size}."
            )
        self._check_metric()

    def _check_metric(self) -> None:
        """Raise ValueError for options of distances that do not fit each other."""
        if self.by_distance and self.task_batch < 2:
            raise ValueError(
                f"task_batch must be at least 2 with embedding_loss {self.embedding_loss!r}, which compares tasks, got "
                f"{self.task_batch}."
            )
        if self.distance == "cosine" and self.latent_size < 2:
            raise ValueError("latent_size must be at least 2 with distance 'cosine': one number has no direction.")
        if self.embedding_loss == "siamese" and self.distance == "cosine" and self.margin > 2.0:
            raise ValueError(f"margin must be at most 2, the largest distance, with 'cosine', got {self.margin}.")

    @property
    def by_distance(self) -> bool:
        """True if distances of contexts train the encoder, and not the critics."""
        return self.embedding_loss != "critic"

    @property
    def keeps_prototypes(self) -> bool:
        """True if embeddings of training tasks are kept."""
        return self.by_distance or self.inference == "nearest"

    @property
    def title(self) -> str:
        """The variant's name in tables and figures."""
        parts = [self.embedding_loss] * self.by_distance + ["nearest task"] * (self.inference == "nearest")
        return f"PEARL ({', '.join(parts)})" if parts else "PEARL"
