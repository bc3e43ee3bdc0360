"""The configuration of a training run."""

from __future__ import annotations

import dataclasses
import os
import re
from dataclasses import dataclass, field

from metarl.core.agent import AgentConfig
from metarl.core.errors import brief, unknown
from metarl.core.family import TaskFamily
from metarl.core.options import RUN, make_parts, option, part
from metarl.learning.samplers.accel import ACCELOptions
from metarl.learning.samplers.fresh import FreshOptions
from metarl.learning.samplers.paired import PAIREDOptions
from metarl.learning.samplers.plr import PLROptions
from metarl.learning.samplers.roml import RoMLOptions
from metarl.learning.samplers.sampler import SamplerOptions
from metarl.learning.samplers.sfl import SFLOptions
from metarl.training.config.errors import ConfigError

RESUMABLE = (
    "total_iterations",
    "max_seconds",
    "max_env_steps",
    "eval_every",
    "eval_tasks",
    "eval_repeats",
    "eval_splits",
    "final_eval_tasks",
    "final_eval_repeats",
    "checkpoint_every",
    "keep_checkpoints",
    "device",
    "num_threads",
    "profile",
    "on_nan",
    "allow",
)
"""Options that may be changed with ``--resume``, since they do not affect what was learned so far."""


MOST_THREADS = 1024
"""Largest number of threads; more than a machine can start would crash."""


@dataclass
class TrainConfig:
    """A training run."""

    family: TaskFamily
    """Task family: its id, or the name inside the id, with its own options."""
    agent: AgentConfig
    """Agent: its name, with its own options."""
    seed: int = 1
    """Seed of all randomness: initial parameters, tasks, episodes and actions."""
    device: str = "auto"
    """Device of all tensors: cpu, cuda, or auto (cuda if there is one)."""
    total_iterations: int = 1000
    """Meta-training iterations; each samples tasks, plays a trial on each, and updates the agent once. 0: evaluate the
    initial agent without training."""
    max_seconds: float | None = None
    """Seconds after which training ends as if it were complete, including evaluations and earlier parts of a resumed
    run; null: no limit. Schedules still run over total_iterations."""
    max_env_steps: int | None = None
    """Environment steps of training after which it ends in the same way; null: no limit."""
    train_split: str = "train"
    """Split of the family's tasks from which training samples."""
    task_sampler: SamplerOptions = part(
        fresh=FreshOptions,
        plr=PLROptions,
        accel=ACCELOptions,
        sfl=SFLOptions,
        roml=RoMLOptions,
        paired=PAIREDOptions,
    )
    """Sampler of training tasks: its name, with its own options. fresh: new draws from train_split."""
    train_tasks: int | None = None
    """Size of a fixed list of training tasks, the same for every seed; null: all tasks of the family."""
    fold: str | None = None
    """Part of a finite family's tasks that becomes `test`, such as 2/5 (the second of five); all others are `train`.
    null: the family's own splits."""
    bootstrap: bool = False
    """Draw the tasks of a finite train_split, or of train_tasks, from a bootstrap sample that depends on the seed, so
    that runs with several seeds form a bagged ensemble."""
    eval_every: int = 50
    """Iterations between evaluations; 0: only the evaluation at the end."""
    eval_tasks: int = 200
    """Tasks per split in evaluations during training."""
    eval_repeats: int | None = 1
    """Trials on each of these tasks; null: enough for an episode's steps times repeats to be at least 20."""
    eval_splits: list[str] = field(default_factory=lambda: ["valid"])
    """Splits of evaluations during training. If they include valid, the agent with the best score on it is kept as
    best.safetensors. The table at the end has all splits of the family."""
    final_eval_tasks: int = 1000
    """Tasks per split in the evaluation at the end; 0: no evaluation at the end."""
    final_eval_repeats: int | None = None
    """Trials on each of these tasks; null: as for eval_repeats. With at least 2, the worst tasks are measured without
    selection bias."""
    checkpoint_every: int = 50
    """Iterations between checkpoints; a checkpoint is always written at the end and on Ctrl-C."""
    keep_checkpoints: int = 1
    """Checkpoints to keep. Above 1, the last ones are also kept as checkpoint_<iteration>.safetensors, and --resume
    falls back to an earlier one if the last is damaged."""
    run_dir: str | None = None
    """Folder of the run's files; null: runs/<preset>_<seed>_<time>. ~ is your home directory; $ has no special
    meaning."""
    num_threads: int | None = None
    """Threads of torch on the CPU; null: torch's own choice."""
    profile: bool = False
    """Profile the second iteration: show the time of its parts, and write its trace to RUN_DIR/trace.json."""
    on_nan: str = "stop"
    """Reaction to a metric of an iteration that is not finite: stop the run, or skip (undo the iteration and go on,
    until ten in a row were skipped; this copies the agent's state before every iteration)."""
    init_from: str | None = option(None, RUN)
    """Run directory, or pretrained:NAME, with the agent's initial parameters; null: new ones. The optimiser, the
    schedules and the counters start from scratch, and so do a critic and a head of aux_coef that the other agent does
    not have."""
    allow: list[str] = field(default_factory=list)
    """Packages that register the family or the agent. A file only names them; --allow imports them."""

    def __post_init__(self) -> None:
        if self.run_dir is not None:
            if not self.run_dir:
                raise ConfigError("run_dir must be a folder, got '': leave it out for a new one in runs.")
            self.run_dir = os.path.expanduser(self.run_dir)  # no shell has expanded paths in a file
        for name in ("train_split", "eval_splits"):
            value = getattr(self, name)
            for split in [value] if isinstance(value, str) else value:
                if split not in (*self.family.splits, "valid"):
                    where = f" of {type(self.family).__name__} in {name}"
                    raise ConfigError(unknown("split", split, self.family.splits, where))
        make_parts(self)
        lowest = {"seed": 0, "total_iterations": 0, "eval_every": 0, "eval_tasks": 1, "final_eval_tasks": 0}
        lowest |= {
            "eval_repeats": 1,
            "final_eval_repeats": 1,
            "checkpoint_every": 1,
            "keep_checkpoints": 1,
            "num_threads": 1,
        }
        lowest |= {"max_seconds": 0, "max_env_steps": 0}
        for name, low in lowest.items():
            value = getattr(self, name)
            if value is not None and not value >= low:  # also rejects NaN
                raise ConfigError(f"{name} must be at least {low}, got {value}.")
        if self.num_threads is not None and self.num_threads > MOST_THREADS:
            raise ConfigError(f"num_threads must be at most {MOST_THREADS}, got {self.num_threads}.")
        if self.train_tasks is not None:
            self.family.train_on(self.train_tasks)
        if self.fold is not None:
            self._hold_out(self.fold)
        if self.bootstrap:
            self.family.resample(self.train_split, self.seed)
        if self.device.startswith("cuda:"):
            number = self.device.removeprefix("cuda:")
            raise ConfigError(
                f"Unknown device: {self.device!r}. A run takes the first GPU that it sees: "
                f"set the environment variable CUDA_VISIBLE_DEVICES={number} and give --device cuda."
            )
        if self.on_nan not in ("stop", "skip"):
            raise ConfigError(unknown("on_nan", self.on_nan, ("stop", "skip")))
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(unknown("device", self.device, ("auto", "cpu", "cuda")))

    def _hold_out(self, fold: str) -> None:
        """Divide the family's tasks. Raises ConfigError for an invalid fold."""
        numbers = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", fold)
        if numbers is None:
            raise ConfigError(f"fold must be PART/PARTS, such as 2/5, got {brief(fold)!r}.")
        if self.train_split != "train":
            raise ConfigError(f"A fold needs train_split: train, got {self.train_split!r}, which holds all tasks.")
        self.family.hold_out(int(numbers[1]), int(numbers[2]))


def reported_split(config: TrainConfig) -> str:
    """Return the split that a run reports: `test`, or the training split if it is `all` or there is no `test`."""
    known = config.family.splits
    return "test" if "test" in known and config.train_split != "all" else config.train_split


FIELDS = tuple(f.name for f in dataclasses.fields(TrainConfig))
