"""Exports: programs that compute what their agents do, smaller weights, and how they are played and checked."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_families import Corridor

import metarl
from metarl.agents import DPTConfig, MAMLConfig, RecurrentSACConfig, RL2Config, VariBADConfig
from metarl.core import rng
from metarl.core.agent import LearningAgent, OwnLoopAgent
from metarl.core.batch_env import Step, make_env
from metarl.core.rollout import run_trial
from metarl.core.tree import take
from metarl.interop.export import OnnxAgent, check, export
from metarl.interop.export.program import Program
from metarl.interop.export.weights import prune

ONNX = ("onnx", "onnxscript", "onnxruntime")
NAVIGATION, WINDY, GRID = "metarl/Navigation2D-v0", "metarl/WindyPoint-v0", "metarl/GridNavi-v0"


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep torch's structured traces out of pytest's log, which would take most of the time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture
def onnx() -> None:
    for name in ONNX:
        pytest.importorskip(name, reason="pip install 'metarl[export]'")


def made(config: object, family: object) -> LearningAgent:
    """An untrained agent that has seen a trial, so that its scales are not those of the start."""
    family = metarl.make(family) if isinstance(family, str) else family
    agent = config.build(family, 0, torch.device("cpu"))
    if isinstance(agent, OwnLoopAgent):
        agent.learn("train")
        return agent
    task = family.sample_tasks(rng.key(1), config.meta_batch_size)
    agent.update(run_trial(agent, family, task, rng.key(2)))
    return agent


CASES = {
    "gru": (RL2Config(hidden_size=8, meta_batch_size=8), GRID),
    "lstm": (RL2Config(memory="lstm", hidden_size=8, meta_batch_size=8, embed_size=4, transition_input=True), GRID),
    "fast_weights": (RL2Config(memory="fast_weights", hidden_size=8, meta_batch_size=8, head_size=4), GRID),
    "reactive": (RL2Config(memory="reactive", hidden_size=8, meta_batch_size=8), GRID),
    "hyper": (RL2Config(heads="hyper", hidden_size=8, meta_batch_size=8, hyper_size=3), GRID),
    "box": (RL2Config(hidden_size=8, meta_batch_size=8, norm_obs=True), NAVIGATION),
    "dpt": (DPTConfig(memory="gru", context="episode", hidden_size=8, meta_batch_size=8), GRID),
    "varibad": (VariBADConfig(gru_size=8, meta_batch_size=8, vae_batch=4, buffer_size=8), GRID),
    "sac": (RecurrentSACConfig(hidden_size=8, meta_batch_size=8, buffer_size=8), WINDY),
    "td3": (RecurrentSACConfig(hidden_size=8, meta_batch_size=8, buffer_size=8, algorithm="td3"), WINDY),
    "maml": (MAMLConfig(hidden_sizes=[8], meta_batch_size=4, fast_batch_size=2), NAVIGATION),
}


@pytest.mark.parametrize("case", CASES)
def test_a_program_is_the_agent(case: str):
    """In torch, before any translation: the greedy actions of a whole trial are the agent's own."""
    agent = made(*CASES[case])
    program = Program(agent.acting_module(agent.begin(1)))
    units = program.acting.actions
    memory = program.initial(3)
    task = agent.family.sample_tasks(rng.key(5), 3)
    acting, rows = agent.begin(3), torch.arange(3)
    env = make_env(agent.family, task, rng.key(6), 2)
    step = env.reset()
    while not env.all_done():
        with torch.no_grad():
            found = program(*step, memory)
        outputs = dict(zip(program.outputs(), found, strict=True))
        memory = found[len(program.outputs()) - len(program.memory_names) :]
        acted, acting = agent.act(acting, step, rows, greedy=True)
        own, greedy = units.to_own(outputs["action"]), units.to_own(acted.action)
        assert torch.allclose(own.to(torch.float32), greedy.to(torch.float32), atol=1e-5)
        _, step = env.step(acted.action)
    assert len(memory) == len(program.memory_names)


@pytest.mark.usefixtures("onnx")
@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) for case in ("gru", "sac", "maml")])
def test_a_file_is_the_agent(case: str, tmp_path: Path):
    agent = made(*CASES[case])
    path = export(agent, tmp_path)
    found = check(agent, tmp_path)
    assert found.passed and found.difference < 1e-5 and found.alike == 1.0, found
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert path.name == manifest["file"] == "policy.onnx"
    assert [one["name"] for one in manifest["inputs"]][:4] == list(Step._fields)
    assert {*manifest["memory"]} == {one["name"] for one in manifest["inputs"][4:]}
    assert {*manifest["memory"].values()} < {one["name"] for one in manifest["outputs"]}
    assert str(Path(__file__).parents[2]).encode() not in path.read_bytes(), "no paths of the machine"


@pytest.mark.slow
@pytest.mark.usefixtures("onnx")
@pytest.mark.parametrize("case", sorted({*CASES} - {"gru", "sac", "maml"}))
def test_every_agent_is_translated(case: str, tmp_path: Path):
    agent = made(*CASES[case])
    export(agent, tmp_path)
    assert check(agent, tmp_path).passed


@pytest.mark.slow
def test_a_torch_file_is_the_agent(tmp_path: Path):
    agent = made(*CASES["gru"])
    assert export(agent, tmp_path, "torch").name == "policy.pt2"
    found = check(agent, tmp_path)
    assert found.passed and found.difference < 1e-6 and found.steps == 4 * 60


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A trained agent, and its program of 32 bits."""
    for name in ONNX:
        pytest.importorskip(name, reason="pip install 'metarl[export]'")
    agent, folder = metarl.load("pretrained:rl2_gridnavi"), tmp_path_factory.mktemp("exports")
    export(agent, folder / "float32")
    return SimpleNamespace(agent=agent, folder=folder)


@pytest.fixture(scope="module")
def smaller(exported: SimpleNamespace) -> SimpleNamespace:
    """Its programs of fewer bits, too."""
    for weights in ("float16", "int8"):
        export(exported.agent, exported.folder / weights, weights=weights)
    return exported


@pytest.mark.slow
def test_fewer_bits_are_smaller_and_nearly_the_same(smaller: SimpleNamespace):
    size, apart = {}, {}
    for weights in ("float32", "float16", "int8"):
        folder = smaller.folder / weights
        size[weights] = (folder / "policy.onnx").stat().st_size
        found = check(smaller.agent, folder)
        assert found.passed, found
        apart[weights] = found.difference
    assert size["float16"] < 0.6 * size["float32"] and size["int8"] < 0.45 * size["float32"]
    assert apart["float32"] < 1e-5 < apart["float16"] < apart["int8"] < 0.05


def test_the_evaluator_plays_a_program_with_the_noise_of_the_agent(exported: SimpleNamespace):
    own = metarl.evaluate(exported.agent, tasks=20, step_curve=False)
    program = OnnxAgent(exported.folder / "float32", exported.agent.family)
    curve = metarl.evaluate(program, tasks=20, step_curve=False)
    assert np.array_equal(curve.returns, own.returns)
    assert curve.agent == "RL2 (ONNX, float32)" and curve.training == own.training


@pytest.mark.slow
def test_rows_of_8_bits_do_not_depend_on_each_other(smaller: SimpleNamespace):
    program = OnnxAgent(smaller.folder / "int8", smaller.agent.family)
    task = program.family.sample_tasks(rng.key(0), 3)
    together = run_trial(program, program.family, task, rng.key(1))[0]
    alone = run_trial(program, program.family, take(task, slice(0, 1)), rng.key(1))[0]
    assert torch.equal(together.acted.action[:, :1], alone.acted.action)


def test_a_check_finds_a_program_of_other_weights(exported: SimpleNamespace):
    other = RL2Config(**{**vars(exported.agent.config)}).build(exported.agent.family, 7, torch.device("cpu"))
    assert not check(other, exported.folder / "float32").passed


def test_the_example_of_the_page_runs(exported: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "gridnavi").symlink_to(exported.folder / "float32")
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(block, "docs/export.md", "exec"), found)
    returns = np.reshape(found["rewards"], (found["manifest"]["episodes"], -1)).sum(1)
    assert returns[1:].mean() > returns[0], "it has found the goal in the first episode"


def test_pruning_sets_the_smallest_weights_of_each_matrix_to_zero():
    module = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2))
    before = [layer.weight.detach().clone() for layer in module]
    prune(module, 0.5)
    for layer, weight in zip(module, before, strict=True):
        kept = layer.weight != 0.0
        assert int(kept.sum()) == weight.numel() // 2
        assert torch.equal(layer.weight[kept], weight[kept])
        assert weight[kept].abs().min() >= weight[~kept].abs().max()
        assert bool((layer.bias != 0.0).all())


def test_adapted_parameters_are_exported():
    agent = made(*CASES["maml"])
    before = agent.begin(1)
    adapted = before._replace(params=tuple(x + 0.5 for x in before.params))
    for memory in (before, adapted):
        module = agent.acting_module(memory)
        assert all(torch.equal(p, x[0]) for p, x in zip(module.policy.parameters(), memory.params, strict=True))


@pytest.mark.parametrize(
    "config, options, sentence",
    [
        (RL2Config(memory="transformer", hidden_size=8), {}, "RL2 with memory transformer cannot be exported: its "),
        (RL2Config(hidden_size=8), {"format": "onxx"}, "Unknown format: 'onxx'."),
        (RL2Config(hidden_size=8), {"weights": "int4"}, "Unknown weights: 'int4'."),
        (
            RL2Config(hidden_size=8),
            {"format": "torch", "weights": "int8"},
            "weights must be float32 with the format torch, got ",
        ),
        (RL2Config(hidden_size=8), {"pruned": 1.0}, "The pruned share must lie in [0, 1), got 1.0."),
    ],
)
def test_a_mistake_is_one_sentence(config: RL2Config, options: dict, sentence: str, tmp_path: Path):
    options = {"format": "torch"} | options
    agent = config.build(Corridor(), 0, torch.device("cpu"))
    with pytest.raises(ValueError, match=re.escape(sentence)):
        export(agent, tmp_path, **options)
    assert not list(tmp_path.iterdir())


def test_an_agent_that_cannot_be_exported_says_so():
    with pytest.raises(ValueError, match="cannot be exported"):
        agent = metarl.load("pretrained:ppo_gridnavi")
        agent.acting_module(agent.begin(1))


def test_a_folder_without_an_export_says_so(tmp_path: Path):
    with pytest.raises(ValueError, match=r"is not an export: it has no manifest\.json"):
        OnnxAgent(tmp_path, Corridor())
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a manifest of version 1"):
        OnnxAgent(tmp_path, Corridor())
