"""The physics of rulesets: walking, carrying, seeing; and every kind of condition as a goal and as a rule, by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metarl import evaluate
from metarl.agents.reference.catalogue import baseline
from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.checks import checked_task
from metarl.core.tree import take
from metarl.envs.rulesets.bounds import Rooms, fewest_steps, steps_needed
from metarl.envs.rulesets.family import Room, Ruleset, Rulesets
from metarl.envs.rulesets.rules import HOLD, KINDS, NEAR, SIDES, TILES, condition_name, kind_number
from metarl.envs.rulesets.tiles import COLOURS, NUMBERS, SHAPES, can_be_held, tile, tile_name
from metarl.testing import check_family, families

FORWARD, LEFT, RIGHT, PICK, PUT, TOGGLE = range(6)
UP, EAST, DOWN, WEST = range(4)
A, B, C, D = tile("ball", "red"), tile("key", "blue"), tile("star", "green"), tile("hex", "pink")
GROUND = tile("goal", "yellow")
LETTERS = {".": 0, "#": 1, "a": A, "b": B, "c": C, "d": D, "g": GROUND}
FAMILY = Rulesets(size=6)
DIRECTED = list(enumerate(SIDES))


def room(lines: str, held: int = 0) -> Room:
    """A room of 4 × 4 cells, written line by line; ^ > v < is the agent."""
    rows = ["#" * 6, *(f"#{line}#" for line in lines.split()), "#" * 6]
    text = "".join(rows)
    (place,) = [i for i, letter in enumerate(text) if letter in "^>v<"]
    grid = torch.tensor([[LETTERS.get(letter, 0) for letter in text]])
    zero = torch.zeros(1, dtype=torch.int64)
    return Room(grid, zero + place, zero + "^>v<".index(text[place]), zero + held, zero, zero.bool())


def shown(state: Room) -> str:
    """The room as `room` reads it."""
    names = {number: letter for letter, number in LETTERS.items()}
    text = [names[number] for number in state.grid[0].tolist()]
    text[int(state.position)] = "^>v<"[int(state.direction)]
    return " ".join("".join(text[6 * y + 1 : 6 * y + 5]) for y in range(1, 5))


def ruleset(goal: tuple[str, int, int] = ("AgentHold", D, 0), *rules: tuple[str, int, int, int]) -> Ruleset:
    made = [(kind_number(kind), *others) for kind, *others in rules]
    made += [(0, 0, 0, 0)] * (FAMILY.most_rules - len(made))
    return Ruleset(
        torch.tensor([(kind_number(goal[0]), *goal[1:])]), torch.tensor([made]), torch.zeros(1, 6, dtype=torch.int64)
    )


def act(task: Ruleset, state: Room, *actions: int) -> Room:
    """The state after these actions, of which only the last one may reach the goal."""
    for action in actions:
        time = int(state.time) + 1
        assert not state.reached, "the goal was reached before"
        state, reward, ended = FAMILY.step(task, state, torch.tensor([action]), torch.zeros(1, dtype=torch.int64))
        assert bool(ended) == bool(state.reached) == bool(FAMILY.success(task, state))
        expected = 1 - 0.9 * time / FAMILY.horizon if ended else 0.0
        assert float(reward) == pytest.approx(expected, abs=1e-6)
    return state


def turned(lines: str, times: int) -> str:
    """A room turned to the right by right angles, the agent with it."""
    rows = lines.split()
    for _ in range(times):
        rows = ["".join(column).translate(str.maketrans("^>v<", ">v<^")) for column in zip(*rows[::-1], strict=True)]
    return " ".join(rows)


# ---- walking, carrying, seeing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", range(4))
def test_walking_and_turning(times: int):
    task = ruleset()
    start = room(turned(".... .a.. .^.. ....", times))
    assert shown(act(task, start, FORWARD)) == shown(start), "an object is in the way"
    assert shown(act(task, start, LEFT, FORWARD)) == turned(".... .a.. <... ....", times)
    assert shown(act(task, start, LEFT, FORWARD, FORWARD)) == turned(".... .a.. <... ....", times), "a wall"
    assert shown(act(task, start, RIGHT, FORWARD, RIGHT, FORWARD)) == turned(".... .a.. .... ..v.", times)
    assert shown(act(task, start, TOGGLE)) == shown(start)


@pytest.mark.parametrize("times", range(4))
def test_one_object_is_carried(times: int):
    task = ruleset(("AgentHold", C, 0))
    state = act(task, room(turned("..b. .a.. .^.. ....", times)), PICK)
    assert shown(state) == turned("..b. .... .^.. ....", times) and int(state.held) == A
    state = act(task, state, FORWARD, RIGHT, FORWARD, LEFT, PICK)
    assert shown(state) == turned("..b. ..^. .... ....", times) and int(state.held) == A, "the hand is full"
    assert shown(act(task, state, PUT)) == shown(state), "b lies there"
    state = act(task, state, RIGHT, PUT)
    assert shown(state) == turned("..b. ..>a .... ....", times) and int(state.held) == 0
    state = act(task, state, PUT, LEFT, PICK)
    assert shown(state) == turned(".... ..^a .... ....", times) and int(state.held) == B
    wall = act(task, room(turned("^... .... .... ....", times), held=A), PUT)
    assert int(wall.held) == A, "nothing is put into the wall"
    assert int(act(task, wall, LEFT, LEFT, LEFT, LEFT, PICK).held) == A


def test_a_goal_tile_lies_in_the_floor():
    task = ruleset()
    state = act(task, room(".g.. .^.. .... ...."), PICK)
    assert int(state.held) == 0 and shown(state) == ".g.. .^.. .... ...."
    state = act(task, state, FORWARD)
    assert shown(state) == ".^.. .... .... ...."
    assert shown(act(task, state, RIGHT, RIGHT, FORWARD)) == ".g.. .v.. .... ...."
    full = act(task, room(".g.. .^.. .... ....", held=A), PUT)
    assert int(full.held) == A, "nothing is put onto it"


@pytest.mark.parametrize("times", range(4))
def test_the_view_lies_ahead(times: int):
    raw = Rulesets(size=6, one_hot=False)
    state = room(turned("b..d .... a^.. c.g.", times), held=C)
    (picture,) = raw.observe(ruleset(), state)
    assert raw.observation_space.contains(picture.numpy())
    names = {number: letter for letter, number in LETTERS.items() if number > 1}

    def letter(cell: list[float]) -> str:
        if cell[0] < 2:
            assert cell[1] == 0
            return ".#"[int(cell[0])]
        return names[tile(SHAPES[int(cell[0]) - 2], COLOURS[int(cell[1]) - 1])]

    view = ["".join(letter(cell) for cell in line) for line in picture.tolist()]
    assert view == ["#####", "#####", "#b..d", "#....", "#ac.."], "what it holds is where it stands"


def test_one_hot_says_the_same_and_the_direction():
    raw, family = Rulesets(one_hot=False), Rulesets()
    task = family.sample_tasks(rng.key(0), 50)
    state = family.reset(task, rng.fold(rng.key(1), torch.arange(50)))
    ones, numbers = family.observe(task, state), raw.observe(task, state).reshape(50, 25, 2).long()
    assert ones.shape == (50, 454) and raw.observation_space.shape == (5, 5, 2)
    cells = ones[:, :450].reshape(50, 25, 18)
    for shape in range(1, 9):
        assert torch.equal(cells[..., shape - 1] == 1, numbers[..., 0] == shape)
    for colour in range(1, 11):
        assert torch.equal(cells[..., 7 + colour] == 1, numbers[..., 1] == colour)
    assert torch.equal(ones[:, 450:].argmax(1), state.direction) and bool((ones[:, 450:].sum(1) == 1).all())
    assert bool(((ones == 0) | (ones == 1)).all())


def test_places_are_drawn_anew_and_apart():
    family, n = Rulesets("high"), 3000
    task = take(family.sample_tasks(rng.key(0), 1), torch.zeros(n, dtype=torch.int64))
    state = family.reset(task, rng.fold(rng.key(1), torch.arange(n)))
    lying = state.grid.sort(1).values
    assert torch.equal(lying, lying[:1].expand(n, -1)), "the same tiles in all rows"
    assert sorted(lying[0][lying[0] > 1].tolist()) == sorted(task.tiles[0][task.tiles[0] > 0].tolist())
    assert bool((state.grid.gather(1, state.position[:, None]) == 0).all())
    walls = (state.grid == 1).reshape(n, 9, 9)
    assert bool(walls[:, [0, -1]].all() and walls[..., [0, -1]].all()) and not bool(walls[:, 1:-1, 1:-1].any())
    for places in (state.position, (state.grid == task.tiles[0, 0]).to(torch.int64).argmax(1)):
        counts = places.bincount(minlength=81).reshape(9, 9)[1:-1, 1:-1]
        assert float(((counts - n / 49) ** 2 / (n / 49)).sum()) < 85, "uniform: chi-square with 48 degrees of freedom"
    assert bool((state.direction.bincount() > n / 4 - 120).all())


def test_the_reward_falls_with_time():
    state = room(".... .a.. .^.. ....")
    task = ruleset(("AgentHold", A, 0))
    for wait in (0, 1, 50):
        act(task, state, *[TOGGLE] * wait, PICK)  # which looks at the reward
    family = Rulesets()
    assert family.horizon == 243 and family.episodes_per_trial == 3 and Rulesets(size=13).horizon == 507
    assert Rulesets(horizon=7).horizon == 7


# ---- goals -----------------------------------------------------------------------------------------------------------


def test_agent_hold_is_looked_at_when_it_is_picked_up():
    start = room(".... .a.. b^.. ....")
    assert act(ruleset(("AgentHold", A, 0)), start, PICK).reached
    assert not act(ruleset(("AgentHold", B, 0)), start, PICK).reached
    assert not act(ruleset(("AgentHold", A, 0)), room(".... .... .^.. ....", held=A), FORWARD, TOGGLE).reached


@pytest.mark.parametrize("side", range(4))
def test_agent_near_is_looked_at_after_forward(side: int):
    """The agent walks up to the place above, right, below or left of which `a` lies."""
    task = ruleset(("AgentNear", A, 0))
    start = room(turned(".... .a.. .... ^...", side))
    assert act(task, start, FORWARD, RIGHT, FORWARD).reached, "now a lies on the left of its way"
    there = room(turned(".... .a.. .^.. ....", side))
    assert not act(task, there, LEFT, LEFT, RIGHT, TOGGLE, PUT).reached, "only forward counts"
    assert act(task, there, FORWARD).reached, "also where it is stopped"
    assert not act(task, room(turned("a... .... .^.. ....", side)), FORWARD).reached, "not across a corner"


@pytest.mark.parametrize(("side", "name"), DIRECTED)
def test_agent_near_on_a_side(side: int, name: str):
    """Only with `a` on that side: the other three kinds are not met."""
    for other, other_name in DIRECTED:
        task = ruleset((f"AgentNear{other_name}", A, 0))
        ahead = act(task, room(turned(".... .a.. .^.. ....", side)), FORWARD)
        beside = act(task, room(turned(".... .a.. ..^. ....", side)), LEFT, FORWARD)
        assert bool(ahead.reached) == bool(beside.reached) == (other == side)
    assert condition_name(NEAR + 1 + side, A, 0) == f"AgentNear{name}(red ball)"


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("names", [(A, B), (B, A)])
def test_tile_near_is_looked_at_when_one_is_put_down(side: int, names: tuple[int, int]):
    task = ruleset(("TileNear", *names))
    assert act(task, room(turned(".b.. .... .^.. ....", side), held=A), PUT).reached
    assert act(task, room(turned(".... b... .^.. ....", side), held=A), PUT).reached
    assert not act(task, room(turned("b... .... .^.. ....", side), held=A), PUT).reached, "not across a corner"
    assert not act(task, room(turned(".c.. .... .^.. ....", side), held=A), PUT).reached
    assert not act(task, room(turned(".b.. .... .^.. ....", side), held=C), PUT).reached
    lying = room(turned(".... ab.. .^.. ....", side), held=C)
    assert not act(task, lying, FORWARD, RIGHT, PUT).reached, "they were put there before"
    assert act(task, room(turned(".... ab.. .^.. ....", side)), PICK, PUT).reached


@pytest.mark.parametrize(("side", "name"), DIRECTED)
def test_tile_near_on_a_side(side: int, name: str):
    """`b` on that side of `a`, whichever of them is put down; turned away from it, no other kind is met."""
    for other, other_name in DIRECTED:
        task = ruleset((f"TileNear{other_name}", A, B))
        a_put = act(task, room(turned(".b.. .... .^.. ....", side), held=A), PUT)
        assert bool(a_put.reached) == (other == side)
        b_put = act(task, room(turned(".... ^... .... a...", side), held=B), RIGHT, RIGHT, PUT)
        assert bool(b_put.reached) == (other == side)
    assert condition_name(TILES + 1 + side, A, B) == f"TileNear{name}(red ball, blue key)"


def test_a_goal_tile_can_be_near():
    assert act(ruleset(("AgentNear", GROUND, 0)), room(".g.. .... .^.. ...."), FORWARD).reached
    onto_it = act(ruleset(("AgentNear", GROUND, 0)), room(".g.. .^.. .... ...."), FORWARD)
    assert not onto_it.reached, "under the agent it is not next to it"
    assert act(ruleset(("TileNear", A, GROUND)), room(".g.. .... .^.. ....", held=A), PUT).reached


# ---- rules -----------------------------------------------------------------------------------------------------------


def test_what_is_held_becomes_another():
    task = ruleset(("AgentHold", C, 0), ("AgentHold", A, 0, C))
    state = act(task, room(".... .a.. .^.. ...."), PICK)
    assert int(state.held) == C and state.reached, "the goal is looked at after the rule"
    state = act(ruleset(("AgentHold", D, 0), ("AgentHold", A, 0, C)), room(".... .a.. .^.. ...."), PICK, PUT, PICK)
    assert int(state.held) == C


@pytest.mark.parametrize("side", range(4))
def test_what_is_near_becomes_another(side: int):
    task = ruleset(("AgentHold", D, 0), ("AgentNear", A, 0, C))
    state = act(task, room(turned(".... a... b^.. ....", side)), FORWARD)
    assert shown(state) == turned(".... c^.. b... ....", side)
    assert shown(act(task, room(turned(".... a^.. .... ....", side)), LEFT)) == turned(".... a<.. .... ....", side)


@pytest.mark.parametrize(("side", "name"), DIRECTED)
def test_what_is_near_on_a_side_becomes_another(side: int, name: str):
    start = room(turned(".... .a.. .^.. ....", side))
    for other, other_name in DIRECTED:
        task = ruleset(("AgentHold", D, 0), (f"AgentNear{other_name}", A, 0, C))
        expected = turned(f".... .{'c' if other == side else 'a'}.. .^.. ....", side)
        assert shown(act(task, start, FORWARD)) == expected


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize("names", [(A, B), (B, A)])
def test_two_tiles_become_one_where_the_second_was_put(side: int, names: tuple[int, int]):
    task = ruleset(("AgentHold", C, 0), ("TileNear", *names, C))
    state = act(task, room(turned(".b.. .... d^.. ....", side), held=A))
    state = act(task, state, PUT)
    assert shown(state) == turned(".... .c.. d^.. ....", side)
    assert act(task, state, PICK).reached


@pytest.mark.parametrize(("side", "name"), DIRECTED)
def test_two_tiles_on_a_side_become_one(side: int, name: str):
    start = room(turned(".b.. .... .^.. ....", side), held=A)
    for other, other_name in DIRECTED:
        state = act(ruleset(("AgentHold", D, 0), (f"TileNear{other_name}", A, B, C)), start, PUT)
        expected = ".... .c.. .^.. ...." if other == side else ".b.. .a.. .^.. ...."
        assert shown(state) == turned(expected, side)


def test_the_first_rule_that_is_met_is_the_only_one():
    rules = (("AgentNear", D, 0, C), ("AgentNear", B, 0, C), ("AgentNear", A, 0, D))
    task = ruleset(("AgentHold", D, 0), *rules)
    state = act(task, room(".... a.b. .^.. ...."), FORWARD)
    assert shown(state) == ".... a^c. .... ....", "the second, although the third is met, too"
    state = act(task, state, FORWARD, LEFT, LEFT, FORWARD)
    assert shown(state) == ".... dvc. .... ...."


def test_of_two_tiles_of_a_kind_the_first_side_changes():
    task = ruleset(("AgentHold", D, 0), ("AgentNear", A, 0, C))
    assert shown(act(task, room(".a.. a^.. .... ...."), FORWARD)) == ".c.. a^.. .... ...."
    task = ruleset(("AgentHold", D, 0), ("TileNear", A, B, C))
    assert shown(act(task, room(".b.. b.b. .^.. ....", held=A), PUT)) == ".... bcb. .^.. ...."


def test_a_chain_in_one_step_ends_after_a_rule_and_the_goal():
    task = ruleset(("TileNear", C, D), ("TileNear", A, B, C))
    assert act(task, room(".b.. d... .^.. ....", held=A), PUT).reached


# ---- the contract, bounds, players -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"preset": "trivial", "one_hot": False}, {"preset": "small", "size": 8}, {"preset": "high"}], ids=str
)
def test_contract(options: dict, monkeypatch: pytest.MonkeyPatch):
    # stable-baselines3 takes three dimensions for a picture.
    monkeypatch.setattr(families, "_ADVICE", (*families._ADVICE, r".*(is an image|resolution for an image).*"))
    check_family(Rulesets(**options))


@pytest.mark.parametrize("split", ["train", "ood"])
def test_row_of_a_batch_equals_a_batch_of_one(split: str):
    family, n = Rulesets("medium"), 6
    task = family.sample_tasks(rng.key(0), n, split)

    def trace(index: slice) -> Tensor:
        env = BatchEnv(family, take(task, index), rng.key(2), 6, first_row=index.start)
        env.reset()
        seen = []
        for t in range(60):
            actions = rng.integers(rng.fold(rng.fold(rng.key(3), t), torch.arange(n)), 1, 6)[index, 0]
            outcome, step = env.step(actions)
            seen.append(torch.cat([step.obs, outcome.reward[:, None]], dim=1))
        return torch.stack(seen)

    whole = trace(slice(0, n))
    assert all(torch.equal(whole[:, i : i + 1], trace(slice(i, i + 1))) for i in range(n))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"preset": "huge"}, "Unknown preset of Rulesets: 'huge'"),
        ({"size": 5}, "size must be a whole number of at least 6"),
        ({"size": 14}, "size must be from 6 to 13 for the preset 'trivial', got 14"),
        ({"preset": "high", "size": 6}, "size must be from 8 to 13 for the preset 'high', got 6"),
        ({"horizon": 0}, "horizon must be a whole number of at least 1"),
        ({"episodes_per_trial": 0}, "episodes_per_trial must be"),
    ],
)
def test_wrong_options(wrong: dict, message: str):
    with pytest.raises(ValueError, match=message):
        Rulesets(**wrong)


GOOD = ruleset(("AgentHold", A, 0), ("TileNear", A, B, C))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (GOOD._replace(goal=torch.tensor([[0, A, 0]])), "kind of a goal must be from 1 to 11"),
        (GOOD._replace(goal=torch.tensor([[12, A, 0]])), "kind of a goal must be from 1 to 11"),
        (GOOD._replace(goal=torch.tensor([[1, 99, 0]])), "Ruleset.goal must be from 0 to 71, got 99"),
        (GOOD._replace(goal=torch.tensor([[TILES, A, 0]])), "tiles of a goal must be objects"),
        (GOOD._replace(tiles=torch.ones_like(GOOD.tiles)), "must not hold walls"),
        (GOOD._replace(rules=GOOD.rules + torch.tensor([12, 0, 0, 0])), "kind of a rule must be from 0 to 11"),
        (GOOD._replace(rules=GOOD.rules * torch.tensor([1, 0, 1, 1])), "tiles of a rule must be objects"),
    ],
)
def test_wrong_tasks(wrong: Ruleset, message: str):
    checked_task(FAMILY, GOOD)
    with pytest.raises(ValueError, match=message):
        checked_task(FAMILY, wrong)


def test_names_of_tiles():
    assert tile_name(0) == "floor" and tile_name(1) == "wall" and tile_name(A) == "red ball"
    assert len({tile_name(number) for number in range(NUMBERS)}) == NUMBERS == 72
    assert [tile_name(n) for n in range(2, 72) if not can_be_held(torch.tensor(n))] == [f"{c} goal" for c in COLOURS]
    with pytest.raises(ValueError, match="Unknown shape: 'cube'"):
        tile("cube", "red")


def test_fewest_steps_of_a_small_room():
    """Two by two cells, where all starts can be counted by hand; and the kinds that are the same turned around."""
    shares = fewest_steps(2)
    # The object is ahead in one of three cells' 1/2: with 4 directions, next to the agent (2 of 3 cells) it takes
    # 0, 1, 2, 1 turns; across the corner a step is needed: of 4 directions two face the way, two need a turn.
    steps = [0.0] * 6
    for turns in (0, 1, 2, 1):
        steps[turns + 1] += 2 / 3 / 4
    for turns in (0, 0, 1, 1):
        steps[turns + 1 + 1 + 1] += 1 / 3 / 4
    assert shares[HOLD].tolist() == pytest.approx(steps[: len(shares[HOLD])])
    for kinds in (range(NEAR + 1, TILES), range(TILES + 1, len(KINDS))):
        for kind in kinds:
            torch.testing.assert_close(fewest_steps(4)[kind], fewest_steps(4)[kinds[0]])


@pytest.mark.parametrize("kind", range(1, len(KINDS)))
def test_the_bound_is_below_the_shortest_plan_and_near_it(kind: int):
    """By breadth first over all states of a room with only the goal's tiles, from some starts."""
    tiles = torch.tensor([[A, B if kind >= TILES else 0]])
    task = ruleset()._replace(goal=torch.tensor([[kind, A, B if kind >= TILES else 0]]))
    bound, gaps = steps_needed(Rooms(4), kind), []
    for seed in range(8):
        state = FAMILY.reset(task._replace(tiles=torch.cat([tiles, torch.zeros(1, 4).long()], 1)), rng.key(seed)[None])

        def cell(number: int) -> int:
            return 4 * (number // 6 - 1) + number % 6 - 1

        places = [cell(int((state.grid[0] == tile).nonzero())) for tile in tiles[0].tolist() if tile]
        least = int(bound[(4 * cell(int(state.position)) + int(state.direction), *places)])
        gaps.append(shortest_plan(task, state) - least)
    assert min(gaps) >= 0 and sum(gaps) <= 12, gaps


def shortest_plan(task: Ruleset, state: Room) -> int:
    """Steps to the goal from one state."""
    seen: set[tuple[int, ...]] = set()
    for steps in range(1, 100):
        n = len(state.position)
        many = take(state, torch.arange(n).repeat_interleave(5))
        tasks = take(task, torch.zeros(5 * n, dtype=torch.int64))
        state, _, ended = FAMILY.step(tasks, many, torch.arange(5).repeat(n), torch.zeros(5 * n, dtype=torch.int64))
        if bool(ended.any()):
            return steps
        rows = torch.cat([state.grid, state.position[:, None], state.direction[:, None], state.held[:, None]], 1)
        fresh = []
        for i, row in enumerate(map(tuple, rows.tolist())):
            if row not in seen:
                seen.add(row)
                fresh.append(i)
        state = take(state, torch.tensor(fresh))
    raise AssertionError("there is no plan")


@pytest.mark.parametrize("preset", ["trivial", "small"])
def test_the_oracle_keeps_below_the_bound_and_solves_nearly_all(preset: str):
    family = Rulesets(preset)
    task = family.sample_tasks(rng.key(0), 60, "test")
    curve = evaluate(baseline("oracle", family), family, tasks=task, episodes=1)
    returns = torch.as_tensor(curve.returns[0, :, 0])
    assert float((returns > 0).float().mean()) > 0.9
    assert float(returns.mean()) < float(family.oracle(task).mean())
    assert float(returns.mean()) > 0.8


def test_the_oracle_needs_the_direction():
    with pytest.raises(ValueError, match="needs observations with one_hot=True"):
        baseline("oracle", Rulesets(one_hot=False))
