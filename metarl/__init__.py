"""Meta-reinforcement learning: task families, batched environments, learning agents, one loop, one evaluator.

>>> import metarl                                             # also registers every Gymnasium id
>>> family = metarl.make("metarl/GridNavi-v0")
>>> agent = metarl.load("pretrained:rl2_gridnavi")            # or a run directory
>>> curve = metarl.evaluate(agent, family, split="test", tasks=1000)
>>> curve.mean()                                              # return per episode on tasks it has never seen
"""

from __future__ import annotations

import importlib
import importlib.metadata
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if (Path(__file__).parent / "envs").is_file():  # without symbolic links, git writes their targets into files
    raise ImportError(
        "This checkout of metarl has files in place of its symbolic links: clone it again with "
        "`git -c core.symlinks=true clone URL` (on Windows in developer mode), or install a built distribution."
    )

# The script that Python was started with, or the module after -m, comes before the arguments.
if Path("".join(sys.orig_argv[-len(sys.argv) :][:1])).name in ("metarl", "metarl.exe", "metarl.train"):
    # Python was started for the command, whose imports take a moment. Until `metarl.cli.main` has handlers of its own,
    # Ctrl-C ends it as it ends other programs, by the signal: Python's handler would show a traceback.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

import metarl.envs  # noqa: F401  (registers the families that come with the package)
from metarl.core.registry import make, register, registered
from metarl.interop.gym_ids import register_gymnasium

if TYPE_CHECKING:
    from metarl.agents.family_extras import register_baseline
    from metarl.agents.text import TextAgent
    from metarl.core.agent import AgentConfig, LearningAgent, register_agent
    from metarl.core.batch_env import BatchEnv
    from metarl.core.family import TaskFamily
    from metarl.core.rollout import Agent, collect, run_trial
    from metarl.evaluation.curve import AdaptationCurve
    from metarl.evaluation.evaluator import evaluate
    from metarl.interop.player import Player
    from metarl.learning.histories.files import load_histories
    from metarl.studies.ensembles import ensemble
    from metarl.studies.folds import cross_validate
    from metarl.testing.agents import check_agent
    from metarl.testing.families import check_family
    from metarl.training.loop import Run
    from metarl.training.runs import run

__all__ = ["registered", "make", "load", "evaluate", "run", "Run", "cross_validate", "AdaptationCurve", "Player"]
__all__ += ["register", "TaskFamily", "check_family", "register_agent", "Agent", "AgentConfig", "LearningAgent"]
__all__ += ["check_agent", "register_baseline", "TextAgent", "ensemble", "load_histories", "BatchEnv", "collect"]
__all__ += ["run_trial", "__version__"]

_LAZY = {
    "AdaptationCurve": "metarl.evaluation.curve",
    "Agent": "metarl.core.rollout",
    "AgentConfig": "metarl.core.agent",
    "BatchEnv": "metarl.core.batch_env",
    "LearningAgent": "metarl.core.agent",
    "Player": "metarl.interop.player",
    "Run": "metarl.training.loop",
    "TaskFamily": "metarl.core.family",
    "TextAgent": "metarl.agents.text",
    "check_agent": "metarl.testing.agents",
    "check_family": "metarl.testing.families",
    "collect": "metarl.core.rollout",
    "cross_validate": "metarl.studies.folds",
    "ensemble": "metarl.studies.ensembles",
    "evaluate": "metarl.evaluation.evaluator",
    "load_histories": "metarl.learning.histories.files",
    "register_agent": "metarl.core.agent",
    "register_baseline": "metarl.agents.family_extras",
    "run": "metarl.training.runs",
    "run_trial": "metarl.core.rollout",
}
"""Public names that need torch, and the modules that define them."""

try:
    __version__ = importlib.metadata.version("metarl")
except importlib.metadata.PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0+checkout"

register_gymnasium()


def load(
    run_dir_or_name: str | Path, device: str = "cpu", which: str | int = "last", allow: Sequence[str] = ()
) -> LearningAgent:
    """Load a trained agent from a run directory, or one that ships with the package (``"pretrained:rl2_gridnavi"``).

    `which` is "last", the agent at the end of training, "best", the agent with the best score on `valid`, or an
    iteration whose checkpoint was kept (`keep_checkpoints`). The agent's configuration is `agent.config`, and the task
    family that it was trained on is `agent.family`. A run directory is only data: loading it imports nothing except the
    packages in `allow`, which register another project's families and agents. Raises ValueError if there is no such
    agent or it cannot be read.
    """
    from metarl.training import checkpoint

    return checkpoint.load(run_dir_or_name, device, which, allow)


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, since Gymnasium's ids and the usage page do not need torch."""
    if name in _LAZY:
        importlib.import_module("metarl.fast")  # registers the fast twin that steps trials
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'metarl' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
