"""`metarl export`: a folder, a check, and mistakes as one sentence."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

import metarl
from metarl.cli import evaluate
from metarl.cli.export import main
from metarl.interop.export.checking import Check

AGENT = "pretrained:rl2_bernoulli_bandit_n10"


@pytest.fixture(autouse=True)
def no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep torch's structured traces out of pytest's log, which would take most of the time."""
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "propagate", False)
    monkeypatch.setattr(logging.getLogger("torch.__trace"), "disabled", True)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_program_of_torch_with_a_check(capsys: pytest.CaptureFixture[str]):
    assert main([AGENT, "--format", "torch", "--check", "--prune", "0.25"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "Over 40 steps the policies differ by" in shown and "Inputs: obs, prev_action, prev_reward" in shown
    (out,) = Path("runs/export_rl2_bernoulli_bandit_n10").iterdir()
    assert out.name == "last_200_torch_float32_pruned_0.25"
    assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "manifest.json", "policy.pt2"]
    assert main([str(out)]) == 2
    assert "is already an export: give the run" in capsys.readouterr().err


@pytest.mark.slow
def test_adapted_parameters_of_a_task(capsys: pytest.CaptureFixture[str]):
    words = ["pretrained:maml_navigation2d", "--format", "torch", "--check", "--out"]
    assert main([*words, "three", "--task", "3", "--steps", "2"]) == main([*words, "zero", "--quiet"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "after 2 gradient steps on task 3 of test, " in shown
    notes = [json.loads(Path(name, "manifest.json").read_text())["note"] for name in ("three", "zero")]
    assert "task 3 of test, Goal(" in notes[0] and "on task 0 of test, Goal(" in notes[1]


@pytest.mark.slow
def test_an_export_is_evaluated_as_a_run_is(capsys: pytest.CaptureFixture[str]):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason="pip install 'metarl[export]'")
    assert main([AGENT, "--int8", "--check", "--out", "small"]) == 0
    assert evaluate.main(["small", "--tasks", "5", "--split", "test", "--repeats", "1", "--device", "cpu"]) == 0
    assert "(ONNX, int8)" in capsys.readouterr().out or list(Path("small/evaluations").iterdir())
    assert metarl.load("small").title == "RL2 (ONNX, int8)"
    with pytest.raises(ValueError, match="has a single checkpoint: leave out which='best'"):
        metarl.load("small", which="best")


def test_a_check_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr("metarl.cli.export.export", lambda agent, folder, *_: Path(folder, "policy.pt2"))
    monkeypatch.setattr("metarl.cli.export.check", lambda *_: Check(0.5, 0.0, 1.0, 40, 1e-4, 0.0))
    assert main([AGENT, "--format", "torch", "--check"]) == 2
    err = capsys.readouterr().err
    assert err == "metarl export: The program differs from the agent by 0.5, beyond the tolerance of 0.0001.\n"


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([AGENT, "--format", "torch", "--int8"], "weights must be float32 with the format torch, got int8"),
        ([AGENT, "--prune", "1.5"], "The pruned share must lie in [0, 1), got 1.5."),
        ([AGENT, "--task", "1"], "RL2 adapts while it acts and is exported without a task: leave out --task."),
        (["pretrained:maml_navigation2d", "--split", "tset"], "Unknown split of Navigation2D: 'tset'."),
        (["pretrained:maml_navigation2d", "--steps", "-1"], "--steps and --task must not be negative, got -1 and 0."),
        (["pretrained:ppo_gridnavi"], "PPO cannot be exported: RL2, MAML, VariBAD and RecurrentSAC can."),
        (["nowhere"], "There is no run directory 'nowhere'"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith(f"metarl export: {sentence}") and err.count("\n") == 1, err
