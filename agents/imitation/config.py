"""The configurations of DPT, DAgger and AD; `agent.py` and `distillation.py` describe the algorithms."""

from __future__ import annotations

from dataclasses import dataclass

from metarl.agents.rl2.config import RL2Config
from metarl.core.agent import AgentConfig, Schedule
from metarl.core.options import POSITIVE, POSITIVE_FINITE, Rule, at_least, between, is_run_path, one_of, option
from metarl.learning.memories import MEMORIES


def is_run(teacher: str) -> bool:
    """Tell whether a teacher is a trained agent: ``pretrained:NAME``, or the path of a run directory."""
    return teacher.startswith("pretrained:") or "/" in teacher


FOLDER = Rule("be a path", lambda value: isinstance(value, str), is_path=bool)
NAME = Rule(
    "be the name of a ready-made agent, such as 'oracle', or of a run",
    lambda value: isinstance(value, str) and value != "",
    is_path=lambda teacher: is_run(teacher) and is_run_path(teacher),
)


@dataclass
class ImitationConfig(AgentConfig):
    """A policy with a memory that is told which action would have been right."""

    memory: str = option("gru", one_of(*MEMORIES))
    """gru, lstm, rnn, transformer or fast_weights, as in RL²; none: no memory, but the policy sees the last step; or
    reactive: it sees only the observation."""
    hidden_size: int = option(128, at_least(1))
    """Units of the memory."""
    transition_input: bool = False
    """Show the policy also the observation before its previous action: the whole last step in one input."""
    embed_size: int = option(0, at_least(0))
    """ReLU units between the inputs and the memory; 0: the memory reads the inputs as they are."""
    head_size: int = option(0, at_least(0))
    """Hidden ReLU units of the policy's head; 0: a linear one."""
    norm_obs: bool = False
    """Scale observations by the mean and standard deviation of those seen so far, not by the space's bounds."""
    init_std: float = option(0.6, POSITIVE_FINITE)
    """Initial standard deviation of continuous actions, in units of half the action range."""
    lr: Schedule = option(1e-3, between(0, 1))
    """Adam's learning rate."""
    num_minibatches: int = option(4, at_least(1))
    """Minibatches of an iteration; each holds whole trials of some of the tasks."""
    update_epochs: int = option(1, at_least(1))
    """Passes over the trials of an iteration."""
    max_grad_norm: float = option(1.0, POSITIVE)
    """The gradient is scaled down to at most this norm."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network()  # what does not fit together there does not here

    def network(self) -> RL2Config:
        """Return the configuration of the network: that of RL², which can go on from it (``--init_from``)."""
        return RL2Config(
            memory=self.memory, hidden_size=self.hidden_size, transition_input=self.transition_input,
            embed_size=self.embed_size, head_size=self.head_size, norm_obs=self.norm_obs, init_std=self.init_std,
            meta_batch_size=self.meta_batch_size, num_minibatches=self.num_minibatches,
        )  # fmt: skip


@dataclass
class DPTConfig(ImitationConfig):
    """The decision-pretrained transformer. A schedule is a number or points [[progress, value], …]."""

    memory: str = option("transformer", one_of(*MEMORIES))
    """The model of the context: transformer as published, or another memory of RL²'s."""
    behaviour: str = option("mixed", one_of("mixed", "uniform"))
    """The play that fills the contexts: uniform, or mixed: in each trial a distribution over actions of its own,
    between one drawn uniformly and a single action, as published for bandits. Only for Discrete actions."""


@dataclass
class DAggerConfig(ImitationConfig):
    """Distillation by DAgger. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    teacher: str = option("oracle", NAME)
    """Who says what is right: a ready-made agent of the family (``metarl envs FAMILY`` lists them), such as oracle,
    gittins or bayes_optimal; a trained one, ``pretrained:rl2_gridnavi`` or the path of a run directory; or optimal, the
    best action for who is told the task."""
    beta: Schedule = option(0.0, between(0, 1))
    """Probability that a step of training is the teacher's, not the student's. A schedule from 1 to 0 starts with the
    teacher's own trials."""
    labels: str = option("greedy", one_of("greedy", "sampled"))
    """The teacher's most likely action, or one that it samples: the student then learns its whole distribution."""


@dataclass
class ADConfig(ImitationConfig):
    """Algorithm Distillation. A schedule is a number or points [[progress, value], …] joined by straight lines."""

    meta_batch_size: int = option(64, at_least(1))
    """Histories of one iteration."""
    memory: str = option("transformer", one_of(*MEMORIES))
    """The model of the context: transformer as published, or another memory of RL²'s."""
    histories: str = option("", FOLDER)
    """Folder of the learning histories, which metarl dataset writes. Only training reads it. ~ is your home."""
    stride: int | None = option(None, at_least(1))
    """Every how many episodes of a history are kept, from a random one of the first on: learning is seen sped up by as
    much. null: as many as let a history last a trial."""
    context: int | None = option(None, at_least(2))
    """Steps that the policy looks back at most, across episodes; once there are as many it forgets the older half.
    null: those of a trial of the family."""
