"""(c) Whether CUDA graphs are made of what should be recorded, and of which line not, if not."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import metarl
from benchmarks.gpu.agreement import MAML as VARIANTS
from benchmarks.gpu.items import Item, Result, told
from benchmarks.gpu.report import Report, failure
from benchmarks.gpu.settings import NO_CUDA, Settings
from benchmarks.ours import Training, training
from benchmarks.works import WORKS, Work
from metarl.agents import (
    BeliefConfig,
    ESConfig,
    ESMAMLConfig,
    MAMLConfig,
    PEARLConfig,
    R2D2Config,
    RecurrentSACConfig,
    RL2Config,
    VariBADConfig,
)
from metarl.core.agent import AgentConfig
from metarl.core.family import TaskFamily
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.points.navigation import Navigation2D
from metarl.fast.capture import WARM_UP, Captured
from metarl.fast.runtime import tune
from metarl.learning.memories import MEMORIES

OTHERS = "RL² with memory "
PACKAGE = str(Path(metarl.__file__).parent)
CASES = {
    "RL², bandit": WORKS["W1"],
    "RL², Navigation2D": WORKS["W2"],
    "MAML with TRPO, Navigation2D": WORKS["W3"],
    "MAML with PPO, Navigation2D": WORKS["W3ppo"],
    "RL², GridNavi": Work("GridNavi", "RL², GridNavi", "rl2", "metarl/GridNavi-v0", episodes=4, rows=512),
}

FEW = {"learning_starts": 0, "updates_per_iteration": 4, "batch_size": 32}
BANDIT, POINT = BernoulliBandit(5, 10), Navigation2D(20, 2)
AGENTS: dict[str, tuple[AgentConfig, TaskFamily]] = {
    "Belief": (BeliefConfig(meta_batch_size=64), BANDIT),
    "VariBAD": (VariBADConfig(meta_batch_size=64), BANDIT),
    "SAC": (RecurrentSACConfig(meta_batch_size=32, **FEW), POINT),
    "PEARL": (PEARLConfig(meta_batch_size=32, **FEW), POINT),
    "R2D2": (R2D2Config(meta_batch_size=64, learning_starts=64), BANDIT),
    "ES": (ESConfig(meta_batch_size=32), BANDIT),
    "ES-MAML": (ESMAMLConfig(meta_batch_size=8, population=16), POINT),
}
"""The other agents, on little that is theirs."""


def items(settings: Settings, report: Report) -> list[Item]:
    """A case in each process: a recording that failed leaves traces."""
    if not settings.cuda:
        return [Item("all", lambda _: {"skipped": NO_CUDA})]
    cases: dict[str, Callable[[], Training]] = {
        name: partial(training, settings.work(work)) for name, work in CASES.items()
    }
    cases["ProMP, Navigation2D"] = partial(of_promp, settings)
    cases |= {name: partial(of_agent, *agent, settings) for name, agent in AGENTS.items()}
    others = {f"{OTHERS}{memory}": partial(of_memory, memory, settings) for memory in MEMORIES if memory != "gru"}
    return [Item(name, partial(recorded, make), alone=True) for name, make in (cases | others).items()]


def of_promp(settings: Settings) -> Training:
    """MAML with PPO, and a penalty on how far the policies before the gradient steps go."""
    config = MAMLConfig(meta_batch_size=20, fast_batch_size=20, **VARIANTS["ProMP"])
    return Training(config, Navigation2D(100, 2), settings.torch_device)


def of_agent(config: AgentConfig, family: TaskFamily, settings: Settings) -> Training:
    """A small training of another agent."""
    return Training(config, family, settings.torch_device)


def of_memory(memory: str, settings: Settings) -> Training:
    """A small training on the bandit."""
    return Training(RL2Config(meta_batch_size=64, memory=memory), BernoulliBandit(5, 10), settings.torch_device)


def recorded(make: Callable[[], Training], seconds: float) -> Result:
    """Of each part that was called whether it was recorded, and if not, why and in which line."""
    tune(1)
    training = make()
    places: dict[str, str] = {}
    for name, part in training.parts.items():
        watch(part, partial(places.setdefault, name))
    for _ in range(WARM_UP + 2):
        training()
    parts = {}
    for name, part in training.parts.items():
        if part._calls:
            parts[name] = {"recordings": len(part._recordings), "why_not": part.why_not, "where": places.get(name)}
        elif part.why_not is not None:
            parts[name] = {"recordings": 0, "why_not": part.why_not, "where": None}
    return {"parts": parts}


def watch(captured: Captured, note: Callable[[str], Any]) -> None:
    """Note the line behind a recording that fails: what `Captured` keeps is the last of what then went wrong."""
    record = captured._record

    def watched(*args: Any) -> Any:
        try:
            return record(*args)
        except Exception as error:
            traceback.print_exc()
            note(origin(error))
            raise

    setattr(captured, "_record", watched)  # noqa: B010  (a method is no attribute to be set, says mypy)


def origin(error: BaseException) -> str:
    """What went wrong first, and the last line of ours that led there."""
    while (earlier := error.__cause__ or error.__context__) is not None:
        error = earlier
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(PACKAGE)] or frames
    if not ours:
        return told(error)
    return f"{told(error)} at {Path(ours[-1].filename).name}:{ours[-1].lineno}: {ours[-1].line}"


def whole(part: Result) -> bool:
    """Whether a part is replayed."""
    return part["recordings"] > 0 and part["why_not"] is None


def text(name: str, result: Result) -> str:
    """The parts one by one."""
    said = []
    for part, found in result["parts"].items():
        why = found["where"] or found["why_not"] or "no shapes occurred four times"
        said.append(f"{part} recorded" if whole(found) else f"{part} NOT recorded: {why}")
    return f"{name}: {'; '.join(said)}"


def lines(results: dict[str, Result]) -> list[str]:
    """A line each, but only one for all memories, and one for all other agents, of which everything was recorded."""
    fine = [
        name
        for name, result in results.items()
        if (name.startswith(OTHERS) or name in AGENTS)
        and "parts" in result
        and all(map(whole, result["parts"].values()))
    ]
    found = [failure_or_text(name, result) for name, result in results.items() if name not in fine]
    agents = [name for name in fine if name in AGENTS]
    memories = [name.removeprefix(OTHERS) for name in fine if name not in AGENTS]
    said = {", ".join(agents): agents, OTHERS + ", ".join(memories): memories}
    return found + [f"{names}: all recorded" for names, some in said.items() if some]


def failure_or_text(name: str, result: Result) -> str:
    """One line."""
    why = failure(result)
    return text(name, result) if why is None else f"{name} {why}"
