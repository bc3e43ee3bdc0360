"""Players that read and write text: prompts tell the trial and not the task, and answers are read strictly."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box
from registered_families import IDS
from space_families import Lock

import metarl
from metarl.agents import family_extras
from metarl.agents.reference.bandits import UCB1Bandit
from metarl.agents.text import Answers, TextAgent
from metarl.agents.text.answers import OneAction, SeveralActions
from metarl.agents.text.prompt import rule_of, within
from metarl.cli.contenders import Line, _spent
from metarl.core import rng
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import take
from metarl.envs.bandits.bernoulli import BernoulliArms, BernoulliBandit
from metarl.envs.grids.dark_room import DarkRoomHard
from metarl.envs.grids.grid_navi import GridNavi
from metarl.envs.points.navigation import Navigation2D
from metarl.envs.rulesets.family import Rulesets
from metarl.evaluation.curve import AdaptationCurve
from metarl.evaluation.evaluator import evaluate

EXAMPLE = Path(__file__).parents[2] / "examples" / "text_players.py"
BANDIT = BernoulliBandit(num_arms=3, episodes_per_trial=6)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The example, whose baselines are forgotten afterwards."""
    monkeypatch.setattr(family_extras, "_BASELINES", copy.deepcopy(family_extras._BASELINES))
    spec = importlib.util.spec_from_file_location("text_players", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Noting:
    """A function that answers with `answer`, or what it returns for the prompt, and keeps the prompts."""

    def __init__(self, answer: str | Callable[[str], str] = "1") -> None:
        self.answer, self.prompts = answer, list[str]()

    def __call__(self, prompt: str) -> str:
        self.prompts.append(prompt)
        return self.answer(prompt) if callable(self.answer) else self.answer


def played(agent: TextAgent, tasks: int = 4, split: str = "train", **options: Any) -> Rollout:
    """The first round of a trial."""
    task = agent.family.sample_tasks(rng.key(0), tasks, split)
    return run_trial(agent, agent.family, task, rng.key(1), **options)[0]


# ---- what is played -------------------------------------------------------------------------------------------------


def test_ucb1_by_text_plays_exactly_as_the_reference(example: ModuleType):
    """Up to 20 pulls different counts have indices at least 2e-6 apart, so that rounding decides nothing."""
    family = BernoulliBandit(num_arms=5, episodes_per_trial=20)
    text = TextAgent(example.ucb1, family)
    rows, reference = (played(agent, 12) for agent in (text, _as_family(UCB1Bandit(5), family)))
    assert torch.equal(rows.acted.action, reference.acted.action)
    assert torch.equal(rows.outcome.reward, reference.outcome.reward)
    assert text.answers == Answers(12 * 20, 0, 0)


def _as_family(agent: Any, family: Any) -> Any:
    agent.family = family
    return agent


def test_its_curve_is_the_ordinary_one(example: ModuleType):
    family = BernoulliBandit(num_arms=2, episodes_per_trial=8)
    curve = metarl.evaluate(metarl.TextAgent(example.ucb1, family), tasks=20)
    assert isinstance(curve, AdaptationCurve) and curve.agent == "ucb1" and curve.family == repr(family)
    expected = evaluate(UCB1Bandit(2), family, tasks=20, repeats=1)
    assert (curve.returns == expected.returns).all() and (curve.oracle == expected.oracle).all()


def test_the_example_registers_its_players_for_every_family(example: ModuleType):
    assert {"text_random", "text_ucb1"} <= {*family_extras.baselines_for(GridNavi())}
    agent = family_extras.baseline("text_random", GridNavi(episodes_per_trial=1))
    assert evaluate(agent, tasks=2).returns.shape == (1, 2, 1)
    assert _spent(Line("text", [agent], agent.family, "not trained")).endswith("0 of them twice, 0 invalid")


def test_threads_change_nothing():
    def by_rewards(prompt: str) -> str:
        return str(len(prompt) % 3) if prompt.count("reward 1;") % 2 else "nothing"

    one, several = (TextAgent(by_rewards, BANDIT, workers=workers) for workers in (1, 4))
    assert torch.equal(played(one, 9).acted.action, played(several, 9).acted.action)
    assert one.answers == several.answers and one.answers.invalid > 0


def test_rows_that_are_over_are_not_asked():
    """Episodes end at different steps, so some rows wait for the others."""
    respond = Noting(lambda prompt: "12340"[len(prompt) % 5])
    agent = TextAgent(respond, DarkRoomHard(episodes_per_trial=2))
    near = take(agent.family.tasks_of("all"), torch.tensor([8 * 17 + 9, 8 * 17 + 7, 0]))  # next to the start, and far
    (rollout,) = run_trial(agent, agent.family, near, rng.key(0))
    steps = int(rollout.mask.sum())
    assert steps < rollout.mask.numel() and len(respond.prompts) == agent.answers.asked == steps


def test_a_second_round_tells_the_first_one():
    respond = Noting()
    agent = TextAgent(respond, BANDIT)
    run_trial(agent, BANDIT, BernoulliArms(torch.ones(1, 3)), rng.key(0), rounds=2)
    assert respond.prompts[-1].count("action 1, reward 1; the episode ended") == 6 + 5
    assert respond.prompts[-1].count("A new round begins") == 1


# ---- what is told ---------------------------------------------------------------------------------------------------


def test_before_the_first_action_two_tasks_read_the_same():
    """In all families, except where the first observation is random, or shows the task on purpose."""
    families = [family for family in map(metarl.make, IDS) if not isinstance(family.action_space, Box)]
    assert len(families) > 15
    for family in families:
        respond = Noting("0")
        agent, task = TextAgent(respond, family), family.sample_tasks(rng.key(0), 4)
        step = metarl.BatchEnv(family, task, rng.key(1)).reset()
        agent.act(agent.begin(4), step, rng.fold(rng.key(1), torch.arange(4)))
        told = {prompt.partition("Now:")[0] for prompt in respond.prompts}
        assert len(told) == 1, "the rule and the history are those of all tasks"
        if not family.shows_task and not family.random_start:
            assert len(set(respond.prompts)) == 1
        assert "Optimum" not in told.pop() and agent.answers == Answers(4, 0, 0)


def test_a_prompt_tells_actions_rewards_and_ends_of_episodes():
    respond = Noting(lambda prompt: "up" if "step 1 of" in prompt else "stay")
    agent = TextAgent(respond, GridNavi(episodes_per_trial=2))
    rollout = played(agent, 1)
    last = respond.prompts[-1]
    lines = [line for line in last.splitlines() if line.startswith("Episode")]
    assert len(lines) == 29 and [line.endswith("; the episode ended") for line in lines].index(True) == 14
    assert (
        lines[0] == f"Episode 1, step 1: observation [0, 0], action up (1), reward {rollout.outcome.reward[0, 0]:.4g}"
    )
    assert lines[15].startswith("Episode 2, step 1: observation [0, 0]")
    assert "Now: episode 2 of 2, step 15 of 15, observation [0, 1]" in last


def test_a_history_keeps_the_latest_lines_within_its_budget():
    lines = [f"line {number}" + "." * (number % 7) for number in range(40)]
    for budget in range(0, 500, 13):
        *note, text = [part for part in within(lines, budget).partition(" left out.)\n") if part] or [""]
        kept = [line for line in text.splitlines() if line in lines]
        dropped = int(note[0][1:].split()[0]) if note else 0
        assert sum(len(line) + 1 for line in kept) <= budget or kept == lines
        assert kept == lines[len(lines) - len(kept) :]
        assert not note or dropped + len(kept) == 40
    assert within(lines, 10_000) == "\n".join(lines)
    assert within(lines[:1], 3) == "(1 earlier line left out.)"
    respond = Noting()
    played(TextAgent(respond, BANDIT, history=150), 1)
    assert "(3 earlier lines left out.)" in respond.prompts[-1]


def test_a_grid_is_drawn_with_up_upwards():
    family = GridNavi()
    rows = family.observation_text(torch.tensor([1.0, 3.0])).splitlines()
    assert rows[1] == ". @ . . ." and sum("@" in row for row in rows) == 1


def test_rulesets_name_what_is_seen_in_both_forms():
    plain, one_hot = Rulesets(one_hot=False), Rulesets()
    task = plain.sample_tasks(rng.key(0), 5)
    state = plain.reset(task, rng.fold(rng.key(0), torch.arange(5)))
    for row in range(5):
        words = [family.observation_text(family.observe(task, state)[row]) for family in (plain, one_hot)]
        assert words[0].splitlines()[:5] == words[1].splitlines()[:5] and "wall" in words[0]
        assert words[0].endswith("hold nothing.") and words[0].splitlines()[4].split(", ")[2] == "you"


def test_own_rule_and_names_stand_in_place_of_the_familys():
    respond = Noting("take the blue one")
    agent = TextAgent(respond, BANDIT, rule="Three buttons.", actions=("red", "blue", "green"))
    assert (played(agent).acted.action == 1).all()
    assert "Three buttons." in respond.prompts[0] and rule_of(BANDIT) not in respond.prompts[0]
    assert respond.prompts[0].endswith("Answer with one action: red (0), blue (1) or green (2).")


# ---- what is answered -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        ("2", 2), ("Arm 2.", 2), ("I would not take 7, so: 1 or 2", 1), ("action=3", 3), ("UP!", 1), ("turn left", 3),
        ("left", None), ("-1", None), ("1.5", None), ("12", None), ("upwards", None), ("arm1", None), ("", None),
        ("(2)", 2), ("start-up", None), ("2\n1", 2),
    ],
)  # fmt: skip
def test_an_answer_is_its_first_action(answer: str, action: int | None):
    assert OneAction(1, 3, ("up", "down", "turn left")).read(answer) == action


@pytest.mark.parametrize(
    ("answer", "action"),
    [("1, 0", (1, 0)), ("[3 1]", (3, 1)), ("0, 1", None), ("1, 0, 1", None), ("9 9; then 2,1", (2, 1)), ("1", None)],
)
def test_several_numbers_are_read_together(answer: str, action: tuple[int, ...] | None):
    assert SeveralActions([range(1, 4), range(0, 2)]).read(answer) == action


def test_a_family_of_several_components_is_played():
    family = Lock()
    agent = TextAgent(Noting("3, 1"), family)
    assert (played(agent, 2).acted.action == torch.tensor([3, 1])).all() and agent.answers.again == 0


def test_after_an_invalid_answer_it_is_asked_once_more_and_told_why():
    respond = Noting(lambda prompt: "2" if "names no action" in prompt else "the best one")
    agent = TextAgent(respond, BANDIT)
    assert (played(agent, 2).acted.action == 2).all()
    assert agent.answers == Answers(12, 12, 0) and len(respond.prompts) == 24
    assert "Your answer was 'the best one', which names no action." in respond.prompts[1]
    assert respond.prompts[1].endswith("Answer with one action: 0, 1 or 2.")


def test_after_two_invalid_answers_the_action_is_drawn():
    """From the row's own key: uniformly, the same in every evaluation, and for a row alone."""
    agent = TextAgent(Noting("no"), BANDIT)
    actions = played(agent, 40).acted.action
    assert agent.answers == Answers(240, 240, 240)
    assert (torch.bincount(actions.flatten(), minlength=3) > 50).all()
    assert torch.equal(actions, played(agent, 40).acted.action)
    one = take(BANDIT.sample_tasks(rng.key(0), 40), slice(39, 40))
    (alone,) = run_trial(agent, BANDIT, one, rng.key(1), first_task=39)
    assert torch.equal(alone.acted.action[:, 0], actions[:, 39])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: TextAgent(Noting(), Navigation2D()),
            "finitely many actions, and those of Navigation2D are Box",
        ),
        (lambda: TextAgent(Noting(), BANDIT, history=-1), "history must be a whole number of at least 0"),
        (lambda: TextAgent(Noting(), BANDIT, workers=0), "workers must be a whole number of at least 1"),
        (lambda: TextAgent(Noting(), BANDIT, actions=("a", "b")), "3 different names"),
        (lambda: TextAgent(Noting(), BANDIT, actions=("a", "A", "b")), "3 different names"),
        (lambda: TextAgent(Noting(), BANDIT, actions=("2", "1", "0")), "3 different names"),
        (lambda: TextAgent(Noting(), Lock(), actions=("a", "b")), "actions must be None"),
        (lambda: played(TextAgent(lambda prompt: 1, BANDIT)), "respond must return a string, got 1"),  # type: ignore[arg-type, return-value]
        (lambda: played(TextAgent(Noting(), BANDIT), episodes=7), "more than the 6 episodes of this TextAgent"),
    ],
)
def test_a_mistake_is_one_sentence(make: Callable[[], Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        make()
