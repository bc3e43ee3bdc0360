"""Drawing rulesets: deterministic, of the size of their preset, solvable, and split by combinations never seen."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.tree import leaves, take
from metarl.envs.rulesets.combinations import group, held_out, possible
from metarl.envs.rulesets.family import Ruleset, Rulesets
from metarl.envs.rulesets.generator import PRESETS, out_of_distribution
from metarl.envs.rulesets.rules import HOLD, KINDS, NEAR, TILES, kind_number
from metarl.envs.rulesets.tiles import FIRST, GOALS, OBJECTS, tile

Rule = tuple[int, int, int, int]
each_preset = pytest.mark.parametrize("preset", PRESETS)
each_split = pytest.mark.parametrize("split", Rulesets.splits)


def rows(task: Ruleset) -> Iterable[tuple[tuple[int, int, int], list[Rule], list[int]]]:
    """Goal, rules and tiles of every row, without the padding."""
    for goal, rules, tiles in zip(task.goal.tolist(), task.rules.tolist(), task.tiles.tolist(), strict=True):
        yield tuple(goal), [tuple(rule) for rule in rules if rule[0]], [each for each in tiles if each]


def needed(goal: tuple[int, int, int], rules: list[Rule]) -> list[Rule]:
    """The rules that make the goal's tiles, and theirs, and so on."""
    wanted, found = {goal[1], goal[2]} - {0}, []
    while new := [rule for rule in rules if rule[3] in wanted and rule not in found]:
        found += new
        wanted |= {each for rule in new for each in rule[1:3] if each}
    return found


def combination(kind: int, a: int, b: int) -> tuple[int, frozenset[int]]:
    """A condition, whichever way round: up and down, and right and left, are one with the tiles exchanged."""
    names = {"TileNearDown": "TileNearUp", "TileNearLeft": "TileNearRight"}
    return kind_number(names.get(KINDS[kind], KINDS[kind])), frozenset({a, b} - {0})


# ---- what is drawn ---------------------------------------------------------------------------------------------------


@each_preset
@each_split
def test_the_same_keys_give_the_same_and_a_longer_sequence_begins_with_a_shorter_one(preset: str, split: str):
    family = Rulesets(preset)
    whole, again = (family.sample_tasks(rng.key(3), 40, split) for _ in range(2))
    part, rest = family.sample_tasks(rng.key(3), 15, split), family.sample_tasks(rng.key(3), 25, split, first=15)
    other = family.sample_tasks(rng.key(4), 40, split)
    for a, b, first, last in zip(*map(leaves, (whole, again, part, rest)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, torch.cat([first, last])) and a.dtype == torch.int64
    assert not torch.equal(whole.goal, other.goal)
    assert whole.rules.shape == (40, family.most_rules, 4) and whole.tiles.shape == (40, family.most_tiles)


@each_preset
@each_split
def test_padding_comes_last_and_nothing_is_cut(preset: str, split: str):
    family = Rulesets(preset)
    task = family.sample_tasks(rng.key(0), 500, split)
    for filled in (task.rules[..., 0] > 0, task.tiles > 0):
        assert bool((filled[:, :-1] >= filled[:, 1:]).all())
    assert not task.rules[task.rules[..., 0] == 0].any()
    size = out_of_distribution(preset) if split == "ood" else PRESETS[preset]
    assert int((task.rules[..., 0] > 0).sum(1).max()) <= size.most_rules
    assert int((task.tiles > 0).sum(1).max()) <= size.most_tiles
    family.check_task(task)


@each_preset
@each_split
def test_the_numbers_of_what_distracts_and_the_depth(preset: str, split: str):
    size = out_of_distribution(preset) if split == "ood" else PRESETS[preset]
    depths = []
    for goal, rules, tiles in rows(Rulesets(preset).sample_tasks(rng.key(0), 300, split)):
        used = needed(goal, rules)
        assert len(rules) - len(used) == size.rules
        made = {rule[3]: rule for rule in used}

        def depth(of: int, made: dict[int, Rule] = made) -> int:
            return 1 + max(depth(each) for each in made[of][1:3] if each) if of in made else 0

        depths.append(max(depth(each) for each in goal[1:] if each))
        wanted = {each for condition in (goal, *(rule[:3] for rule in used)) for each in condition[1:] if each}
        assert len(set(tiles)) == len(tiles) and len([each for each in tiles if each not in wanted]) == size.tiles
    assert max(depths) == size.depth
    if split == "ood":
        assert min(depths) == size.depth and size.depth > PRESETS[preset].depth, "deeper than all of training"
    elif size.depth:
        shallow = sum(depth < size.depth for depth in depths) / len(depths)
        assert 0 < shallow < 0.7, "some branches are pruned"


@each_preset
@each_split
def test_every_ruleset_can_be_solved_from_its_tiles(preset: str, split: str):
    """A search over what lies there, in which a player applies rules as it likes; hands hold no goal tiles."""
    for goal, rules, tiles in rows(Rulesets(preset).sample_tasks(rng.key(1), 150, split)):
        assert solved(goal, rules, frozenset(tiles)), (goal, rules, tiles)


def can_be_met(condition: tuple[int, ...], there: frozenset[int]) -> bool:
    """From wherever the tiles lie: they are there, and one can carry what has to be carried."""
    kind, a, b = condition[:3]
    tiles = [a, b] if kind >= TILES else [a]
    carried = [each for each in tiles if each < GOALS]
    any_side = kind in (NEAR, TILES)
    enough = len(carried) >= len(tiles) - 1 if any_side else len(carried) == len(tiles)
    return set(tiles) <= there and enough


def solved(goal: tuple[int, int, int], rules: list[Rule], start: frozenset[int]) -> bool:
    """Depth first over sets of tiles. A rule that starts by itself, as soon as one comes near, is no choice."""
    seen, open_ = {start}, [start]
    while open_:
        there = open_.pop()
        if can_be_met(goal, there):
            return True
        for rule in rules:
            if can_be_met(rule, there) and not (rule[0] == HOLD and rule[3] >= GOALS):
                after = (there - set(rule[1:3])) | {rule[3]}
                if after not in seen:
                    seen.add(after)
                    open_.append(after)
    return False


@each_preset
def test_no_needed_tile_is_lost_without_a_choice(preset: str):
    """Rules that only distract take a needed tile at most together with another, which need not come near it."""
    for goal, rules, _ in rows(Rulesets(preset).sample_tasks(rng.key(2), 400, "train")):
        used = needed(goal, rules)
        wanted = [each for condition in (goal, *used) for each in condition[1:3] if each]
        assert len(set(wanted)) == len(wanted), "each object has one place"
        for rule in rules:
            if rule not in used:
                inputs = [each for each in rule[1:3] if each]
                assert rule[3] not in wanted and len(set(inputs) & set(wanted)) < len(inputs)


def test_the_solver_sees_what_cannot_be_solved():
    ball, key, ground, star = (tile("ball", "red"), tile("key", "red"), tile("goal", "red"), tile("star", "red"))
    assert not solved((HOLD, ground, 0), [], frozenset({ground}))
    assert not solved((HOLD, star, 0), [(TILES, ball, key, star)], frozenset({ball}))
    assert not solved((TILES + 1, ball, ground), [], frozenset({ball, ground}))
    assert solved((HOLD, star, 0), [(TILES, ball, key, star)], frozenset({ball, key}))


def test_kinds_and_objects_are_drawn_evenly():
    task = Rulesets().sample_tasks(rng.key(5), 11_000)
    kinds = task.goal[:, 0].bincount(minlength=12)
    assert kinds[0] == 0 and bool(((kinds[1:] - 1000).abs() < 150).all())
    counts = task.tiles[task.tiles > 0].bincount(minlength=72)
    for alike in (counts[FIRST:GOALS], counts[GOALS:]):  # fewer kinds of conditions can have a goal tile
        assert float(alike.max()) < 1.35 * float(alike.min())


# ---- splits ----------------------------------------------------------------------------------------------------------


def conditions(family: Rulesets, split: str, n: int, seed: int = 0) -> set[tuple[int, frozenset[int]]]:
    """The combinations of goals and needed rules."""
    found = set()
    for goal, rules, _ in rows(family.sample_tasks(rng.key(seed), n, split)):
        found |= {combination(*goal), *(combination(*rule[:3]) for rule in needed(goal, rules))}
    return found


@each_preset
def test_no_combination_of_test_is_in_any_other_split(preset: str):
    family = Rulesets(preset)
    n = 6000 if preset in ("trivial", "small") else 2000
    test, train = conditions(family, "test", n), conditions(family, "train", n)
    assert not test & (train | conditions(family, "valid", n) | conditions(family, "ood", n))
    assert len(test) > 400 and len(train) > len(test)


def test_every_element_of_test_is_in_train():
    """Each kind, each object, and each kind with each shape and each colour: only combinations are new."""
    family = Rulesets()
    train, test = (family.sample_tasks(rng.key(0), 20_000, split).goal for split in ("train", "test"))

    def elements(goal: Tensor) -> set:
        found = set()
        for kind, *tiles in goal.tolist():
            for each in (each for each in tiles if each):
                shape, colour = divmod(each - FIRST, 10)
                found |= {kind, ("object", each), (kind, "shape", shape), (kind, "colour", colour)}
        return found

    seen = elements(train)
    assert elements(test) <= seen
    assert {each for each in seen if each in range(1, 12)} == set(range(1, 12))
    assert len([each for each in seen if isinstance(each, tuple) and each[0] == "object"]) == OBJECTS


def test_the_parting_is_symmetric_and_a_fifth():
    held = held_out()
    assert torch.equal(held, held.transpose(1, 2))
    share = float(held[1:][possible()[1:]].float().mean())
    assert 0.18 < share < 0.22
    for kind, other in itertools.combinations(range(1, len(KINDS)), 2):
        same = group(kind) == group(other)
        assert same == (KINDS[kind][:8] == "TileNear" and {kind, other} in ({8, 10}, {9, 11}))
        assert torch.equal(held[kind], held[other]) == same
    assert 5 < int(held[HOLD].diagonal()[:60].sum()) < 20, "kinds with one object are parted, too"


def test_valid_draws_from_training_s_distribution():
    family = Rulesets("small")
    valid, train = (family.sample_tasks(rng.key(0), 3000, split) for split in ("valid", "train"))
    assert not torch.equal(valid.goal, train.goal)
    difference = (valid.goal[:, 0].bincount(minlength=12) - train.goal[:, 0].bincount(minlength=12)).abs()
    assert int(difference.max()) < 120


def test_a_row_does_not_depend_on_the_others():
    family = Rulesets("high")
    keys = rng.fold(rng.key(0), torch.arange(12))
    whole = family.draw_tasks(keys, "ood")
    for i in range(12):
        alone = family.draw_tasks(keys[i : i + 1], "ood")
        assert all(torch.equal(a, b) for a, b in zip(leaves(take(whole, slice(i, i + 1))), leaves(alone), strict=True))
