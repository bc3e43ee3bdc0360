"""What runs on a GPU, on a machine without one: on the device `meta`, whose tensors have shapes but no values.

An operation on tensors of two devices fails there as it does on a GPU, and so does every look at a value, for which a
GPU would be waited for. Copies from the host's memory are caught by watching the functions that make them. Neither may
be part of a recording. Arithmetic is not tested here; that CPU and GPU agree is a test for a GPU.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import pytest
import torch
from registered_families import IDS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

import metarl
from metarl.agents import MAMLConfig, R2D2Config, RL2Config
from metarl.agents.maml import PPOStep, TRPOStep
from metarl.core import rng
from metarl.core.agent import AgentConfig, LearningAgent
from metarl.core.batch_env import make_env
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import features
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.points.navigation import Navigation2D
from metarl.learning.memories import MEMORIES

META = torch.device("meta")
SIMULATED = {f"metarl/{name}-v0" for names in metarl.envs.SIMULATED.values() for name in names}  # on the CPU, always
OPAQUE = {"metarl/Gym-v0"}  # simulators are on no device
FAMILIES = sorted(id for id in IDS if id not in SIMULATED and id not in OPAQUE)
PACKAGE = str(Path(metarl.__file__).parents[1])


class Watch(TorchFunctionMode):
    """Notes the lines that copy something from the host to the device, and does without a kernel that `meta` has not.

    torch's functions stay as they are: what has been replaced while torch's compiler is imported, it does not know.
    """

    def __init__(self) -> None:
        super().__init__()
        self.copies: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._fused_adam_:
            return fused_adam(*args, **kwargs)
        result = func(*args, **kwargs)
        if func in (torch.tensor, torch.as_tensor, Tensor.to, Tensor.copy_) and result.device == META:
            source = args[-1] if func is Tensor.copy_ else args[0]
            if not isinstance(source, Tensor) or source.device != META:
                last = [frame for frame in traceback.extract_stack()[:-1] if frame.filename.startswith(PACKAGE)][-1]
                self.copies.append(f"{Path(last.filename).name}:{last.lineno} {last.line}")
        return result


def fused_adam(parameters: list[Tensor], *lists: list[Tensor], **options: Any) -> None:
    """Stands in for the kernel: all that it is given has to be on the device."""
    tensors = [*parameters, *(tensor for each in lists for tensor in each), options["lr"], options["grad_scale"]]
    assert {tensor.device for tensor in tensors} == {META}


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The lines that copied, as a list that grows."""
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with Watch() as watch:
        yield watch.copies


def imagined(family: TaskFamily, tasks: int) -> tuple[Task, Key]:
    """Tasks and a key on the device. Which tasks there are may well be looked up: that is not recorded."""
    task = pytree.tree_map(lambda field: field.to(META), family.sample_tasks(rng.key(0), tasks))
    return task, rng.key(1).to(META)


def build(config: AgentConfig, family: TaskFamily) -> LearningAgent:
    return config.build(family, 0, META)


def play(agent: LearningAgent, family: TaskFamily) -> list[Rollout]:
    return run_trial(agent, family, *imagined(family, agent.config.meta_batch_size))


def descend_twice(agent: Any, *args: Any, copies: list[str]) -> Any:
    """The second time is what a recording would hold: what is made at a first use is there."""
    agent.minibatch(*args)
    copies.clear()
    return agent.minibatch(*args)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_stays_on_the_device(name: str, copies: list[str]):
    """A reset and steps, with the end of an episode among them where all end together."""
    family = metarl.make(name)
    task, key = imagined(family, 3)
    for _ in range(2):  # constants are made once
        copies.clear()
        env = make_env(family, task, key)
        step = env.reset()
        for number in range(1, 4):
            if not family.terminates and number == 2:
                env._step = family.horizon - 1
            space = family.action_space
            action = torch.zeros((3, *space.shape), device=META)
            outcome, step = env.step(action.to(torch.int64) if isinstance(space, gymnasium.spaces.Discrete) else action)
            env.all_done()
    assert copies == []
    for tensor in [*outcome, *step, *pytree.tree_leaves(env.state), env.alive]:
        assert tensor.device == META and tensor.shape[0] == 3


@pytest.mark.parametrize(
    "family", [BernoulliBandit(5, 4), GridNavi(), Navigation2D(5, 2)], ids=lambda f: type(f).__name__
)
@pytest.mark.parametrize(
    "config",
    [RL2Config(meta_batch_size=4, hidden_size=8), MAMLConfig(meta_batch_size=2, fast_batch_size=2)],
    ids=["rl2", "maml"],
)
def test_a_trial_stays_on_the_device(config: AgentConfig, family: TaskFamily, copies: list[str]):
    """MAML's gradient steps between its rounds, too."""
    agent = build(config, family)
    play(agent, family)
    task, key = imagined(family, config.meta_batch_size)
    copies.clear()
    trial = run_trial(agent, family, task, key)
    assert copies == []
    assert all(tensor.device == META for tensor in pytree.tree_leaves(trial))
    assert len(trial[0].mask) == (agent.protocol.episodes or family.episodes_per_trial) * family.horizon


@pytest.mark.parametrize(("memory", "heads"), [*((memory, "plain") for memory in MEMORIES), ("gru", "hyper")])
@pytest.mark.parametrize("family", [BernoulliBandit(5, 4), Navigation2D(5, 2)], ids=["Discrete", "Box"])
def test_a_minibatch_of_rl2_stays_on_the_device(memory: str, heads: str, family: TaskFamily, copies: list[str]):
    options = {"heads": heads, "critic": "task", "aux_coef": 1.0, "embed_size": 4, "head_size": 4, "chunk_length": 3}
    agent: Any = build(RL2Config(meta_batch_size=4, hidden_size=8, memory=memory, **options), family)  # type: ignore[arg-type]
    (rollout,) = play(agent, family)
    task = features(rollout.task)
    batch, metrics = agent._prepare(rollout, task, 0.9)
    metrics["losses"] = descend_twice(agent, batch, task, torch.zeros((), device=META), copies=copies)
    assert copies == []
    assert {value.device for value in metrics.values()} == {META}


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in sequences"])
def test_a_trial_and_a_minibatch_of_r2d2_stay_on_the_device(memory: str, whole: bool, copies: list[str]):
    if memory == "transformer" and not whole:
        pytest.skip("its state is not stored")
    options: dict[str, Any] = {} if whole else {"replay_whole": 4, "sequence_length": 4, "burn_in": 2}
    family = GridNavi(episodes_per_trial=1)
    agent: Any = build(R2D2Config(meta_batch_size=4, hidden_size=8, memory=memory, **options), family)
    task, key = imagined(family, 4)
    run_trial(agent, family, task, key)
    copies.clear()
    (rollout,) = run_trial(agent, family, task, key)
    assert copies == []
    _, mine = agent.replay.add(rollout, agent.net.online)
    batch = agent.replay.batch(mine, torch.ones(len(mine.slot), device=META), agent.net.online)
    metrics, priority = descend_twice(agent, batch, torch.zeros((), device=META), copies=copies)
    agent.first_priority(batch, torch.zeros((), device=META))
    assert copies == []
    assert metrics.device == priority.device == META


@pytest.mark.parametrize("family", [BernoulliBandit(5, 4), Navigation2D(5, 2)], ids=["Discrete", "Box"])
@pytest.mark.parametrize(
    "options", [{}, {"outer": PPOStep(inner_kl_coef=0.1)}, {"rates": "per_parameter"}, {"meta_rounds": "all"}]
)
def test_a_minibatch_of_maml_stays_on_the_device(options: dict[str, Any], family: TaskFamily, copies: list[str]):
    agent: Any = build(MAMLConfig(meta_batch_size=2, fast_batch_size=2, **({"outer": "ppo"} | options)), family)
    rounds = [agent.samples(rollout, 2) for rollout in play(agent, family)]
    before = agent.adaptation.adapt(agent.meta, rounds).policies[:-1]
    metrics = descend_twice(agent.outer, rounds, before, copies=copies)
    assert copies == []
    assert {value.device for value in metrics.values()} == {META}


@pytest.mark.parametrize("family", [BernoulliBandit(5, 4), Navigation2D(5, 2)], ids=["Discrete", "Box"])
@pytest.mark.parametrize(
    "options", [{}, {"outer": TRPOStep(trust="all")}, {"rates": "per_parameter"}, {"task_chunk": 1}]
)
def test_a_trust_region_step_of_maml_stays_on_the_device(
    options: dict[str, Any], family: TaskFamily, copies: list[str]
):
    """But for the line search's looks at what it is told."""
    agent: Any = build(MAMLConfig(meta_batch_size=2, fast_batch_size=2, **options), family)
    rounds, outer = [agent.samples(rollout, 2) for rollout in play(agent, family)], agent.outer
    outer.propose(rounds)
    copies.clear()
    proposal = outer.propose(rounds)
    told = outer.loss_and_kl(rounds, proposal.before, proposal.step)
    assert copies == []
    assert {tensor.device for tensor in (*pytree.tree_leaves(proposal), told)} == {META}


def test_a_copy_and_a_look_are_noticed(copies: list[str]):
    """The tests above can fail."""
    torch.tensor([1.0], device=META)
    assert len(copies) == 1 and "torch.tensor([1.0], device=META)" in copies[0]
    torch.zeros(1).to(META)
    torch.zeros(1, device=META).copy_(torch.ones(1))
    assert len(copies) == 3
    with pytest.raises(RuntimeError, match="meta"):
        bool(torch.zeros(1, device=META) > 0)
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=META) + torch.zeros(3)
