"""Walks over trees of tensors: each does to every leaf what it does to a single tensor, and keeps the containers."""

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from metarl.core import rng
from metarl.core.tree import (
    columns,
    concatenate,
    detach,
    features,
    join_columns,
    leaves,
    named_leaves,
    num_bytes,
    num_rows,
    put,
    split_columns,
    stack,
    take,
    to_device,
    tree_map,
    where,
)


class Inner(NamedTuple):
    place: Tensor  # (B, 2)
    seen: Tensor  # (B,) bool


class Outer(NamedTuple):
    inner: Inner
    count: Tensor  # (B,) int64
    memory: tuple[Tensor, ...]


def outer(seed: int, *shape: int) -> Outer:
    """A tree with random leaves of the leading dimensions `shape`."""
    key = rng.fold(rng.key(seed), torch.arange(int(torch.tensor(shape).prod())).reshape(shape))
    place = rng.normal(key, 2)
    inner = Inner(place, place[..., 0] > 0)
    return Outer(inner, rng.integers(key, 1, 9)[..., 0], (rng.uniform(key, 3), rng.uniform(key, 4)))


def same(a: Any, b: Any) -> bool:
    """Whether the trees have the same containers and equal leaves."""
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))


ROWS = torch.tensor([3, 0, 4])


@pytest.mark.parametrize(
    ("walk", "one"),
    [
        (lambda tree: take(tree, ROWS), lambda x: x[[3, 0, 4]]),
        (lambda tree: take(tree, slice(1, 3)), lambda x: x[1:3]),
        (lambda tree: take(tree, torch.arange(6) % 2 == 0), lambda x: x[::2]),
        (lambda tree: take(tree, 2), lambda x: x[2]),
        (lambda tree: to_device(tree, "meta"), lambda x: x.to("meta")),
        (detach, lambda x: x),
    ],
    ids=["indices", "slice", "mask", "number", "device", "detach"],
)
def test_a_walk_does_to_every_leaf_what_it_does_to_a_tensor(walk: Any, one: Any):
    tree = outer(0, 6)
    found = walk(tree)
    expected = Outer(Inner(*map(one, tree.inner)), one(tree.count), tuple(map(one, tree.memory)))
    if found.count.is_meta:
        assert all(leaf.is_meta for leaf in leaves(found)) and not any(leaf.is_meta for leaf in leaves(tree))
    else:
        assert same(found, expected) and same(walk(tree.count), one(tree.count)), "a tensor is a tree, too"


def test_what_was_put_is_what_is_taken():
    whole, part = outer(0, 6), outer(1, 3)
    changed = put(whole, ROWS, part)
    others = torch.tensor([1, 2, 5])
    assert same(take(changed, ROWS), part) and same(take(changed, others), take(whole, others))
    assert same(whole, outer(0, 6)), "the tree that was given is as it was"


def test_where_chooses_by_row():
    new, old = outer(0, 6), outer(1, 6)
    mask = torch.tensor([True, False, False, True, True, False])
    assert same(take(where(mask, new, old), mask), take(new, mask))
    assert same(take(where(mask, new, old), ~mask), take(old, ~mask))
    rows = mask.nonzero()[:, 0]
    assert same(where(mask, new, old), put(old, rows, take(new, rows)))


def test_parts_make_the_whole():
    tree, rollout = outer(0, 7), outer(1, 5, 7)
    assert same(concatenate([take(tree, slice(0, 2)), take(tree, slice(2, 7))]), tree)
    assert same(stack([take(tree, i) for i in range(7)]), tree)
    assert same(join_columns(split_columns(rollout, 3)), rollout)
    assert [num_rows(take(part, 0)) for part in split_columns(rollout, 3)] == [3, 2, 2]
    assert join_columns([rollout]) is rollout


def test_columns_are_rows_at_every_time():
    rollout = outer(0, 5, 7)
    picked = columns(rollout, ROWS)
    assert all(same(take(picked, t), take(take(rollout, t), ROWS)) for t in range(5))


def test_detached_tensors_have_no_graph():
    tree = Inner(torch.ones(3, 2, requires_grad=True) * 2.0, torch.ones(3, dtype=torch.bool))
    assert tree.place.requires_grad and not detach(tree).place.requires_grad
    assert detach(()) == () and take((), ROWS) == (), "a tree without leaves"


def test_features_are_all_numbers_of_a_row():
    tree = outer(0, 6)
    place, seen, count, *memory = leaves(tree)
    flat = torch.cat([place, seen[:, None].float(), count[:, None].float(), *memory], dim=1)
    assert features(tree).dtype == torch.float32 and torch.equal(features(tree), flat)
    assert torch.equal(features(take(tree, ROWS)), features(tree)[ROWS])


def test_leaves_are_in_order_and_named_by_field():
    tree = outer(0, 6)
    named = named_leaves(Inner(tree.inner.place, tree.inner.seen))
    assert list(named) == ["place", "seen"] and named["place"] is tree.inner.place
    nested = Outer(tree.inner, tree.count, ())._replace(memory=tree.inner)  # type: ignore[arg-type]
    assert list(named_leaves(nested)) == ["inner.place", "inner.seen", "count", "memory.place", "memory.seen"]
    assert all(a is b for a, b in zip(named_leaves(nested).values(), leaves(nested), strict=True))
    assert num_rows(tree) == 6 and num_bytes(tree) == 6 * (2 * 4 + 1 + 8 + 3 * 4 + 4 * 4)


def test_dictionaries_lists_and_numbers():
    tree = {"a": [torch.zeros(2), torch.ones(3)], "b": (5, None), "c": torch.ones(1)}
    assert [len(leaf) for leaf in leaves(tree)] == [2, 3, 1], "what is no tensor is no leaf to count"
    moved = tree_map(lambda leaf, other: (leaf, other), tree, {"a": [1, 2], "b": "xy", "c": 3})
    assert moved["b"] == ((5, "x"), (None, "y")) and moved["a"][1][1] == 2 and moved["c"][1] == 3


def test_trees_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        tree_map(lambda a, b: a, (torch.ones(1), torch.ones(1)), (torch.ones(1),))
    with pytest.raises(KeyError, match="a"):
        tree_map(lambda a, b: a, {"a": torch.ones(1)}, {"b": torch.ones(1)})


def test_walks_can_be_compiled():
    torch.compiler.reset()
    tree, other, mask = outer(0, 6), outer(1, 6), torch.arange(6) % 2 == 0
    compiled = torch.compile(lambda: where(mask, take(tree, slice(0, 6)), other), fullgraph=True, backend="eager")
    assert same(compiled(), where(mask, tree, other))
