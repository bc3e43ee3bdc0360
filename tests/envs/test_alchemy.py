"""Alchemy: the 109 graphs, the maps, the rules of the table, and the known-chemistry optimum by exact search."""

import inspect
import itertools
import math
import re

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from scipy.spatial.transform import Rotation

from metarl.agents.reference.cognitive import AlchemyPlanner, ways
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.rollout import episode_returns, run_trial
from metarl.core.tree import features, num_rows, take
from metarl.envs.cognitive.alchemy import (
    EDGE,
    OPTIMA,
    VALUES,
    Alchemy,
    Chemistry,
    Table,
    _number_of_limits,
    graphs,
    perceived,
)
from metarl.testing import check_family

# Nothing limited; colour 2a sets latent coordinate a to -1, colour 2a + 1 to +1; features are the coordinates.
PLAIN = Chemistry(
    torch.ones(1, 12, dtype=torch.bool), torch.arange(6)[None], torch.ones(1, 3, dtype=torch.int64), torch.tensor([0])
)


def table(stones: list[int], colours: list[int]) -> Table:
    return Table(torch.tensor([stones]), torch.zeros(1, 3).bool(), torch.tensor([colours]), torch.zeros(1, 12).bool())


def act(task: Chemistry, state: Table, *actions: int) -> tuple[Table, list[float]]:
    rewards = []
    for action in actions:
        zero = torch.zeros(1, dtype=torch.int64)
        state, reward, terminated = Alchemy().step(task, state, torch.tensor([action]), zero)
        assert not terminated
        rewards.append(float(reward))
    return state, rewards


def cauldron(stone: int) -> int:
    return 13 * stone + 1


def dip(stone: int, potion: int) -> int:
    return 13 * stone + potion + 2


def test_contract():
    check_family(Alchemy())


def test_docstring_follows_the_schema():
    headings = re.findall(r"^(\w[\w ]*):$", inspect.cleandoc(Alchemy.__doc__ or ""), re.MULTILINE)
    assert headings == [
        "Description", "What varies", "Splits", "Actions", "Observations", "Rewards", "Endings", "Optimum", "Source",
        "Version history",
    ]  # fmt: skip


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="episodes_per_trial must be a whole number of at least"):
        Alchemy(episodes_per_trial=0)


def test_the_published_counts():
    """109 graphs: 1, 12, 48, 48 with 0, 1, 2, 3 limits; with 48 potion maps, 8 stone maps, 4 rotations 167 424."""
    assert np.bincount(_number_of_limits()).tolist() == [1, 12, 48, 48]
    assert len(set(map(tuple, graphs().tolist()))) == len(OPTIMA) == 109
    every = Alchemy().every_chemistry("all")
    assert num_rows(every) == 109 * 48 * 8 * 4
    assert len(every.potions.unique(dim=0)) == 48 and len(every.signs.unique(dim=0)) == 8
    assert len({row.tobytes() for row in features(every).numpy()}) == 167_424
    assert sorted(VALUES) == [-3, -1, -1, -1, 1, 1, 1, 15]
    assert Alchemy().action_space.n == 40 and Alchemy().observation_space.shape == (39,)


def test_graphs_are_connected_and_edges_have_two_ends():
    assert sorted(itertools.chain(*EDGE)) == sorted([*range(12), *range(12)])
    for v, axis in itertools.product(range(8), range(3)):
        assert EDGE[v][axis] == EDGE[v ^ 1 << axis][axis]
    for edges in graphs().tolist():
        reach = np.eye(8, dtype=int)
        for v, axis in itertools.product(range(8), range(3)):
            reach[v, v ^ 1 << axis] = edges[EDGE[v][axis]]
        assert (np.linalg.matrix_power(reach, 8) > 0).all()


def test_splits():
    family = Alchemy()
    rows = {
        s: {r.tobytes() for r in features(family.every_chemistry(s)).numpy()} for s in ("train", "test", "ood", "all")
    }
    assert not rows["train"] & rows["test"] and not rows["train"] & rows["ood"]
    assert rows["train"] | rows["test"] | rows["ood"] < rows["all"]
    assert [len(rows[s]) for s in ("train", "test", "ood")] == [61 * 307 * 4, 61 * 77 * 4, 48 * 307 * 4]
    limits = dict(zip(map(tuple, graphs().tolist()), _number_of_limits(), strict=True))
    for split, weights in (("all", [1, 1, 1, 1]), ("train", [1, 1, 1]), ("test", [1, 1, 1]), ("ood", [0, 0, 0, 1])):
        task = family.sample_tasks(rng.key(0), 4000, split)
        assert {row.tobytes() for row in features(task).numpy()} <= rows[split]
        counts = np.bincount([limits[tuple(edges)] for edges in task.edges.tolist()], minlength=len(weights))
        expected = 4000 * np.array(weights) / sum(weights)
        assert len(counts) == len(weights) and (counts[expected == 0] == 0).all()
        assert (np.abs(counts - expected) <= 4 * expected**0.5).all()
        assert scipy.stats.chisquare(task.rotation.bincount(minlength=4).numpy()).pvalue > 0.001


def test_potions_and_cauldron():
    state, rewards = act(PLAIN, table([0, 7, 3], [1, 3, 5, 5, 0, 1] + [2] * 6), dip(0, 0), dip(0, 1))
    assert state.stones.tolist() == [[3, 7, 3]] and rewards == [0, 0]
    state, rewards = act(PLAIN, state, dip(2, 2), cauldron(2), cauldron(2), dip(2, 3), cauldron(0), cauldron(1), 0)
    assert rewards == [0, 15, 0, 0, 1, 15, 0]
    assert state.stones_used.all() and state.potions_used[0, :3].all() and not state.potions_used[0, 3:].any()
    state, rewards = act(PLAIN, table([1, 0, 0], [1] * 12), dip(0, 0), dip(0, 0), cauldron(0), dip(1, 0), cauldron(1))
    assert rewards == [0, 0, -1, 0, -3], "a used potion does nothing; one that does not apply is used up all the same"


def test_a_missing_edge_stops_a_potion():
    edges = PLAIN.edges.clone()
    edges[0, EDGE[0][1]] = False
    state, _ = act(PLAIN._replace(edges=edges), table([0, 1, 2], [3, 3, 2] + [0] * 9), dip(0, 0), dip(1, 1), dip(2, 2))
    assert state.stones.tolist() == [[0, 3, 2]] and state.potions_used[0, :3].all()


def test_observation_of_a_known_table():
    state, _ = act(PLAIN, table([0, 7, 5], [0, 1, 2, 3, 4, 5] * 2), cauldron(1), dip(0, 11))
    obs = Alchemy().observe(PLAIN, state)[0]
    assert obs[:15].tolist() == pytest.approx([-1, -1, 1, -1 / 3, 0, 2, 2, 2, 2, 1, 1, -1, 1, 1 / 3, 0])
    assert obs[15::2].tolist() == pytest.approx([c / 3 - 1 for c in [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4]] + [1])
    assert obs[16::2].tolist() == [0] * 11 + [1]


def test_rotations_are_by_45_degrees():
    """Perceived features, turned back and scaled, are the aligned coordinates: -45° about z, y, x."""
    stones = torch.arange(8)[None]
    for rotation, angles in enumerate([(0, 0, 0), (0, 0, -45), (0, -45, 0), (-45, 0, 0)]):
        seen = perceived(PLAIN._replace(rotation=torch.tensor([rotation])), stones)[0].numpy()
        scale = np.diag([1.0 if angle or not any(angles) else math.sqrt(2) for angle in angles])
        turn = scale @ Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        aligned = [[2 * (v >> i & 1) - 1 for i in range(3)] for v in range(8)]
        np.testing.assert_allclose(seen @ turn.T, aligned, atol=1e-6)
        assert set(np.unique(seen)) <= {-1, 0, 1}


def exact_optimum(edges: tuple[bool, ...], triples: list[tuple[int, ...]]) -> np.ndarray:
    """Mean value of the best plan over all draws of 12 potions, for each triple of stones."""
    splits = itertools.combinations(range(17), 5)  # all ways to write 12 as a sum of 6
    have = np.array([np.diff([-1, *bars, 17]) - 1 for bars in splits])
    weight = np.exp(scipy.special.gammaln(13) - scipy.special.gammaln(have + 1.0).sum(1)) / 6.0**12
    values = []
    for triple in triples:
        best = np.zeros(len(have))
        for choice in itertools.product(*(ways(edges, stone) for stone in triple)):
            enough = (have >= np.sum([way.need for way in choice], axis=0)).all(1)
            best = np.maximum(best, np.where(enough, sum(way.value for way in choice), 0.0))
        values.append(weight @ best)
    return np.array(values)


def test_optimum_of_the_cube_without_limits():
    """OPTIMA's first number, over all triples of stones."""
    triples = list(itertools.combinations_with_replacement(range(8), 3))
    often = [len(set(itertools.permutations(triple))) / 512 for triple in triples]
    exact = exact_optimum(tuple(graphs()[0].tolist()), triples) @ often
    assert OPTIMA[0] == pytest.approx(exact, abs=1e-5)


def test_oracle():
    family = Alchemy()
    limits = torch.tensor(_number_of_limits())
    means = [float(torch.tensor(OPTIMA)[limits == k].mean()) for k in range(4)]
    assert np.mean(means) == pytest.approx(28.840, abs=5e-4) and means[3] == pytest.approx(26.068, abs=5e-4)
    assert np.mean(means[:3]) == pytest.approx(29.764, abs=5e-4)
    task = family.sample_tasks(rng.key(0), 300, "all")
    number = {tuple(edges): i for i, edges in enumerate(graphs().tolist())}
    assert family.oracle(task).tolist() == pytest.approx([OPTIMA[number[tuple(e)]] for e in task.edges.tolist()])


@pytest.mark.parametrize("split", ["all", "ood"])
def test_the_planner_reaches_the_oracle(split):
    """2000 episodes: the gap to the exact mean lies within four standard errors, of at most 1.2."""
    family = Alchemy(episodes_per_trial=5)
    task = family.sample_tasks(rng.key(0), 400, split)
    returns = episode_returns(run_trial(AlchemyPlanner(), family, task, rng.key(1))[0], 5)
    gap = (returns - family.oracle(task)[:, None]).flatten().double()
    error = 4 * float(gap.std()) / len(gap) ** 0.5
    assert error < 1.2 and abs(float(gap.mean())) < error


def test_the_planner_must_be_told():
    with pytest.raises(ValueError, match="must be told the task"):
        AlchemyPlanner().begin(1)


def test_row_of_a_batch_equals_a_batch_of_one():
    family = Alchemy(episodes_per_trial=2)
    task = family.sample_tasks(rng.key(0), 7, "test")
    actions = [rng.integers(rng.fold(rng.fold(rng.key(1), t), torch.arange(7)), 1, 40)[:, 0] for t in range(40)]

    def trace(rows: slice) -> torch.Tensor:
        env = BatchEnv(family, take(task, rows), rng.key(2), first_row=rows.start)
        first = env.reset().obs
        return torch.stack([first, *(env.step(action[rows])[1].obs for action in actions)])

    whole = trace(slice(0, 7))
    for i in range(7):
        assert torch.equal(whole[:, i : i + 1], trace(slice(i, i + 1)))


def test_picture():
    family = Alchemy()
    task = family.sample_tasks(rng.key(0), 1)
    state = family.reset(task, rng.fold(rng.key(0), torch.arange(1)))
    states = [state, act(task, state, dip(0, 0), cauldron(0))[0]]
    pictures = [family.render(task, seen) for seen in ([], states[:1], states)]
    assert all(p.dtype == np.uint8 and p.ndim == 3 and p.shape[2] == 3 for p in pictures)
    assert not np.array_equal(pictures[1], pictures[2])
