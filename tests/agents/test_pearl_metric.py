"""PEARL by distances: the losses, what trains the encoder, prototypes of training tasks, and the nearest of them."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest
import torch
from small_families import Corridor, Reach, TwoDoors
from torch import Tensor

import metarl
from metarl.agents.pearl import PEARL, PEARLConfig
from metarl.agents.pearl.agent import Batch
from metarl.agents.pearl.by_task import ByTask
from metarl.agents.pearl.metric import EPSILON, Pairs, contrastive_loss, distances, siamese_loss, weights
from metarl.agents.pearl.prototypes import Prototypes
from metarl.core import rng
from metarl.core.family import TaskFamily
from metarl.core.rollout import Rollout, run_trial
from metarl.core.tree import take, tree_map
from metarl.testing import check_agent

KINDS = ("euclidean", "cosine")
LOSSES = ("contrastive", "siamese")


def config(**changes: Any) -> PEARLConfig:
    small = PEARLConfig(
        meta_batch_size=8, encoder_sizes=(16,), hidden_sizes=(16,), latent_size=3, updates_per_iteration=2,
        task_batch=3, batch_size=8, context_size=5, learning_starts=0, buffer_size=60, embedding_loss="contrastive",
    )  # fmt: skip
    return dataclasses.replace(small, **changes)


def trial_of(agent: PEARL, family: TaskFamily, rows: int = 8, seed: int = 0) -> list[Rollout]:
    key = rng.key(seed)
    return run_trial(agent, family, family.sample_tasks(rng.fold(key, 0), rows), rng.fold(key, 1))


def trained(agent: PEARL, family: TaskFamily, iterations: int, rows: int = 8) -> list[dict[str, float]]:
    return [agent.update(trial_of(agent, family, rows, n), n / iterations) for n in range(iterations)]


def remembered(agent: PEARL, trial: list[Rollout]) -> Any:
    """The memory after all rounds of a trial."""
    memory = agent.begin(trial[0].mask.shape[1])
    for rollout in trial:
        memory = agent.adapt(memory, rollout)
    return memory


def embeddings(count: int, seed: int = 1) -> Tensor:
    return rng.normal(rng.fold(rng.key(seed), torch.arange(count)), 3).double()


# ---- The losses -----------------------------------------------------------------------------------------------------

TASKS = torch.tensor([4, 7, 4, 2, 7, 4])


def naive(x: Tensor, tasks: Tensor, kind: str, loss: str, power: float) -> float:
    """The loss by a double loop over the pairs."""
    near, far = [], []
    for i, j in itertools.permutations(range(len(x)), 2):
        a, b = (x[n] / x[n].norm() if kind == "cosine" else x[n] for n in (i, j))
        d = float((a - b).square().sum()) ** 0.5
        if tasks[i] == tasks[j]:
            near.append(d**2 if loss == "contrastive" else 0.5 * d**2)
        else:
            far.append(0.7 / (d**power + EPSILON) if loss == "contrastive" else 0.5 * max(0.0, 1.5 - d) ** 2)
    return sum(near) / len(near) + sum(far) / max(len(far), 1)


def loss_of(x: Tensor, tasks: Tensor, rows: Tensor, kind: str, loss: str, power: float) -> Tensor:
    distance = distances(x[rows], x, kind)
    if loss == "contrastive":
        return contrastive_loss(distance, *weights(tasks, rows), 0.7, power)
    return siamese_loss(distance, *weights(tasks, rows), 1.5)


@pytest.mark.parametrize(("loss", "kind"), [*itertools.product(LOSSES, KINDS)])
def test_a_loss_is_the_mean_over_pairs_of_a_double_loop_and_the_parts_of_several_processes_add_up(loss: str, kind: str):
    x, every = embeddings(6), torch.arange(6)
    for power in (1.0, 2.0, 3.5):
        expected = naive(x, TASKS, kind, loss, power)
        assert float(loss_of(x, TASKS, every, kind, loss, power)) == pytest.approx(expected, rel=1e-6)
        parts = [loss_of(x, TASKS, rows, kind, loss, power) for rows in (every[:4:2], every[1:2], every[3:])]
        assert float(sum(parts)) == pytest.approx(expected, rel=1e-6)
    one = torch.zeros(6, dtype=torch.int64)
    assert float(loss_of(x, one, every, kind, loss, 2.0)) == pytest.approx(naive(x, one, kind, loss, 2.0), rel=1e-6)


@pytest.mark.parametrize(("loss", "kind"), [*itertools.product(LOSSES, KINDS)])
def test_gradients_of_a_loss_are_those_of_finite_differences_and_finite_where_embeddings_coincide(loss: str, kind: str):
    every = torch.arange(6)
    x = embeddings(6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss_of(x, TASKS, every, kind, loss, 2.0), (x,))
    same = torch.ones(6, 3).requires_grad_()
    loss_of(same, TASKS, every, kind, loss, 1.0).backward()
    assert bool(same.grad.isfinite().all())


def test_cosine_distance_is_that_of_directions():
    x = embeddings(6)
    cosine = torch.nn.functional.cosine_similarity(x[:, None], x[None], dim=-1)
    torch.testing.assert_close(distances(x, x, "cosine") ** 2, 2.0 - 2.0 * cosine, atol=1e-12, rtol=1e-9)
    lengths = torch.arange(1.0, 7.0).double()[:, None]
    torch.testing.assert_close(distances(x, lengths * x, "cosine"), distances(x, x, "cosine"))


# ---- What trains the encoder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "kind"), [*zip(LOSSES, KINDS, strict=True)])
def test_only_the_distances_train_the_encoder(loss: str, kind: str, monkeypatch: pytest.MonkeyPatch):
    """Its gradient is that of finite differences of the naive loss of the posteriors' means, and of nothing else."""
    family = Reach()
    agent = PEARL(config(embedding_loss=loss, distance=kind, repulsion=0.7, margin=1.5, kl_weight=9.0), family)
    trained(agent, family, 2)
    by_task = ByTask(agent.ring, 3)
    batch, places = agent._replay(by_task, rng.key(3))
    tasks = by_task.tasks(rng.fold(rng.key(3), 0), 3).repeat(2)
    agent.net.double()
    batch = Batch(*(x.double() for x in batch[:6]), Pairs(batch.pairs[0].double(), *batch.pairs[1:]))
    found: dict[str, Tensor] = {}

    def keep(metrics: Tensor) -> Tensor:
        found.update({name: p.grad.clone() for name, p in agent.net.named_parameters() if p.grad is not None})
        return metrics

    monkeypatch.setattr(agent, "_step", keep)
    metrics = agent._descend(batch, rng.fold(rng.key(4), places), torch.tensor(0.9), torch.tensor(-1.0))

    def value() -> float:
        with torch.no_grad():
            return naive(agent.net.infer(batch.pairs.context).mean, tasks, kind, loss, 2.0)

    assert float(metrics[2]) == pytest.approx(value(), rel=1e-6)
    assert float(found["critic.weights.0"].norm()) > 0.0 and float(found["actor.weights.0"].norm()) > 0.0
    for name in ("encoder.parts.0", "encoder.weights.0"):
        parameter = dict(agent.net.named_parameters())[name].data.view(-1)
        for place in range(0, len(parameter), 7):
            before, e = parameter[place].clone(), 1e-6
            above, below = (value() for parameter[place] in (before + e, before - e))
            parameter[place] = before
            expected = (above - below) / (2 * e)
            assert float(found[name].view(-1)[place]) == pytest.approx(expected, rel=1e-3, abs=1e-6), name


def test_pairs_are_two_contexts_of_each_task_and_a_task_drawn_twice_is_one():
    family = Corridor()  # few tasks
    agent = PEARL(config(task_batch=9), family)
    trained(agent, family, 1)
    by_task = ByTask(agent.ring, 3)
    batch, _ = agent._replay(by_task, rng.key(3))
    tasks = by_task.tasks(rng.fold(rng.key(3), 0), 9).repeat(2)
    same, other = batch.pairs.same, batch.pairs.other
    assert batch.pairs.context.shape[:2] == (18, 5) and len(tasks.unique()) < 9
    assert torch.equal(same > 0.0, (tasks[:, None] == tasks) & ~torch.eye(18, dtype=torch.bool))
    assert torch.equal(other > 0.0, tasks[:, None] != tasks)
    assert float(same.sum()) == pytest.approx(1.0) and float(other.sum()) == pytest.approx(1.0)


def test_the_embedding_does_not_depend_on_the_order_of_transitions():
    family = Reach()
    agent = PEARL(config(), family)
    trained(agent, family, 3)
    trial = trial_of(agent, family)
    whole = agent.task_embedding(remembered(agent, trial))

    def mixed(rollout: Rollout) -> Rollout:
        order = torch.randperm(len(rollout.mask), generator=torch.Generator().manual_seed(0))
        parts = tree_map(lambda x: x[order], (rollout.step, rollout.acted, rollout.outcome, rollout.mask))
        return Rollout(*parts, rollout.task)

    again = agent.task_embedding(remembered(agent, [mixed(rollout) for rollout in trial[::-1]]))
    torch.testing.assert_close(again, whole, rtol=1e-4, atol=1e-6)


# ---- Prototypes, and the nearest of them ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_prototype_is_that_of_a_loop(kind: str):
    prototypes = Prototypes(10, 3, kind).double()
    x = embeddings(20, seed=2)
    assert torch.equal(prototypes.nearest(x), x), "while there is none"
    prototypes.put(embeddings(6))
    for asked, found in zip(x, prototypes.nearest(x), strict=True):
        known = [each / each.norm() if kind == "cosine" else each for each in embeddings(6)]
        here = asked / asked.norm() if kind == "cosine" else asked
        best = min(range(6), key=lambda n, here=here, known=known: float((here - known[n]).norm()))
        assert torch.equal(found, embeddings(6)[best])


def test_exploration_draws_all_prototypes_equally_often_and_no_forgotten_one():
    prototypes = Prototypes(10, 3, "euclidean").double()
    prototypes.put(embeddings(10, seed=5))
    prototypes.put(embeddings(4))
    drawn = prototypes.draw(rng.fold(rng.key(3), torch.arange(8000)))
    counts = torch.stack([(drawn == each).all(1).sum() for each in embeddings(4)])
    assert int(counts.sum()) == 8000 and bool(((counts / 2000 - 1.0).abs() < 0.08).all())
    torch.testing.assert_close(prototypes.mean(), embeddings(4).mean(0))


@pytest.mark.parametrize("inference", ["posterior", "nearest"])
def test_an_episode_acts_on_a_training_task_at_first_and_then_on_what_is_inferred(inference: str):
    family = metarl.make("metarl/SparsePointRobot-v0", train_tasks=6)
    agent = PEARL(config(inference=inference, rounds=3, prior_rounds=2, prototypes=6), family)
    trained(agent, family, 3)
    known, trial = agent.net.prototypes, trial_of(agent, family)
    assert known is not None and 0 < int(known.count) <= 6
    memory, keys = agent.begin(8), rng.fold(rng.key(5), torch.arange(8))
    for number, rollout in enumerate(trial):
        _, sampled = agent.act(memory, take(rollout.step, 0), keys)
        _, greedy = agent.act(memory, take(rollout.step, 0), keys, greedy=True)
        if number < 2:
            assert bool((sampled.latent[:, None] == known.embedding[: known.count]).all(-1).any(1).all())
            assert torch.equal(greedy.latent, known.mean().expand(8, -1))
        else:
            mean = memory.posterior.mean
            expected = mean if inference == "posterior" else known.nearest(mean)
            assert torch.equal(sampled.latent, expected) and torch.equal(greedy.latent, expected)
        memory = agent.adapt(memory, rollout)


def test_without_a_prototype_yet_it_explores_by_the_prior():
    agent = PEARL(config(), Reach())
    assert agent.net.prototypes is not None and int(agent.net.prototypes.count) == 0
    step, keys = take(trial_of(agent, Reach(), rows=500)[0].step, 0), rng.fold(rng.key(5), torch.arange(500))
    latent = agent.act(agent.begin(500), step, keys)[1].latent
    assert bool(((latent.std(0) - 1.0).abs() < 0.15).all()) and bool((latent.mean(0).abs() < 0.2).all())


def test_prototypes_are_the_embeddings_of_training_tasks_in_bounded_memory():
    family = Reach()  # a new task in each trial: more and more of them
    agent = PEARL(config(prototypes=7, inference="nearest", embedding_loss="critic"), family)
    sizes = set()
    for n in range(3):
        agent.update(trial_of(agent, family, seed=n))
        sizes.add(sum(value.numel() for name, value in agent.state_dict().items() if "prototypes" in name))
        assert int(agent.net.prototypes.count) == 7
    assert sizes == {7 * 3 + 1}
    assert not [name for name in PEARL(config(embedding_loss="critic"), family).state_dict() if "prototypes" in name]


def test_a_resume_with_the_ring_is_exact():
    family = metarl.make("metarl/WindyPoint-v0", train_tasks=5)
    first, second = (PEARL(config(inference="nearest"), family, seed=1) for _ in range(2))
    trained(first, family, 3)
    second.load_state_dict({k: v.clone() for k, v in first.state_dict().items()})
    second.ring.load_state_dict({k: v.clone() for k, v in first.ring.state_dict().items()})
    for agent in (first, second):
        trained(agent, family, 2)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


@pytest.mark.parametrize(("loss", "kind", "iterations"), [("contrastive", "cosine", 20), ("siamese", "euclidean", 30)])
def test_it_learns_the_two_tasks_of_two_doors_and_finds_the_nearest(loss: str, kind: str, iterations: int):
    """Contexts of the two doors lie apart, each next to its own prototype, and the agent repeats what paid."""
    family = TwoDoors()
    options = {
        "meta_batch_size": 16, "task_batch": 8, "batch_size": 16, "context_size": 3, "updates_per_iteration": 15,
        "learning_starts": 32, "buffer_size": 1000, "policy_lr": 3e-3, "q_lr": 3e-3, "encoder_lr": 1e-2,
        "alpha_lr": 3e-3, "tau": 0.05, "gamma": 0.5, "rounds": 4, "encoder_sizes": (32,), "inference": "nearest",
    }  # fmt: skip
    agent = PEARL(config(**options, embedding_loss=loss, distance=kind, target_entropy_share=0.05), family, 1)
    trained(agent, family, iterations, 16)
    trial = trial_of(agent, family, 200, 77)
    side, known = trial[0].task.side, agent.net.prototypes
    embedding = agent.task_embedding(remembered(agent, trial))
    within, apart = (distances(embedding, embedding, kind)[pairs].mean() for pairs in split(side))
    assert float(apart) > 3.0 * float(within)
    nearest = distances(embedding, known.embedding[: known.count], kind).argmin(1)
    assert int(known.count) == 2
    assert torch.equal(nearest, nearest[side == 0][0].where(side == 0, nearest[side == 1][0]))
    assert int(nearest.bincount().count_nonzero()) == 2, "each door has a prototype of its own"
    first, *others = (float(rollout.outcome.reward.mean()) for rollout in trial)
    assert first == pytest.approx(0.5, abs=0.12) and min(others) > 0.9


def split(side: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs of trials are of one door, and which of two."""
    same = side[:, None] == side
    return same, ~same


# ---- The contract, and mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        (Corridor(), {"embedding_loss": "siamese", "distance": "cosine"}),
        (Reach(), {"inference": "nearest", "next_obs": True, "norm_obs": True}),
    ],
    ids=["siamese", "nearest"],
)
def test_the_contract_of_agents(family: TaskFamily, changes: dict[str, Any]):
    check_agent(config(**changes), family)


def test_a_variant_has_its_own_name_in_tables():
    assert config().title == "PEARL (contrastive)" and config(embedding_loss="critic").title == "PEARL"
    assert PEARL(config(inference="nearest"), Reach()).title == "PEARL (contrastive, nearest task)"


def test_an_agent_without_prototypes_has_no_nearest_one():
    agent = PEARL(config(embedding_loss="critic"), Reach())
    agent.config.inference = "nearest"
    with pytest.raises(ValueError, match="This agent keeps no embeddings of training tasks: train it with"):
        trial_of(agent, agent.family)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"embedding_loss": "triplet"}, "'triplet'"),
        ({"task_batch": 1}, "task_batch must be at least 2 with embedding_loss 'contrastive', which compares tasks"),
        ({"distance": "cosine", "latent_size": 1}, "latent_size must be at least 2 with distance 'cosine'"),
        ({"embedding_loss": "siamese", "distance": "cosine", "margin": 3.0}, "margin must be at most 2"),
    ],
)
def test_options_that_do_not_fit_each_other(options: dict[str, Any], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        config(**options)
