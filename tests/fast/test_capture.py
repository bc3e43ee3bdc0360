"""Recording and replaying: the bookkeeping with a recorder that stands in for a CUDA graph, and on CUDA itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

import metarl
from metarl.agents import (
    BeliefConfig,
    MAMLConfig,
    PEARLConfig,
    R2D2Config,
    RecurrentSACConfig,
    RL2Config,
    VariBADConfig,
)
from metarl.agents.maml import PPOStep, TRPOStep
from metarl.core import rng
from metarl.core.rollout import run_trial
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.points.navigation import Navigation2D
from metarl.fast import capture
from metarl.fast.capture import WARM_UP, Captured

CPU = torch.device("cpu")


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Played(capture.Recording):
    """A recording that calls its function again, on the memory that the recording has. Making it calls nothing."""

    def __init__(self, function: Any, leaves: list[Tensor], spec: pytree.TreeSpec) -> None:
        self.inputs = [leaf.clone() for leaf in leaves]
        self.call = lambda: function(*pytree.tree_unflatten(self.inputs, spec))

    def replay(self, leaves: list[Tensor]) -> Any:
        torch._foreach_copy_(self.inputs, leaves)
        return self.call()


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[Played]:
    """Pretend that the CPU has graphs; the recordings that are made."""
    made: list[Played] = []

    def record(self: Captured, leaves: list[Tensor], spec: pytree.TreeSpec) -> Played:
        made.append(Played(self.function, leaves, spec))
        return made[-1]

    monkeypatch.setattr(Captured, "_record", record)
    monkeypatch.setattr(capture, "_on_side_stream", lambda function: function())
    return made


def pretending(function: Any) -> Captured:
    captured = Captured(function, CPU)
    captured.why_not = None
    return captured


def test_on_a_cpu_it_is_the_function():
    captured = Captured(lambda x: x + 1, CPU)
    assert captured(41) == 42 and captured.why_not == "cpu has no graphs"


def test_it_is_recorded_after_the_warm_up_and_replays_on_new_values(recorded: list[Played]):
    captured = pretending(lambda pair, scale: Pair(pair.first * scale, pair.second.sum()))
    results = []
    for n in range(WARM_UP + 3):
        x = torch.full((2,), float(n))
        results.append(captured(Pair(x, x + 1), torch.tensor(10.0)))
        assert len(recorded) == int(n >= WARM_UP)
    assert [r.first.tolist() for r in results] == [[10.0 * n] * 2 for n in range(WARM_UP + 3)]
    assert [float(r.second) for r in results] == [2.0 * n + 2 for n in range(WARM_UP + 3)]


def test_every_shape_has_its_own_recording(recorded: list[Played]):
    captured = pretending(lambda x: x * 2)
    for _ in range(WARM_UP + 2):
        for size in (3, 4):
            assert captured(torch.ones(size)).shape == (size,)
    assert sorted(len(one.inputs[0]) for one in recorded) == [3, 4]
    captured(torch.ones(3, dtype=torch.float64))
    assert len(recorded) == 2, "another type warms up for itself"


def test_what_cannot_be_recorded_goes_on_as_it_is(monkeypatch: pytest.MonkeyPatch):
    def refuse(self: Captured, leaves: list[Tensor], spec: pytree.TreeSpec) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more lines")

    monkeypatch.setattr(Captured, "_record", refuse)
    monkeypatch.setattr(capture, "_on_side_stream", lambda function: function())
    calls = []
    captured = pretending(lambda x: calls.append(x) or x + 1)
    assert [float(captured(torch.tensor(float(n)))) for n in range(6)] == [1, 2, 3, 4, 5, 6]
    assert captured.why_not == "operation not permitted when stream is capturing" and len(calls) == 6


@pytest.mark.parametrize("heads", ["plain", "hyper"])
@pytest.mark.parametrize("family", [BernoulliBandit(5, 6), Navigation2D(5, 2)], ids=["Discrete", "Box"])
def test_a_captured_update_is_the_plain_one(recorded: list[Played], family: Any, heads: str):
    """All that changes from minibatch to minibatch is among the arguments, as tensors."""
    schedules = {"lr": [(0.0, 1e-2), (1.0, 1e-3)], "ent_coef": [(0.0, 0.1), (1.0, 0.0)]}
    options = {"aux_coef": 1.0, "critic": "task", "heads": heads, **schedules}
    config = RL2Config(meta_batch_size=8, hidden_size=8, **options)  # type: ignore[arg-type]
    plain, fast = (config.build(family, 0, CPU) for _ in range(2))
    fast.minibatch.why_not = None
    for n in range(3):
        for agent in (plain, fast):
            trial = run_trial(agent, family, family.sample_tasks(rng.key(n), 8), rng.key(n))
            agent.update(trial, n / 3)
    assert len(recorded) == 1
    for (name, a), b in zip(plain.net.named_parameters(), fast.net.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5), name  # a recording has its arguments elsewhere in memory


def test_a_captured_outer_step_is_the_plain_one(recorded: list[Played]):
    """The penalty's weight changes between iterations, the learning rate too."""
    family: Any = Navigation2D(5, 2)
    config = MAMLConfig(
        meta_batch_size=4, fast_batch_size=4, inner_loss="likelihood_ratio", baseline="network",
        outer=PPOStep(lr=[(0.0, 1e-2), (1.0, 1e-3)], inner_kl_coef=0.1, num_minibatches=2),
    )  # fmt: skip
    plain, fast = (config.build(family, 0, CPU) for _ in range(2))
    fast.outer.minibatch.why_not = None
    for n in range(4):
        for agent in (plain, fast):
            agent.update(run_trial(agent, family, family.sample_tasks(rng.key(n), 4), rng.key(n)), n / 4)
    assert len(recorded) == 1 and bool((fast.outer.inner_kl_coef != 0.1).any())
    for (name, a), b in zip(plain.net.named_parameters(), fast.net.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_a_captured_trust_region_step_is_the_plain_one(recorded: list[Played]):
    """The longest step is one recording, what the line search asks another, which is played for every try."""
    family: Any = Navigation2D(5, 2)
    config = MAMLConfig(meta_batch_size=4, fast_batch_size=4, outer=TRPOStep(trust="all", ls_backtrack_ratio=0.5))
    plain, fast = (config.build(family, 0, CPU) for _ in range(2))
    fast.outer.propose.why_not = fast.outer.loss_and_kl.why_not = None
    for n in range(4):
        for agent in (plain, fast):
            agent.update(run_trial(agent, family, family.sample_tasks(rng.key(n), 4), rng.key(n)), n / 4)
    assert len(recorded) == 2
    for (name, a), b in zip(plain.net.named_parameters(), fast.net.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6), name


# ---- on a GPU ------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_a_graph_computes_what_the_function_does():
    captured = Captured(lambda x, y: {"sum": x + y, "product": x @ y}, torch.device("cuda"))
    for n in range(WARM_UP + 3):
        x = torch.full((4, 4), float(n), device="cuda")
        result = captured(x, x + 1)
        assert torch.equal(result["sum"], 2 * x + 1) and torch.equal(result["product"], x @ (x + 1))
    assert captured.why_not is None


@pytest.mark.gpu
def test_waiting_for_the_device_ends_in_plain_calls():
    captured = Captured(lambda x: x * float(x.sum()), torch.device("cuda"))
    for n in range(WARM_UP + 3):
        assert float(captured(torch.tensor(float(n), device="cuda"))) == n * n
    assert captured.why_not is not None


@pytest.mark.gpu
@pytest.mark.parametrize(
    "family", [BernoulliBandit(5, 10), GridNavi(), Navigation2D(20, 2)], ids=lambda family: type(family).__name__
)
def test_a_captured_trial_is_the_plain_one(family: Any):
    device = torch.device("cuda")
    agent = RL2Config(meta_batch_size=64, hidden_size=32).build(family, 0, device)
    captured = Captured(lambda task, key: run_trial(agent, family, task, key), device)
    for n in range(WARM_UP + 2):
        key = rng.key(n, device)
        task = family.sample_tasks(key, 64)
        (plain,), (fast,) = run_trial(agent, family, task, key), captured(task, key)
        steps = len(plain.mask)  # a recording always plays to the horizon; what is beyond is padding
        assert torch.equal(plain.mask, fast.mask[:steps]) and not bool(fast.mask[steps:].any())
        for a, b in zip(plain.outcome, fast.outcome, strict=True):
            assert torch.allclose(a.float(), b[:steps].float(), atol=1e-5)
    assert captured.why_not is None


@pytest.mark.gpu
def test_a_captured_trial_sees_what_updates_change():
    """The gradient steps in it divide by a size of rewards that changes with every update."""
    family, device = Navigation2D(20, 2), torch.device("cuda")
    agent = MAMLConfig(meta_batch_size=16, fast_batch_size=4, norm_adv=False, outer="ppo").build(family, 0, device)
    captured = Captured(lambda task, key: run_trial(agent, family, task, key), device)
    for n in range(WARM_UP + 3):
        key = rng.key(n, device)
        task = family.sample_tasks(key, 16)
        plain, fast = run_trial(agent, family, task, key), captured(task, key)
        for a, b in zip(plain, fast, strict=True):
            assert torch.allclose(a.acted.action, b.acted.action, atol=1e-4)
        agent.update(plain)
    assert captured.why_not is None


@pytest.mark.gpu
@pytest.mark.parametrize(
    "config",
    [
        RL2Config(meta_batch_size=64, hidden_size=32),
        # Draws by priority would differ where a priority does in its last bit.
        R2D2Config(meta_batch_size=64, hidden_size=32, updates_per_iteration=3, priority_exponent=0.0),
        MAMLConfig(meta_batch_size=64, fast_batch_size=8, outer=PPOStep(inner_kl_coef=0.1)),
        MAMLConfig(meta_batch_size=64, fast_batch_size=8),
        BeliefConfig(meta_batch_size=64, hidden_sizes=(32,)),
        VariBADConfig(meta_batch_size=64, gru_size=32),
        RecurrentSACConfig(meta_batch_size=64, hidden_size=32, updates_per_iteration=3),
        PEARLConfig(meta_batch_size=64, hidden_sizes=(32,), updates_per_iteration=3),
    ],
    ids=["rl2", "r2d2", "maml", "maml_trpo", "belief", "varibad", "sac", "pearl"],
)
def test_a_captured_update_learns_as_the_plain_one(config: Any):
    family, device = BernoulliBandit(5, 10), torch.device("cuda")
    plain, fast = (config.build(family, 0, device) for _ in range(2))
    for part in plain.captured.values():
        part.why_not = "to compare"
    for n in range(6):
        for agent in (plain, fast):
            key = rng.key(n, device)
            agent.update(run_trial(agent, family, family.sample_tasks(key, 64), key), n / 6)
    assert fast.captured and all(part.why_not is None for part in fast.captured.values())
    for (name, a), b in zip(plain.net.named_parameters(), fast.net.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4), name


@pytest.mark.parametrize(
    ("preset", "parts"),
    [("rl2_gridnavi", ["Minibatches"]), ("maml_navigation2d", ["Outer steps", "Line searches"])],
)
def test_agents_name_their_parts_that_may_be_recorded(preset: str, parts: list[str]):
    agent = metarl.load(f"pretrained:{preset}")
    assert list(agent.captured) == parts
    assert all(part.device == agent.device and part.why_not == "cpu has no graphs" for part in agent.captured.values())
