"""What is reported of supervised few-shot learning: right shares, measures by hand, and where they are written."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_log import documented
from torch import Tensor

import metarl
from metarl.agents import MAMLConfig, RL2Config
from metarl.agents.family_extras import measures_for, pictures_for, register_measures
from metarl.agents.maml import SupervisedStep
from metarl.agents.random import FixedAgent, RandomAgent, scripted
from metarl.agents.reference.catalogue import baseline
from metarl.agents.reference.supervised.digits import NearestNeighbour
from metarl.cli import evaluate
from metarl.core import rng
from metarl.core.batch_env import Step
from metarl.core.family import Key, Task
from metarl.core.rollout import Acted, Memory, run_trial
from metarl.envs.supervised.digits import FewShotDigits
from metarl.envs.supervised.sinusoid import Sinusoid
from metarl.evaluation.playback import watch
from metarl.report.few_shot.figures import curves_of, figure_of, instances, points
from metarl.report.few_shot.grading import Answers, answers
from metarl.report.few_shot.measures import classification, of_labels, of_values
from metarl.train import main
from metarl.training.checkpoint import export_pretrained

CPU = torch.device("cpu")


class Doubtful(FixedAgent):
    """Gives label 0 with probability 0.7 and label 1 otherwise."""

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        first = (rng.uniform(key, 1)[:, 0] < 0.7) | greedy
        log_prob = torch.where(first, math.log(0.7), math.log(0.3))
        return Acted((~first).long(), log_prob, torch.zeros_like(log_prob)), memory


class Repeats(FixedAgent):
    """Gives the label that was shown last; 0 at first."""

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(step.obs[:, 64:].argmax(1), step), memory


def test_the_answers_are_those_of_the_evaluation():
    family = FewShotDigits(num_classes=2)
    agent = RL2Config(meta_batch_size=4, hidden_size=8).build(family, 1, CPU)
    curve, watched = watch(agent, family, "test", 30)
    (found,) = answers(agent, family, "test", 30)
    assert np.array_equal(found.right.sum(axis=(1, 2)), curve.returns[0, :, 0])
    assert np.array_equal(found.answer[:, 0], watched.all_actions()[0][:, 0].numpy())
    some = answers(agent, family, "test", 10)[0]
    assert np.array_equal(some.answer, found.answer[:10]), "the first ten of the same tasks"


def test_instances_are_counted_by_class():
    target = np.array([[[0, 0, 1, 0, 1, 1]], [[1, 0, 0, 1, 1, 0]]])
    answer = np.array([[[1, 0, 1, 0, 0, 1]], [[1, 1, 0, 1, 1, 0]]])
    shares = Answers(target, answer, None).by_instance()
    np.testing.assert_array_equal(shares, [[0.5, 0.5, 1.0], [0.5, 1.0, 1.0]])


@pytest.mark.parametrize("greedy", [False, True])
def test_probabilities_are_those_of_the_policy(greedy: bool):
    family = FewShotDigits(num_classes=3)
    (found,) = answers(Doubtful(), family, tasks=20, greedy=greedy, probabilities=True)
    assert found.probabilities is not None
    np.testing.assert_allclose(
        found.probabilities, np.broadcast_to([0.7, 0.3, 0.0], found.probabilities.shape), atol=1e-6
    )
    assert (found.answer == 0).all() == greedy


def test_random_answers_have_the_entropy_of_chance():
    for n in (2, 5):
        family = FewShotDigits(num_classes=n)
        found = of_labels(RandomAgent(family), family, "test", tasks=200)
        assert found["cross_entropy"] == pytest.approx(math.log(n), abs=1e-5)
        assert found["accuracy"] == pytest.approx(1 / n, abs=0.02)


def test_measures_by_hand():
    """3 of label 0, of which 2 are named so; 1 of label 1, which is named right, and once wrongly."""
    target, answer = np.array([[[0, 0, 0, 1]]]), np.array([[[0, 0, 1, 1]]])
    probabilities = np.array([[[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75], [0.5, 0.5]]]])
    found = classification(Answers(target, answer, probabilities))
    assert found == pytest.approx({
        "accuracy": 0.75, "precision": (1 + 1 / 2) / 2, "recall": (2 / 3 + 1) / 2, "f1": (0.8 + 2 / 3) / 2,
        "cross_entropy": (2 * math.log(2) + math.log(4)) / 4,
    })  # fmt: skip


def test_who_looks_a_label_up_knows_it_from_the_second_instance_on():
    family, nearest = FewShotDigits(), NearestNeighbour()
    curve, _ = watch(nearest, family, "test", 100)
    shares = curves_of("NN", nearest, family, curve)["NN"].mean(0)
    assert shares.shape == (10,) and shares[0] < 0.1 and (shares[1:] > 0.7).all() and shares[-1] > 0.95
    repeats = curves_of("R", Repeats(), family, curve)["R"].mean(0)
    assert (repeats < 0.35).all(), "the last label says little of the next one"


def test_an_agent_in_rounds_has_a_curve_for_each():
    config = MAMLConfig(
        meta_batch_size=2, hidden_sizes=(8,), fast_batch_size=2, test_steps=2, inner_loss="supervised",
        outer=SupervisedStep(),
    )  # fmt: skip
    for family, width in ((FewShotDigits(num_classes=2), 20), (Sinusoid(horizon=4, show_previous=False), 4)):
        agent = config.build(family, 0, CPU)
        curve, watched = watch(agent, family, "test", 6)
        found = curves_of("MAML", agent, family, curve)
        assert list(found) == [f"MAML, {n} gradient step{'s' * (n != 1)}" for n in (0, 1, 2)]
        # Ten instances of each of the two rows' episodes, side by side.
        assert {each.shape for each in found.values()} == {(6, width if family.horizon == 4 else 10)}
        assert pictures_for(family)["instances" if family.horizon == 20 else "points"](family, curve, watched)


def test_errors_fall_to_nothing_for_the_fit():
    family = Sinusoid()
    curve, watched = watch(baseline("least_squares", family), family, "test", 50)
    found = of_values(watched.agent, family, "test", 50)
    assert found["mse_last_point"] < 1e-6 < found["mse"]
    figure = points(family, curve, watched)
    heights = [line.get_ydata() for line in figure.axes[0].lines]
    assert len(heights) == 2 and np.array_equal(heights[0], heights[1]), "it is drawn next to itself"
    assert float(heights[0].sum()) == pytest.approx(-float(curve.returns.mean()), rel=0.2)


def test_the_figure_shows_every_player():
    family = FewShotDigits(num_classes=2)
    curve, watched = watch(Repeats(), family, "test", 8)
    lines = instances(family, curve, watched).axes[0].lines
    assert [line.get_label() for line in lines] == [curve.agent, "nearest neighbour", "random"]
    assert len(figure_of(curve, {"a": np.ones((3, 4))}, labels=True).axes[0].lines) == 1


def test_a_family_without_right_actions_has_no_answers():
    class NoTargets(Sinusoid):
        def target(self, task: Task, state: Task) -> Tensor | None:  # type: ignore[override]
            return None

    with pytest.raises(ValueError, match=r"^A supervised loss needs target actions, and NoTargets has none"):
        answers(RandomAgent(Sinusoid()), NoTargets())


def test_measures_are_registered_once():
    assert measures_for(FewShotDigits()) is of_labels and measures_for(Sinusoid()) is of_values
    register_measures("metarl/Sinusoid-v0", of_values)
    with pytest.raises(ValueError, match="There is already a set of 'measures' for Sinusoid"):
        register_measures(Sinusoid, of_labels)


TRAIN = [
    "--family=metarl/FewShotDigits-v0", "--family.num_classes=2", "--agent=RL2", "--agent.meta_batch_size=8",
    "--agent.hidden_size=8", "--total_iterations=1", "--eval_every=0", "--final_eval_tasks=6",
]  # fmt: skip


def test_training_and_evaluating_write_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    assert main([*TRAIN, f"--run_dir={run}"]) == 0
    names = {"accuracy", "precision", "recall", "f1", "cross_entropy"}
    for split in ("train", "valid", "test", "ood"):
        assert json.loads((run / "evaluation" / f"{split}_measures.json").read_text("utf-8")).keys() == names
        assert all(documented(f"eval/{split}/{name}") for name in names)
    assert (run / "evaluation" / "test_instances.png").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()
    out = tmp_path / "out"
    assert evaluate.main([str(run), "--split=test", "--tasks=6", f"--out={out}"]) == 0
    said = capsys.readouterr().out
    assert "test: accuracy 0." in said and "cross entropy 0." in said
    written = json.loads((out / "test_measures.json").read_text("utf-8"))
    assert written == json.loads((run / "evaluation" / "test_measures.json").read_text("utf-8")), "the same tasks"


def test_right_actions_are_of_the_states_in_which_the_agent_acts():
    family = Sinusoid(episodes_per_trial=2)
    agent = FixedWithTargets()
    task = family.sample_tasks(rng.key(0), 5)
    (rollout,) = run_trial(agent, family, task, rng.key(1))
    y = task.amplitude * torch.sin(rollout.step.obs[..., 0] - task.phase)
    torch.testing.assert_close(rollout.target[..., 0], y)


class FixedWithTargets(Doubtful):
    """Predicts 0, and asks for the right actions."""

    protocol = FixedAgent.protocol._replace(targets=True)

    def act(self, memory: Memory, step: Step, key: Key, greedy: bool = False) -> tuple[Acted, Memory]:
        return scripted(torch.zeros(len(key), 1), step), memory


def test_a_run_with_measures_can_be_shipped(tmp_path: Path):
    """Its evaluation has files that are no curves."""
    run = metarl.run("rl2_sinusoid", total_iterations=1, final_eval_tasks=4, run_dir=tmp_path / "run", quiet=True)
    assert (run.directory / "evaluation" / "test_measures.json").exists()
    shipped = export_pretrained(run.directory, "mine", into=tmp_path)
    assert set(json.loads((shipped / "curve.json").read_text("utf-8"))) == {"train", "valid", "test", "ood"}
