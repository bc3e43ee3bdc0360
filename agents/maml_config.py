"""What can be set of MAML and its relatives; `metarl.agents.maml` says which values make which of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metarl.agent import AgentConfig, Schedule, check_schedule
from metarl.family import TaskFamily, unknown
from metarl.memories import MEMORIES
from metarl.nets import ACTIVATIONS

if TYPE_CHECKING:
    from metarl.agents.maml import MAML

CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "inner_loss": ("vpg", "likelihood_ratio", "dice"),
    "adapted": ("all", "head"),
    "rates": ("fixed", "scalar", "per_step", "per_parameter"),
    "baseline": ("linear", "network"),
    "meta_rounds": ("last", "all"),
    "trust": ("adapted", "all"),
    "outer": ("trpo", "ppo", "reptile"),
}


@dataclass
class MAMLConfig(AgentConfig):
    """MAML by policy gradients and its relatives. A schedule is a number or points [[progress, value], …]."""

    meta_batch_size: int = 20
    """Tasks of one iteration."""
    policy: str = "mlp"
    """The kind of policy: mlp, a perceptron without memory. There is no other: adaptation is by gradients."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Units of the hidden layers."""
    activation: str = "tanh"
    """Of the hidden layers: tanh, relu, elu or silu."""
    action_unit: float | None = None
    """What the policy's 1 means in continuous actions, in the environment's units; null: half the action range."""
    init_std: float = 1.0
    """Initial standard deviation of continuous actions, in these units."""
    min_std: float = 0.01
    """Floor of the standard deviation, in these units."""
    obs_unit: float | None = None
    """What 1 means in the policy's inputs, in the observations' units; null: half the range of a bounded space."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    fast_batch_size: int = 20
    """Trajectories of each task before each gradient step."""
    test_fast_batch_size: int | None = None
    """The same in evaluations; null: as in training."""
    inner_steps: int = 1
    """Gradient steps on a task in training."""
    test_steps: int = 3
    """Gradient steps on a task in evaluations."""
    inner_loss: str = "vpg"
    """Three objectives with one gradient and three Hessians, which the meta-gradient goes through. vpg: log-likelihoods
    weighted by advantages (Finn et al. 2017), whose Hessian is not the return's; likelihood_ratio (ProMP, Rothfuss et
    al. 2019): it is, but for what an action owes to those before it in its episode; dice (Foerster et al. 2018): it is,
    with more variance."""
    exploration: float = 0.0
    """Weight of E-MAML's term (Stadie et al. 2018): credit the policies before each gradient step for the return after
    it. With 1 and vpg the meta-gradient is that of the expected return after steps on so many trajectories; 0: MAML."""
    first_order: bool = False
    """Leave the second derivatives out of the meta-gradient: FOMAML."""
    adapted: str = "all"
    """What the gradient steps change: all parameters, or the head alone, the last layer (ANIL)."""
    fast_lr: float = 0.1
    """Size of the gradient steps, or where learned sizes start."""
    rates: str = "fixed"
    """Sizes of the gradient steps: fixed; learned as one scalar; one per_step; or one per_parameter (Meta-SGD)."""
    later_rate: float = 0.5
    """Factor on the size of steps beyond those of training (Finn et al. halve it)."""
    baseline: str = "linear"
    """What is subtracted from returns: linear, features fitted to each task's round; or network, one learned value."""
    critic_epochs: int = 10
    """network: Adam's steps on all samples per iteration."""
    critic_lr: float = 1e-3
    """network: Adam's learning rate."""
    gamma: float = 0.99
    """Discount."""
    gae_lambda: float = 1.0
    """Bias against variance of the advantage estimates."""
    norm_adv: bool = True
    """Scale the advantages of each task's round to mean 0 and standard deviation 1; if not, they are in units of the
    rewards' running size."""
    outer: str = "trpo"
    """The meta-step: trpo (trust region), ppo (clipped surrogate, Adam), or reptile (towards the adapted mean)."""
    meta_rounds: str = "last"
    """Rounds whose return the meta-step improves: the last; or all after the first step, equally (multi-step loss,
    Antoniou et al. 2019)."""
    max_kl: float = 0.01
    """trpo: bound of the mean KL divergence between the policies before and after."""
    trust: str = "adapted"
    """trpo: whose divergence that is: the adapted policies'; or all, those before each gradient step, too. Adapted
    policies that are almost sure of their actions hardly differ whatever the start does, which then wanders off."""
    cg_iters: int = 10
    """trpo: steps of the conjugate gradient."""
    cg_damping: float = 1e-5
    """trpo: added to the diagonal of the Fisher matrix."""
    ls_max_steps: int = 15
    """trpo: step sizes that the line search tries."""
    ls_backtrack_ratio: float = 0.8
    """trpo: how much each is shorter than the one before."""
    fisher_share: float | None = None
    """trpo: share of each task's trajectories that Fisher products are estimated from; null: as many as hold 10,000
    steps of all tasks together, which is all of them on small work."""
    lr: Schedule = 1e-3
    """ppo: Adam's learning rate; reptile: the share of the way to the adapted mean."""
    update_epochs: int = 5
    """ppo: passes over the batch per iteration."""
    num_minibatches: int = 1
    """ppo: parts of a pass; each holds some of the tasks."""
    clip_coef: float = 0.2
    """ppo: clipping range of the likelihood ratio of the adapted policies."""
    inner_kl_coef: float = 0.0
    """ppo: initial weight of the KL divergence of the policies before each gradient step (ProMP); 0: none."""
    inner_kl_target: float = 0.01
    """ppo: the weight doubles (halves) where that KL is 1.5 times above (below) this."""
    max_grad_norm: float = 0.5
    """ppo: the meta-gradient is scaled down to at most this norm."""
    task_chunk: int | None = None
    """Tasks whose meta-gradient is computed at once, where memory is short; null: all, and with ppo on a CPU as many as
    its cache holds. The result is the same."""

    def __post_init__(self) -> None:
        self.hidden_sizes = tuple(self.hidden_sizes)
        if self.policy in MEMORIES and self.policy != "none":
            raise ValueError(
                f"policy must be 'mlp', got {self.policy!r}: MAML adapts by gradients, which would have to be "
                "differentiated a second time through a recurrent memory's every step, and fast recurrent kernels have "
                "no second derivative; an agent that adapts in its memory is RL2Config."
            )
        if self.policy != "mlp":
            raise ValueError(unknown("policy", self.policy, ("mlp",)))
        for field, choices in CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(unknown(field, getattr(self, field), choices))
        check_schedule("lr", self.lr, 0.0, 1.0)
        for field in ("gamma", "gae_lambda"):
            check_schedule(field, getattr(self, field), 0.0, 1.0)
        for field in (
            "meta_batch_size", "fast_batch_size", "test_fast_batch_size", "inner_steps", "test_steps", "cg_iters",
            "ls_max_steps", "update_epochs", "critic_epochs", "num_minibatches", "task_chunk",
        ):  # fmt: skip
            if (value := getattr(self, field)) is not None and value < 1:
                raise ValueError(f"{field} must be at least 1, got {value}.")
        for field in ("init_std", "min_std", "max_kl", "clip_coef", "inner_kl_target", "max_grad_norm"):
            if not 0 < (value := getattr(self, field)) < math.inf:
                raise ValueError(f"{field} must be positive and finite, got {value}.")
        for field in ("action_unit", "obs_unit"):
            if (value := getattr(self, field)) is not None and not 0 < value < math.inf:
                raise ValueError(f"{field} must be positive and finite, or null, got {value}.")
        if self.norm_obs and self.obs_unit is not None:
            raise ValueError(f"obs_unit must be null where norm_obs scales the observations, got {self.obs_unit}.")
        for field in ("fast_lr", "later_rate", "cg_damping", "inner_kl_coef", "exploration"):
            if not 0 <= (value := getattr(self, field)) < math.inf:
                raise ValueError(f"{field} must be finite and not negative, got {value}.")
        if self.exploration and self.inner_loss != "vpg":
            raise ValueError(
                f"inner_loss must be 'vpg' where exploration is not 0, got {self.inner_loss!r}: its derivative credits "
                "the samples before a gradient step already."
            )
        if self.exploration and self.outer == "reptile":
            raise ValueError("exploration must be 0 with outer 'reptile', which follows no gradient of the return.")
        if min(self.hidden_sizes, default=1) < 1:
            raise ValueError(f"hidden_sizes must be at least 1 each, got {list(self.hidden_sizes)}.")
        if not 0 < self.ls_backtrack_ratio < 1:
            raise ValueError(f"ls_backtrack_ratio must lie between 0 and 1, got {self.ls_backtrack_ratio}.")
        if self.fisher_share is not None and not 0 < self.fisher_share <= 1:
            raise ValueError(f"fisher_share must lie in (0, 1], or be null, got {self.fisher_share}.")
        if self.num_minibatches > self.meta_batch_size:
            raise ValueError(
                f"num_minibatches must not exceed meta_batch_size = {self.meta_batch_size}, got {self.num_minibatches}."
            )

    @property
    def title(self) -> str:
        """What is trained, as tables and figures call it; in brackets what Finn et al. 2017 do otherwise."""
        if self.outer == "reptile":
            return "Reptile"
        if (self.outer, self.inner_loss) == ("ppo", "likelihood_ratio") and self.inner_kl_coef:
            return "ProMP"
        variants = {
            "ANIL": self.adapted == "head",
            "Meta-SGD": self.rates == "per_parameter",
            "FOMAML": self.first_order,
            "E-MAML": self.exploration > 0,
        }
        variant = next((name for name, is_it in variants.items() if is_it), "MAML")
        inside = {"vpg": [], "likelihood_ratio": ["likelihood ratio"], "dice": ["DiCE"]}[self.inner_loss]
        others = [*inside, *(["PPO"] if self.outer == "ppo" else [])]
        return f"{variant} ({', '.join(others)})" if others else variant

    def build(self, family: TaskFamily, seed: int, device: torch.device) -> MAML:
        from metarl.agents.maml import MAML

        return MAML(self, family, seed, device)
