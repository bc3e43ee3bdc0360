"""Families on a GPU, which is pretended (`pretended`): their tasks, their steps, what they know, and their players."""

from __future__ import annotations

from typing import Any

import gymnasium
import pytest
import torch
from pretended import CPU, GPU, PretendedGPU, Refused, same
from registered_families import IDS
from torch import Tensor

import metarl
from metarl.agents.reference.catalogue import baseline, baselines_for
from metarl.core import rng
from metarl.core.batch_env import BatchEnv, Outcome, Step, make_env
from metarl.core.beliefs.belief import Belief
from metarl.core.family import Key, Task, TaskFamily
from metarl.core.rollout import run_trial
from metarl.core.tree import to_device
from metarl.envs.bandits.bernoulli import BernoulliBandit
from metarl.envs.grids.grid_navi import GridNavi

SIMULATED = {f"metarl/{name}-v0" for names in metarl.envs.SIMULATED.values() for name in names}  # on the CPU, always
OPAQUE = {"metarl/Gym-v0"}  # simulators are on no device
FAMILIES = sorted(id for id in IDS if id not in SIMULATED and id not in OPAQUE)
SLOW = {"ppo_scratch", "gittins"}  # by another library, on the CPU; tables that take seconds to make
PLAYERS = [
    (id, name)
    for id in FAMILIES
    for name in baselines_for(metarl.make(id))
    if name not in SLOW | {"bayes_optimal" if "Bernoulli" in id else ""} and (name != "random" or "Alchemy" in id)
]
ROWS = 3


class Played:
    """A few steps in every row, with the end of an episode among them where all end together."""

    def __init__(self, family: TaskFamily, task: Task, key: Key) -> None:
        self.env: BatchEnv = make_env(family, task, key)
        self.steps: list[Step] = [self.env.reset()]
        self.outcomes: list[Outcome] = []
        space = family.action_space
        for number in range(1, 4):
            if not family.terminates and number == 2:
                self.env._step = family.horizon - 1
            action = torch.zeros((ROWS, *space.shape), device=key.device)
            action = action if isinstance(space, gymnasium.spaces.Box) else action.to(torch.int64)
            outcome, step = self.env.step(action)
            self.env.all_done()
            self.steps.append(step)
            self.outcomes.append(outcome)

    def known(self) -> list[Any]:
        """What the family says about the last state, as it does in trials."""
        family, task = self.env.family, self.env.task
        return [
            family.optimal_action(task, self.steps[-1].obs),
            family.target(task, self.env.state),
            family.success(task, self.env.final_state),
        ]

    def believed(self, belief: Belief | None) -> list[Any]:
        """What can be known of the tasks after each step; nothing without a belief."""
        if belief is None:
            return []
        state, found = belief.prior(ROWS, self.steps[0].obs.device), list[Any]()
        for step in self.steps:
            state = belief.posterior(state, step)
            found.append(belief.features(state))
        return [found, belief.log_prob(state, self.env.task), belief.task_mean(state)]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_stays_on_the_device(name: str, gpu: PretendedGPU):
    """Steps and beliefs can be recorded, and everything is what it is on a CPU."""
    family = metarl.make(name)
    wanted = family.sample_tasks(rng.key(0), ROWS)
    task, key = to_device(wanted, GPU), rng.key(1, GPU)
    belief = family.belief(family.splits[0])

    def all_of(task: Task, key: Key) -> tuple[Any, ...]:
        played = Played(family, task, key)
        env = played.env
        return played.steps, played.outcomes, env.state, env.alive, played.known(), played.believed(belief)

    all_of(task, key)  # constants are made once
    with gpu.recording():
        found = all_of(task, key)
    same(found, all_of(wanted, rng.key(1)))


@pytest.mark.parametrize("name", FAMILIES)
def test_the_tasks_of_a_family_are_drawn_on_the_device(name: str, gpu: PretendedGPU):
    """And so are their bounds, and what curricula make of them."""
    family = metarl.make(name)
    for split in family.splits:
        task = family.sample_tasks(rng.key(0), ROWS, split)
        same(family.sample_tasks(rng.key(0, GPU), ROWS, split), task)
    there, keys = to_device(task, GPU), rng.fold(rng.key(1), torch.arange(ROWS))
    same([family.oracle(there), family.random_return(there)], [family.oracle(task), family.random_return(task)])
    same(family.mutate(there, keys.to(GPU)), family.mutate(task, keys))
    if family.task_space:
        same(family.reconcile(there), family.reconcile(task))
    family.check_task(there)


@pytest.mark.parametrize(
    ("name", "family"), [("a list", BernoulliBandit()), ("some of all", GridNavi()), ("a fold", GridNavi())]
)
def test_lists_of_tasks_are_drawn_from_on_the_device(name: str, family: TaskFamily, gpu: PretendedGPU):
    if name == "a fold":
        family.hold_out(2, 3)
    else:
        family.train_on(5)
    family.resample("train", 1)
    for split in family.splits:
        same(family.sample_tasks(rng.key(0, GPU), ROWS, split), family.sample_tasks(rng.key(0), ROWS, split))


@pytest.mark.parametrize(("id", "name"), PLAYERS)
def test_a_reference_player_stays_on_the_device(id: str, name: str, gpu: PretendedGPU):
    """It is only evaluated, so it may look at values."""
    family = metarl.make(id)
    family.horizon = min(family.horizon, 12)
    task = family.sample_tasks(rng.key(0), 2)
    here, there = baseline(name, family, CPU), baseline(name, family, GPU)
    found = run_trial(there, family, to_device(task, GPU), rng.key(1, GPU), episodes=1)
    same(found, run_trial(here, family, task, rng.key(1), episodes=1))


def test_what_a_gpu_refuses_is_refused(gpu: PretendedGPU):
    """The tests here can fail."""
    one, three = torch.ones(1, device=GPU), torch.arange(3.0, device=GPU)
    assert one.device == GPU and three.sum().item() == 3.0 and torch.ones(3)[0] == 1.0
    same(three + torch.tensor(1.0), torch.arange(3.0) + 1.0)  # a single number may be anywhere
    for mixed in (
        lambda: three + torch.ones(3),
        lambda: torch.ones(3)[three.long()],
        lambda: torch.cat([one, one.cpu()]),
    ):
        with pytest.raises(Refused, match="two devices"):
            mixed()
    looks = (lambda: bool(one > 0), one.item, three.tolist, (three > 0).nonzero, lambda: three[three > 1], one.cpu)
    copies = (lambda: torch.tensor([1.0], device=GPU), lambda: torch.zeros(1).to(GPU), lambda: one.copy_(torch.ones(1)))
    for refused in (*looks, *copies):
        refused()
        with gpu.recording(), pytest.raises(Refused, match="in a recording"):
            refused()
    with pytest.raises(RuntimeError):
        three.numpy()


def test_a_recording_that_goes_wrong_later_is_refused(gpu: PretendedGPU):
    """One that took a number for a constant, and one that reads memory which is replaced."""
    size, number = torch.ones((), device=GPU), 1.0

    def scaled(x: Tensor) -> Tensor:
        return x * size * number

    captured = metarl.fast.capture.Captured(scaled, GPU)
    x = torch.ones(2, device=GPU)
    for _ in range(3):
        same(captured(x), torch.ones(2))
    number = 2.0
    with pytest.raises(Refused, match="a replay would do"):
        captured(x)
    number, size = 1.0, size + 1.0
    with pytest.raises(Refused, match="a replay would do"):
        captured(x)
