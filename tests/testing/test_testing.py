"""The public contracts: every registered family keeps its own, and broken ones are caught with the reason."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import gymnasium
import numpy as np
import pytest
import torch
from registered_families import IDS
from small_families import Corridor, Door, Length, Reach, Target, TwoDoors, Walker

import metarl
from metarl.agents.rl2 import RL2, RL2Config
from metarl.core import rng
from metarl.core.errors import WrongResult
from metarl.core.family import TaskFamily
from metarl.core.rollout import run_trial
from metarl.testing import check_agent, check_family
from metarl.testing.families import check_picture

SMALL = RL2Config(meta_batch_size=6, hidden_size=8, num_minibatches=2, update_epochs=2)


@pytest.mark.parametrize("id", IDS)
def test_every_registered_family(id: str):
    check_family(metarl.make(id))


@pytest.mark.parametrize("family", [Corridor(), Corridor(horizon=1), Reach(), TwoDoors()])
def test_the_small_families(family: TaskFamily):
    check_family(family)


def broken(base: type[TaskFamily], **members) -> TaskFamily:
    """A family of a class with some members replaced."""
    name = f"Broken{base.__name__}{len(globals())}"
    globals()[name] = type(name, (base,), {"__module__": __name__, **members})  # pickle looks for it there
    return globals()[name]()


def replaced(name: str, change: Callable, base: type[TaskFamily] = Corridor) -> TaskFamily:
    """A family one of whose methods returns something else: `change(what it returned, *arguments)`."""
    original = getattr(base, name)
    return broken(base, **{name: lambda self, *args: change(original(self, *args), *args)})


def in_place(self, task, state, action, key):
    state.place.add_(action)
    return state, state.place.to(torch.float32), state.place >= task.length


def unseeded_reset(self, task, key):
    return Walker(torch.zeros_like(task.length), torch.rand(len(key)))


def across_rows(result, task, state, action, key):
    return result[0], result[1] + 0.001 * action.to(torch.float32).mean(), result[2]


def leaks(obs, task, state):
    return torch.stack([obs[:, 0], task.length / 10], dim=-1)


def train_tasks(result, keys, split):
    return Corridor().draw_tasks(keys, "train")


def only_ood_is_train(result, keys, split):
    return Length(result.length + 100) if split == "test" else Corridor().draw_tasks(keys, "train")


def same_task(self, keys, split):
    return Target(torch.full((len(keys), 2), 0.75))


def twice(self, split):
    return Door(torch.tensor([0, 1, 1]))


def not_a_number(result, keys, split):
    return Target(result.position * torch.nan) if split == "test" else result


class Unpicklable(Reach):
    def __init__(self) -> None:
        super().__init__()
        self.helper = lambda: 0


def picture(width: int) -> np.ndarray:
    return np.zeros((4, width, 3), np.uint8)


BROKEN = {
    "a leak of the task": (replaced("observe", leaks), "first observation depends on the task"),
    "a state modified in place": (broken(Corridor, step=in_place), "in place"),
    "unseeded randomness": (broken(Corridor, reset=unseeded_reset), "same keys"),
    "unseeded tasks": (
        broken(Reach, draw_tasks=lambda self, keys, split: type(Reach().sample_tasks(rng.key(0), 1))(
            torch.rand(len(keys), 2))), "different tasks for the same key"),
    "noise that is denied": (broken(Corridor, noisy=False), "step depends on its key"),
    "random starts that are denied": (broken(Corridor, random_start=False), "reset depends on its key"),
    "rows that see each other": (replaced("step", across_rows), "a batch of only that row"),
    "float64 observations": (replaced("observe", lambda obs, *_: obs.double()), "float32"),
    "observations of another shape": (replaced("observe", lambda obs, *_: obs[:, :1]), "shape"),
    "observations outside the space": (replaced("observe", lambda obs, *_: obs + 0.7), "not in Box"),
    "NaN rewards": (replaced("step", lambda r, *_: (r[0], r[1] * torch.nan, r[2])), "finite"),
    "integer rewards": (replaced("step", lambda r, *_: (r[0], r[1].long(), r[2])), "rewards of .* must be float32"),
    "terminations as numbers": (replaced("step", lambda r, *_: (r[0], r[1], r[2].float())), "bool"),
    "a hidden termination": (broken(Corridor, terminates=False), "terminates is False"),
    "test tasks that are train tasks": (replaced("draw_tasks", train_tasks), "'test' tasks are also 'train'"),
    "ood tasks that are train tasks": (replaced("draw_tasks", only_ood_is_train), "'ood' tasks are also 'train'"),
    "ood tasks like train tasks": (broken(Reach, splits=("train", "test", "ood")), "distributed like"),
    "an unknown split accepted": (
        broken(Corridor, sample_tasks=lambda self, key, n, split="train", first=0: Corridor.sample_tasks(
            self, key, n, split if split in self.splits else "train", first)), "split that does not exist"),
    "shards that start anew": (
        broken(Corridor, sample_tasks=lambda self, key, n, split="train", first=0: Corridor.sample_tasks(
            self, key, n, split)), "must return the tasks from number 3 on"),
    "splits that are one name": (broken(Reach, splits="train"), "must be a tuple of names"),
    "no train split": (broken(Reach, splits=("learn", "test")), "must contain 'train'"),
    "a split that is no file name": (broken(Reach, splits=("train", "a/b")), "letters, digits"),
    "a split named twice": (broken(Reach, splits=("train", "test", "test")), "twice"),
    "tasks that are all the same one": (broken(Reach, draw_tasks=same_task), "draws of a 'train' task are all equal"),
    "a task that is enumerated twice": (broken(TwoDoors, enumerate_tasks=twice), "1 of the 3 'train' tasks"),
    "tasks that are not finite": (replaced("draw_tasks", not_a_number, Reach), "'test' tasks are not finite"),
    "tasks that are a bare tensor": (replaced("draw_tasks", lambda task, *_: task.length), "NamedTuple"),
    "an oracle below random": (replaced("oracle", lambda value, task: value - 50.0, Reach), "oracle is wrong"),
    "an oracle of another shape": (replaced("oracle", lambda value, task: value[:, None], Reach), "oracle must be"),
    "a wrong random return": (broken(TwoDoors, random_return=lambda self, task: torch.full((len(task.side),), 0.6)),
                              "random_return is wrong"),
    "a family that cannot be pickled": (Unpicklable(), "pickled"),
    "a picture of floats": (broken(Corridor, render=lambda self, task, states: np.zeros((4, 4, 3))), "uint8"),
    "pictures that grow": (broken(Corridor, render=lambda self, task, states: picture(len(states))), "one size"),
    "pictures as long as the task": (broken(Corridor, render=lambda self, task, states: picture(int(task.length))),
                                     "found 4 × 2 and 4 × 4 and 4 × 5"),
}  # fmt: skip


def hardly_ever(result, task, state, action, key):
    """Pays 1 with probability 1 / 10 000 for each of the three steps: not once in 256 episodes."""
    return result[0], (rng.uniform(key, 1)[:, 0] < 1e-4).to(torch.float32), result[2]


def test_rewards_too_rare_to_be_seen():
    """A true random return is believed although no episode showed it, a larger one is not."""
    random_return = {p: (lambda self, task, p=p: torch.full((len(task.position),), p)) for p in (3e-4, 0.02)}
    best = {"oracle": lambda self, task: torch.full((len(task.position),), 3.0)}
    step = replaced("step", hardly_ever, Reach)
    check_family(broken(type(step), **best, random_return=random_return[3e-4]))
    with pytest.raises(AssertionError, match="random_return is wrong"):
        check_family(broken(type(step), **best, random_return=random_return[0.02]))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_family_is_caught(name: str):
    family, reason = BROKEN[name]
    with pytest.raises(AssertionError, match=reason):
        check_family(family)


def test_a_display_that_is_missing_is_not_called_a_broken_rule():
    def render(self, task, states):
        raise RuntimeError("no display")

    with pytest.raises(RuntimeError, match="no display"):
        check_picture(broken(Corridor, render=render))


def test_a_family_may_say_that_it_shows_its_task():
    check_family(broken(type(replaced("observe", leaks)), shows_task=True))


def test_agents_keep_their_contract():
    check_agent(SMALL, Corridor())


class BrokenAgent(RL2):
    def __init__(self, how: str, config, family, seed, device) -> None:
        super().__init__(config, family, seed, device)
        self.how = how

    def begin(self, num_tasks, task=None):
        memory = super().begin(num_tasks, task)
        if self.how == "peeks" and task is not None:
            memory = memory._replace(state=memory.state + task.length[:, None])
        if self.how == "peeks later":
            length = torch.zeros(num_tasks) if task is None else task.length.float()
            memory = memory._replace(last_obs=length[:, None])
        return memory

    def act(self, memory, step, key, greedy=False):
        if self.how == "ungreedy":
            greedy = False
        if self.how == "forgets the key":
            key = key + int(torch.randint(1000, ()))
        peeked = memory.last_obs
        if self.how == "peeks later":
            memory = memory._replace(last_obs=peeked[:, :0])
        acted, after = super().act(memory, step, key, greedy)
        if self.how == "peeks later":
            acted = acted._replace(value=acted.value + (1.0 - step.prev_done) * peeked[:, 0])
            after = after._replace(last_obs=peeked)
        if self.how == "in place":
            memory.state.add_(1.0)
        if self.how == "across rows":
            acted = acted._replace(value=acted.value + len(acted.value))
        if self.how == "shapes":
            acted = acted._replace(log_prob=acted.log_prob[:, None])
        if self.how == "dtype":
            acted = acted._replace(action=acted.action.float())
        if self.how == "ratio":
            acted = acted._replace(log_prob=acted.log_prob - 0.05)
        return acted, after

    def update(self, trial, progress=0.0):
        if self.how == "learns nothing":
            return {}
        metrics = super().update(trial, progress)
        return metrics | {"loss/nan": float("nan")} if self.how == "metrics" else metrics

    def state_dict(self):
        state = super().state_dict()
        if self.how == "no optimiser state":
            state = {k: v for k, v in state.items() if not k.startswith("optimizer.")}
        return state

    def load_state_dict(self, state):
        before = self.updates
        if self.how == "needs the optimiser" and not state["optimizer.memory.cell.weight_ih_l0.step"].numel():
            return
        super().load_state_dict(state)
        if self.how == "loses a counter":
            self.updates = before


@dataclasses.dataclass
class BrokenConfig(RL2Config):
    how: str = ""

    def build(self, family, seed, device):
        return BrokenAgent(self.how, self, family, seed, device)


@pytest.mark.parametrize(("how", "reason"), [
    ("ungreedy", "greedy"), ("forgets the key", "same key"), ("in place", "memory"), ("across rows", "only that row"),
    ("shapes", "shape"), ("dtype", "int64"), ("ratio", "log-probabilities"),
    ("learns nothing", "changed nothing"), ("peeks", "acts on the task"), ("peeks later", "acts on the task"),
    ("metrics", "finite"), ("no optimiser state", "go on"), ("loses a counter", "load_state_dict"),
    ("needs the optimiser", "only act"),
])  # fmt: skip
def test_a_broken_agent_is_caught(how: str, reason: str):
    config = BrokenConfig(how=how, **dataclasses.asdict(SMALL))
    with pytest.raises(AssertionError, match=reason):
        check_agent(config, Corridor())


def returns(change):
    """`act` with something else in place of what it returned, an Acted and a memory."""

    def act(self, memory, step, key, greedy=False):
        return change(*RL2.act(self, memory, step, key, greedy))

    return act


WRONG_ACTS = {
    "three values": (lambda acted, memory: tuple(acted), "act must return an Acted and the memory, got (Tensor, "),
    "no memory": (lambda acted, memory: acted, "act must return an Acted and the memory, got (Tensor, Tensor"),
    "a tuple": (lambda acted, memory: (tuple(acted), memory), "act must return an Acted and the memory, got (tuple"),
    "None": (lambda acted, memory: None, "act must return an Acted and the memory, got NoneType"),
    "NumPy": (lambda acted, memory: (acted._replace(action=acted.action.numpy()), memory),
              "act must give action as a tensor, got ndarray"),
    "no value": (lambda acted, memory: (acted._replace(value=None), memory),
                 "act must give value as a tensor, got NoneType"),
    "float": (lambda acted, memory: (acted._replace(action=acted.action.float()), memory),
              "act must give action as int64 of shape ("),
    "a dimension more": (lambda acted, memory: (acted._replace(log_prob=acted.log_prob[:, None]), memory),
                         "act must give log_prob as float32 of shape ("),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_ACTS)
def test_what_act_returns_in_another_form_is_said_in_one_sentence(what: str, monkeypatch: pytest.MonkeyPatch):
    change, sentence = WRONG_ACTS[what]
    family, config = Corridor(), BrokenConfig(**dataclasses.asdict(SMALL))
    monkeypatch.setattr(BrokenAgent, "act", returns(change))
    agent = config.build(family, 0, torch.device("cpu"))
    task = family.sample_tasks(rng.key(0), 3)
    for call in (lambda: check_agent(config, family), lambda: run_trial(agent, family, task, rng.key(0))):
        with pytest.raises((AssertionError, WrongResult)) as caught:
            call()
        assert str(caught.value).startswith(f"BrokenAgent.{sentence}") and "\n" not in str(caught.value)


@pytest.mark.parametrize(("method", "broken", "sentence"), [
    ("begin", lambda self, num_tasks: None, r"begin must take \(num_tasks, task\)"),
    ("act", lambda self, memory, step, key: None, r"act must take \(memory, step, key, greedy\)"),
    ("adapt", lambda self, memory: memory, r"adapt must take \(memory, rollout\)"),
    ("update", lambda self, trial: {}, r"update must take \(trial, progress\)"),
    ("update", lambda self, trial, progress: None, "update must return finite floats by name, got None"),
    ("state_dict", lambda self: {"net": {}}, "state_dict must be a flat dictionary of tensors"),
])  # fmt: skip
def test_a_method_of_another_form_is_said_in_one_sentence(method: str, broken, sentence: str, monkeypatch):
    monkeypatch.setattr(BrokenAgent, method, broken)
    with pytest.raises(AssertionError, match=f"^BrokenAgent.{sentence}"):
        check_agent(BrokenConfig(**dataclasses.asdict(SMALL)), Corridor())


def test_an_agent_has_a_protocol(monkeypatch: pytest.MonkeyPatch):
    class Lawless(BrokenAgent):
        def __init__(self, *arguments) -> None:
            super().__init__(*arguments)
            self.protocol = None

    monkeypatch.setattr(BrokenConfig, "build", lambda self, *arguments: Lawless(self.how, self, *arguments))
    with pytest.raises(AssertionError, match=r"^Lawless.protocol must be a TrialProtocol, got None\.$"):
        check_agent(BrokenConfig(**dataclasses.asdict(SMALL)), Corridor())


def test_the_broken_agent_is_whole_but_for_its_break():
    check_agent(BrokenConfig(**dataclasses.asdict(SMALL)), Corridor())


@pytest.mark.parametrize("spread", [0.7, 1.5])
@pytest.mark.parametrize("unit", [1.0, 50.0])
def test_a_density_of_another_spread_is_caught_in_any_units(spread: float, unit: float):
    """Draws are those of a normal distribution, log-probabilities those of a wider or narrower one."""

    class Wrong(RL2):
        def act(self, memory, step, key, greedy=False):
            acted, memory = super().act(memory, step, key, greedy)
            z = acted.action / (unit * 0.6)
            density = (-0.5 * (z / spread) ** 2 - math.log(spread)).sum(-1)
            return acted._replace(log_prob=density), memory

    class WrongConfig(RL2Config):
        def build(self, family, seed, device):
            return Wrong(self, family, seed, device)

    family = Reach()
    family.action_space = gymnasium.spaces.Box(-unit, unit, (2,), np.float32)
    check_agent(SMALL, family)
    with pytest.raises(AssertionError, match="log-probabilities"):
        check_agent(WrongConfig(**dataclasses.asdict(SMALL)), family)
