"""Exactly K episodes per row, three kinds of ending, and the row as the unit of randomness."""

import gymnasium
import pytest
import torch
from small_families import Corridor, Length, Reach, TwoDoors

from metarl.core import rng
from metarl.core.batch_env import BatchEnv
from metarl.core.tree import take
from metarl.core.units import NO_ACTION, no_action
from metarl.fast.stepping import FastEnv

LENGTHS = torch.tensor([1, 2, 4, 6, 9])  # the last cannot be reached in 6 steps


@pytest.fixture(autouse=True, params=[BatchEnv, FastEnv], ids=["plain", "fast"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test holds for the definition of a step and for its fast twin."""
    monkeypatch.setitem(globals(), "BatchEnv", request.param)


def ones(env: BatchEnv) -> torch.Tensor:
    return torch.ones(env.num_envs, dtype=torch.int64)


def play(env: BatchEnv, actions: torch.Tensor | None = None) -> list:
    """(alive before, outcome, next step) of every step; walks on unless actions (T, B) are given."""
    env.reset()
    out = []
    while not env.all_done():
        alive = env.alive
        action = ones(env) if actions is None else actions[len(out)]
        out.append((alive, *env.step(action)))
    return out


def test_every_row_plays_exactly_k_episodes():
    env = BatchEnv(Corridor(episodes_per_trial=3), Length(LENGTHS), rng.key(0))
    steps = play(env)
    alive = torch.stack([a for a, _, _ in steps])
    done = torch.stack([(o.terminated | o.truncated) for _, o, _ in steps])
    assert (done & alive).sum(0).tolist() == [3] * 5
    assert alive.sum(0).tolist() == [3, 6, 12, 18, 18], "three episodes of 1, 2, 4, 6 and 6 steps"
    assert len(steps) == 18, "as long as the slowest row, no longer"
    assert not bool((alive[1:] & ~alive[:-1]).any()), "a row that is done stays done"


def test_a_row_stops_the_batch_when_all_are_done():
    env = BatchEnv(Corridor(episodes_per_trial=3), Length(torch.tensor([1, 2])), rng.key(0))
    assert len(play(env)) == 6 < env.max_steps


def test_terminated_and_truncated_exclude_each_other():
    env = BatchEnv(Corridor(episodes_per_trial=1), Length(LENGTHS), rng.key(0))
    steps = play(env)
    last = steps[-1][1]
    assert last.terminated[3] and not last.truncated[3], "the goal at the last moment is a termination"
    assert last.truncated[4] and not last.terminated[4]


def test_the_borders_inside_a_trial():
    env = BatchEnv(Corridor(episodes_per_trial=2), Length(torch.tensor([2])), rng.key(4))
    first = env.reset()
    assert first.prev_action.tolist() == [NO_ACTION] and first.prev_reward.tolist() == [0.0]
    assert first.prev_done.tolist() == [0.0]
    _, second = env.step(ones(env))
    assert second.prev_done.tolist() == [0.0] and second.obs[0, 0] == pytest.approx(0.1)
    outcome, third = env.step(ones(env))
    assert outcome.terminated.tolist() == [True]
    assert outcome.final_obs[0, 0] == pytest.approx(0.2), "the last observation of the episode that ended is kept"
    assert outcome.final_obs[0, 1] == first.obs[0, 1]
    assert third.obs[0, 0] == 0.0 and third.obs[0, 1] != first.obs[0, 1], "the next episode starts afresh"
    assert third.prev_done.tolist() == [1.0]
    assert torch.equal(third.prev_reward, outcome.reward) and third.prev_action.tolist() == [1]
    assert env.final_state.place.tolist() == [2] and env.state.place.tolist() == [0]


def test_other_rows_go_on_while_one_begins_again():
    env = BatchEnv(Corridor(), Length(torch.tensor([1, 4])), rng.key(0))
    env.reset()
    _, step = env.step(ones(env))
    assert step.obs[:, 0].tolist() == pytest.approx([0.0, 0.1])
    assert step.prev_done.tolist() == [1.0, 0.0]
    assert env.episode.tolist() == [1, 0]


def test_an_episode_of_one_step():
    env = BatchEnv(TwoDoors(episodes_per_trial=4), TwoDoors().sample_tasks(rng.key(0), 3), rng.key(0))
    steps = play(env)
    assert len(steps) == 4
    assert all(bool(o.truncated.all()) and not bool(o.terminated.any()) for _, o, _ in steps)
    assert all(bool(s.prev_done.all()) for _, _, s in steps)


def test_the_empty_action_of_a_box_is_zero():
    family = Reach()
    step = BatchEnv(family, family.sample_tasks(rng.key(0), 2), rng.key(0)).reset()
    assert torch.equal(step.prev_action, torch.zeros(2, 2))


def random_actions(steps: int, rows: int) -> torch.Tensor:
    return rng.integers(rng.fold(rng.key(9), torch.arange(steps)), rows, 2)


def equal(a: list, b: list, rows: slice) -> bool:
    """Whether the run `b` is what the rows of the run `a` are, for as long as both last."""
    pairs = [(x, y) for (_, *p), (_, *q) in zip(a, b) for s, t in zip(p, q) for x, y in zip(s, t)]
    return all(torch.equal(x[rows], y) for x, y in pairs)


@pytest.mark.parametrize("rows", [slice(0, 1), slice(3, 4), slice(0, 4), slice(4, 9)])
def test_a_shard_is_its_part_of_the_batch(rows: slice):
    family, key = Corridor(), rng.key(1)
    task, actions = family.sample_tasks(key, 9), random_actions(18, 9)
    whole = play(BatchEnv(family, task, key), actions)
    shard = play(BatchEnv(family, take(task, rows), key, first_row=rows.start), actions[:, rows])
    assert len(shard) >= 3 and equal(whole, shard, rows)
    moved = play(BatchEnv(family, take(task, rows), key, first_row=rows.start + 1), actions[:, rows])
    assert not equal(whole, moved, rows), "the noise must depend on the row"


def test_reset_repeats_the_trial():
    family, key = Corridor(), rng.key(1)
    env, actions = BatchEnv(family, family.sample_tasks(key, 5), key), random_actions(18, 5)
    assert equal(play(env, actions), play(env, actions), slice(None))


def test_a_restarted_row_is_a_row_of_a_batch_that_starts_then():
    family, key = Corridor(), rng.key(1)
    task, other = family.sample_tasks(key, 5), Length(torch.tensor([4, 2]))
    env = BatchEnv(family, task, key)
    untouched = BatchEnv(family, task, key)
    fresh = BatchEnv(family, other, key, first_row=30)
    for e in (env, untouched):
        e.reset()
        for _ in range(3):
            e.step(ones(e))
    rows = torch.tensor([3, 1])
    first, expected = env.restart(rows, other, first_row=30), fresh.reset()
    assert all(torch.equal(a, b) for a, b in zip(first, expected))
    for t in range(10):
        a, b, c = env.step(ones(env)), fresh.step(ones(fresh)), untouched.step(ones(untouched))
        for got, new, old in zip([*a[0], *a[1]], [*b[0], *b[1]], [*c[0], *c[1]]):
            assert torch.equal(got[rows], new), t
            assert torch.equal(got[[0, 2, 4]], old[[0, 2, 4]]), t
        assert torch.equal(env.alive[rows], fresh.alive)


@pytest.mark.parametrize("after", [1, 2, 3, 4])
def test_rows_restart_at_any_time_where_no_episode_ends_early(after: int):
    """Then rows are no longer in step: each is truncated at its own horizon, and noise and starts are its own."""
    family, key, other = Reach(horizon=3, episodes_per_trial=2), rng.key(1), rng.key(9)
    task = family.sample_tasks(key, 5)
    env, untouched = (BatchEnv(family, task, key) for _ in range(2))
    own = rng.fold(other, torch.tensor([7, 3]))
    rows = torch.tensor([3, 1])
    fresh = BatchEnv(family, take(task, rows), own)
    action = 0.5 * torch.ones(5, 2)
    for e in (env, untouched):
        e.reset()
        for _ in range(after):
            e.step(action)
    first, expected = env.restart(rows, take(task, rows), key=own), fresh.reset()
    assert all(torch.equal(a, b) for a, b in zip(first, expected))
    for t in range(6):
        a, b, c = env.step(action), fresh.step(action[:2]), untouched.step(action)
        for got, new, old in zip([*a[0], *a[1]], [*b[0], *b[1]], [*c[0], *c[1]]):
            assert torch.equal(got[rows], new), t
            assert torch.equal(got[[0, 2, 4]], old[[0, 2, 4]]), t
        assert torch.equal(env.alive[rows], fresh.alive)


def test_rows_with_keys_of_their_own():
    family, keys = Corridor(), rng.fold(rng.key(3), torch.tensor([5, 0, 8]))
    task = family.sample_tasks(rng.key(1), 3)
    together = play(BatchEnv(family, task, keys), random_actions(18, 3))
    for row, number in enumerate((5, 0, 8)):
        one = BatchEnv(family, take(task, slice(row, row + 1)), rng.key(3), first_row=number)
        assert equal(together, play(one, random_actions(18, 3)[:, row : row + 1]), slice(row, row + 1))


@pytest.mark.parametrize("start", [0, 1, -1])
def test_no_action_is_no_action_of_the_space(start: int):
    space = gymnasium.spaces.Discrete(3, start=start)
    nothing = no_action(space, 2)
    assert nothing.dtype == torch.int64 and nothing.shape == (2,) and int(nothing[0]) not in space
    assert no_action(gymnasium.spaces.Discrete(3), 1).tolist() == [NO_ACTION]
    assert no_action(gymnasium.spaces.Box(-1, 1, (2,)), 3).tolist() == [[0, 0]] * 3


def test_a_trial_without_episodes_is_refused():
    with pytest.raises(ValueError, match="episodes must be a whole number of at least 1"):
        BatchEnv(Corridor(), Length(LENGTHS), rng.key(0), episodes=0)


def test_a_family_without_noise_gets_no_new_keys():
    """`noisy = False` promises that `step` ignores its key; the fast environment makes none for every step."""
    seen: list[torch.Tensor] = []

    class Still(Corridor):
        noisy = False

        def step(self, task, state, action, key):
            seen.append(key)
            return super().step(task, state, action, key)

    env = FastEnv(Still(), Length(LENGTHS), rng.key(0))
    env.reset()
    for _ in range(3):
        env.step(ones(env))
    assert torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])


def test_a_family_without_random_starts_gets_no_new_keys():
    """`random_start = False` promises that `reset` ignores its key; what it is given then is the same every time."""
    seen: list[torch.Tensor] = []

    class Fixed(Corridor):
        random_start = False

        def reset(self, task, key):
            seen.append(key)
            return super().reset(task, key)

    env = FastEnv(Fixed(), Length(torch.tensor([1, 1, 1])), rng.key(0), episodes=3)
    env.reset()
    for _ in range(2):
        env.step(ones(env))
    assert len(seen) > 1 and all(torch.equal(key, seen[0]) for key in seen)


@pytest.mark.parametrize("rows", [3, 40])
def test_rows_that_start_again_alone_do_as_in_a_whole_batch(rows: int):
    """Few rows that end are reset by themselves, many all at once: the same episodes either way."""
    lengths = Length(torch.tensor([1] + [5] * (rows - 1)))  # the first row ends at every step, the others together
    env = BatchEnv(Corridor(episodes_per_trial=9), lengths, rng.key(0))
    step, marks = env.reset(), []
    for _ in range(12):
        marks.append(step.obs[:, 1])
        _, step = env.step(torch.ones(rows, dtype=torch.int64))
    for row in range(rows):
        alone = BatchEnv(Corridor(episodes_per_trial=9), take(lengths, slice(row, row + 1)), rng.key(0), first_row=row)
        step = alone.reset()
        for t in range(12):
            assert step.obs[0, 1] == marks[t][row]
            _, step = alone.step(torch.ones(1, dtype=torch.int64))


@pytest.mark.parametrize(
    "wrong",
    [
        [1] * 5, torch.tensor(1), torch.ones(1, dtype=torch.int64), torch.ones(4, dtype=torch.int64),
        torch.ones(5, 1, dtype=torch.int64), torch.ones(5), torch.ones(5, dtype=torch.int32),
    ],
)  # fmt: skip
def test_an_action_that_would_broadcast_or_is_of_another_type_is_refused(wrong: object):
    env = BatchEnv(Corridor(), Length(LENGTHS), rng.key(0))
    env.reset()
    with pytest.raises(ValueError, match=r"action must be a tensor of int64 of shape \(5,\), an action for each"):
        env.step(wrong)
    env.step(ones(env))


@pytest.mark.parametrize("wrong", [torch.zeros(2), torch.zeros(1, 2), torch.zeros(3, 2, dtype=torch.float64)])
def test_an_action_of_a_box_is_float32_of_its_shape(wrong: torch.Tensor):
    env = BatchEnv(Reach(), Reach().sample_tasks(rng.key(0), 3), rng.key(0))
    env.reset()
    with pytest.raises(ValueError, match=r"action must be a tensor of float32 of shape \(3, "):
        env.step(wrong)
