"""(g) Whether a GPU computes what a CPU does: one iteration of each agent, and a checkpoint that goes there and back.

How far two agents are apart is the largest *relative difference* of their parameters: of each tensor the largest
absolute difference of two entries over the largest absolute entry that it has on the CPU, and of these the largest.
(Of single entries it would be that of one that happens to be near zero.) Beside it stands the *difference of the step*:
the Euclidean distance of all parameters over that by which the iteration moved them on the CPU.

An iteration is compared twice. First both devices learn from the trial that was played on the CPU, which is arithmetic
alone. Then the GPU plays, too: with equal random numbers a probability that differs in its last digit may turn one
action, and all that follows in its row, so how many rows were not the same stands beside it. Products are exact
(float32), and once more as training has them (tf32).

Not every difference is a mistake: the conjugate gradients of TRPO answer to a Fisher matrix that is close to singular,
and a last digit there turns the step. Therefore the CPU is also compared with itself after every parameter has been
moved to a number next to it, up or down by chance. What that *last digit* makes is what no two devices can be below.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from benchmarks.gpu.items import Item, Result
from benchmarks.gpu.report import Report, failure
from benchmarks.gpu.settings import Settings
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.maml import PPOStep
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.points.navigation import Navigation2D
from metarl.learning.memories import MEMORIES
from metarl.training import checkpoint
from metarl.training.checkpoint import Counters

BOUND = 1e-4
"""What is to be reached in float32, on the same trial."""
MAML: dict[str, dict[str, Any]] = {
    "MAML (vpg, TRPO)": {},
    "MAML (likelihood ratio, TRPO)": {"inner_loss": "likelihood_ratio"},
    "MAML (PPO)": {"outer": "ppo"},
    "ANIL": {"adapted": "head"},
    "Meta-SGD": {"rates": "per_parameter"},
    "ProMP": {"outer": PPOStep(inner_kl_coef=5e-4), "inner_loss": "likelihood_ratio"},
    "Reptile": {"outer": "reptile"},
}
CPU = torch.device("cpu")
Trial = list[Rollout]


def items(settings: Settings, report: Report) -> list[Item]:
    """Each agent, then the checkpoints of two of them."""
    found = agents(settings.tiny)
    saved = {name: found[name] for name in ("RL² gru", "MAML (PPO)")}
    return [
        *(Item(name, partial(compare, *agent, settings)) for name, agent in found.items()),
        *(Item(f"checkpoint, {name}", partial(travel, *agent, settings)) for name, agent in saved.items()),
    ]


def agents(tiny: bool) -> dict[str, tuple[AgentConfig, TaskFamily]]:
    """All that are compared, with the families that they are compared on."""
    size, hidden = (8, 8) if tiny else (64, 32)
    bandit: TaskFamily = BernoulliBandit(5, 3 if tiny else 20)
    point: TaskFamily = Navigation2D(3 if tiny else 20, 2)
    found: dict[str, tuple[AgentConfig, TaskFamily]] = {
        f"RL² {memory}": (RL2Config(meta_batch_size=size, hidden_size=hidden, memory=memory), bandit)
        for memory in MEMORIES
    }
    found["RL² gru, Navigation2D"] = (RL2Config(meta_batch_size=size, hidden_size=hidden), point)
    for name, options in MAML.items():
        found[name] = (MAMLConfig(meta_batch_size=size // 4, fast_batch_size=4 if tiny else 20, **options), point)
    return found


def compare(config: AgentConfig, family: TaskFamily, settings: Settings, seconds: float) -> Result:
    """The differences after one iteration, as the module's docstring has it."""
    device = settings.torch_device
    precise(True)
    here = config.build(family, 0, CPU)
    first = parameters(here)
    trial = play(here, family, CPU)
    here.update(trial)
    found: Result = {}
    for name, exact in (("", True), ("_tf32", False)):
        if not exact and not settings.cuda:
            continue
        precise(exact)
        there = config.build(family, 0, device)
        there.update(moved(trial, device))
        found[f"relative{name}"], found[f"of_step{name}"] = apart(parameters(here), parameters(there), first)
    precise(True)
    touched = config.build(family, 0, CPU)
    touch(touched)
    touched.update(trial)
    found["relative_last_digit"], found["of_step_last_digit"] = apart(parameters(here), parameters(touched), first)
    there = config.build(family, 0, device)
    other = play(there, family, device)
    there.update(other)
    found["relative_played"], found["of_step_played"] = apart(parameters(here), parameters(there), first)
    found["rows_played_otherwise"] = otherwise(trial, moved(other, CPU))
    found["devices"] = ["cpu", settings.device]
    return found


def travel(config: AgentConfig, family: TaskFamily, settings: Settings, seconds: float) -> Iterator[Result]:
    """Save on the device, load and save on the CPU, load on the device; then all three go on from there."""
    precise(True)
    device = settings.torch_device
    stayed = config.build(family, 0, device)
    stayed.update(play(stayed, family, device))
    here, back = config.build(family, 1, CPU), config.build(family, 2, device)
    done = Counters(iteration=1)
    for source, target in ((stayed, here), (here, back)):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(folder, source, done)
            if checkpoint.restore(folder, target) != done:
                raise ValueError("the counters of a checkpoint were not those that had been saved.")
    found: Result = {"equal_on_cpu": equal(stayed, here), "equal_when_back": equal(stayed, back)}
    yield found
    # The agent's own key is of its seed, which no checkpoint holds: a resumed run is built from the same one.
    here, back = (resumed(config, family, where, agent) for where, agent in ((CPU, here), (device, back)))
    before, next_trial = parameters(stayed), play(stayed, family, device, number=1)
    for agent in (stayed, back):
        agent.update(next_trial)
    here.update(moved(next_trial, CPU))
    found["relative_back"], _ = apart(parameters(stayed), parameters(back), before)
    found["relative_on_cpu"], _ = apart(parameters(here), parameters(stayed), before)
    yield found


def resumed(config: AgentConfig, family: TaskFamily, device: torch.device, agent: LearningAgent) -> LearningAgent:
    """An agent of seed 0 in the state of another one."""
    new = config.build(family, 0, device)
    new.load_state_dict(copy.deepcopy(agent.state_dict()))
    return new


def touch(agent: Any) -> None:
    """Move every parameter to one of the two numbers next to it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in agent.net.parameters():
            up = torch.rand(parameter.shape, generator=generator) < 0.5
            parameter.copy_(torch.nextafter(parameter, torch.where(up, torch.inf, -torch.inf)))


def precise(exact: bool) -> None:
    """Exact products in float32, or tf32 where the device has it."""
    torch.set_float32_matmul_precision("highest" if exact else "high")
    torch.backends.cudnn.allow_tf32 = not exact


def play(agent: LearningAgent, family: TaskFamily, device: torch.device, number: int = 0) -> Trial:
    """A trial on tasks that are the same on every device."""
    key = rng.key(number, device)
    return run_trial(agent, family, family.sample_tasks(key, agent.config.meta_batch_size), rng.fold(key, 1))


def moved(trial: Trial, device: torch.device) -> Trial:
    """The same trial in another memory."""
    there: Trial = pytree.tree_map(lambda tensor: tensor.to(device), trial)
    return there


def parameters(agent: Any) -> list[Tensor]:
    """Copies of all that is learned, on the CPU."""
    return [parameter.detach().to(CPU, torch.float64, copy=True) for parameter in agent.net.parameters()]


def apart(here: list[Tensor], there: list[Tensor], first: list[Tensor]) -> tuple[float, float]:
    """Relative difference and difference of the step, of parameters that were `first` the same."""
    relative = 0.0
    for a, b in zip(here, there, strict=True):
        gap, size = float((a - b).abs().max()), float(a.abs().max())
        ratio = gap / size if size > 0.0 else gap
        relative = relative if ratio <= relative else ratio  # what is not a number is what there is from then on
    a, b, start = (torch.cat([tensor.flatten() for tensor in some]) for some in (here, there, first))
    gap, step = float((a - b).norm()), float((a - start).norm())
    return relative, gap / step if step > 0.0 else gap


def otherwise(trial: Trial, other: Trial) -> float:
    """The share of rows in which another action was taken at some step, in any round."""
    shares = []
    for a, b in zip(trial, other, strict=True):
        steps = min(len(a.mask), len(b.mask))
        one, two = (rollout.acted.action[:steps].flatten(2) if rollout.acted.action.ndim > 2
                    else rollout.acted.action[:steps, :, None] for rollout in (a, b))  # fmt: skip
        differs = ~torch.isclose(one.double(), two.double(), rtol=1e-3, atol=1e-4).all(-1) & (a.mask[:steps] > 0)
        shares.append(float(differs.any(0).double().mean()))
    return max(shares)


def equal(one: LearningAgent, other: LearningAgent) -> bool:
    """Whether two agents hold the same tensors, bit by bit."""
    a, b = one.state_dict(), other.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


def text(name: str, result: Result) -> str:
    """The differences."""
    if "equal_on_cpu" in result:
        same = "the same" if result["equal_on_cpu"] and result["equal_when_back"] else "NOT the same"
        gone = "" if "relative_back" not in result else (
            f"; one iteration later {result['relative_back']:.1e} from the one that stayed, "
            f"{result['relative_on_cpu']:.1e} from the CPU's"
        )  # fmt: skip
        return f"{name}: {same} on the CPU and back{gone}"
    tf32 = f", with tf32 {result['relative_tf32']:.1e}" if "relative_tf32" in result else ""
    here, there = result["devices"]
    return (
        f"{name}: {here} and {there} apart by {result['relative']:.1e} ({result['of_step']:.1e} of the step){tf32}; "
        f"a last digit makes {result['relative_last_digit']:.1e}; played there {result['relative_played']:.1e}, "
        f"{100 * result['rows_played_otherwise']:.1f} % of rows otherwise"
    )


def lines(results: dict[str, Result]) -> list[str]:
    """The furthest apart, those beyond the bound, what failed, and the checkpoints."""
    found = []
    compared = {name: result for name, result in results.items() if "relative" in result}
    if compared:
        beyond = {name: result for name, result in compared.items() if not result["relative"] <= BOUND}
        alone = "" if compared_with_gpu(compared) else "the CPU with itself, which says nothing of a GPU: "
        found.append(f"{alone}{len(compared) - len(beyond)} of {len(compared)} agents within {BOUND:g}")
        found += [f"beyond: {text(name, result)}" for name, result in beyond.items()]
        if not beyond:
            worst = max(compared, key=lambda name: compared[name]["relative"])
            found.append(f"furthest: {text(worst, compared[worst])}")
    failed = {name: why for name, result in results.items() if (why := failure(result)) is not None}
    if failed:
        found.append("; ".join(f"{name} {why}" for name, why in failed.items()))
    return found + [text(name, result) for name, result in results.items() if "equal_on_cpu" in result]


def compared_with_gpu(results: dict[str, Result]) -> bool:
    """Whether two devices were compared, and not one with itself."""
    return all(len(set(result["devices"])) == 2 for result in results.values())
