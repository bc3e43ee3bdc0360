"""Operations on trees of tensors: tasks, states, steps, rollouts and memories.

A *tree* is a NamedTuple, tuple, list or dictionary of trees, or a *leaf*: anything else, usually a tensor. All
functions use `tree_map`, except `named_leaves`, which also needs names. Containers keep their types, and nothing is
modified in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Tree = TypeVar("Tree")


class Column(Sequence[Any]):
    """A leaf with one Python object per row, such as the simulator that plays the row.

    `take` and `put` treat it like a tensor. A copy holds the same objects.
    """

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        """Return the object of one row, or a column with the rows of a slice, an index tensor or a mask."""
        if isinstance(index, int):
            return self.items[index]
        if isinstance(index, slice):
            return Column(self.items[index])
        rows = index.nonzero().squeeze(-1) if index.dtype is torch.bool else index
        return Column([self.items[row] for row in rows.tolist()])

    def index_copy(self, dim: int, rows: Tensor, new: Column) -> Column:
        """Return a column with the objects of `rows` replaced; `dim` is 0, as for a tensor of one dimension."""
        items = list(self.items)
        for row, item in zip(rows.tolist(), new.items, strict=True):
            items[row] = item
        return Column(items)

    def where(self, rows: Tensor, other: Column) -> Column:
        """Return a column with this column's objects where `rows`, bool ``(B,)``, is true, and `other`'s elsewhere."""
        return Column([a if own else b for own, a, b in zip(rows.tolist(), self.items, other.items, strict=True)])

    def to(self, device: torch.device | str) -> Column:
        """Return the column itself, since its objects are on no device."""
        return self

    def __deepcopy__(self, memo: Any) -> Column:
        return self

    def __repr__(self) -> str:
        return f"Column of {len(self)}"


def tree_map(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """Return a tree like `tree` with leaves ``f(leaf, *parts)``, where `parts` are at the same place in the others.

    The other trees must have at least the containers of `tree`. If one has a container in place of a leaf, `f` gets the
    container. Raises ValueError for containers of different lengths and KeyError for different keys.
    """
    if isinstance(tree, (tuple, list)):
        # Avoid a recursive call per tensor, since a batch environment maps its state at every step.
        parts = [f(*at) if isinstance(at[0], Tensor) else tree_map(f, *at) for at in zip(tree, *others, strict=True)]
        kind: Any = type(tree)
        return kind(parts) if kind is tuple or kind is list else kind(*parts)
    if isinstance(tree, dict):
        return {name: tree_map(f, part, *(other[name] for other in others)) for name, part in tree.items()}
    return f(tree, *others)


def leaves(tree: Any) -> list[Tensor]:
    """Return the tensors of a tree, in order, without other leaves such as numbers."""
    found: list[Any] = []
    tree_map(found.append, tree)
    return [leaf for leaf in found if isinstance(leaf, Tensor)]


def named_leaves(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Return the leaves of a tree of NamedTuples by field, in order; nested ones as ``field.inner``."""
    found: dict[str, Any] = {}
    for name, part in zip(type(tree)._fields, tree, strict=True):
        nested = isinstance(part, tuple)
        found |= named_leaves(part, f"{prefix}{name}.") if nested else {f"{prefix}{name}": part}
    return found


def num_rows(tree: Any) -> int:
    """Return the number of rows of a task or a state: the leading dimension of its first tensor."""
    return len(leaves(tree)[0])


def num_bytes(tree: Any) -> int:
    """Return the total size of the tensors of a tree, in bytes."""
    return sum(leaf.nbytes for leaf in leaves(tree))


def take(tree: Tree, index: Any) -> Tree:
    """Take part `index` of the first dimension of every tensor: rows, or time steps of ``(T, B, …)``.

    `index` is a number, a slice, an index tensor or a mask, as in ``tensor[index]``.
    """
    taken: Tree = tree_map(lambda leaf: leaf[index], tree)
    return taken


def columns(tree: Tree, index: Tensor) -> Tree:
    """Take the rows `index`, int64 ``(M,)``, of ``(T, B, …)`` tensors: ``(T, M, …)``."""
    taken: Tree = tree_map(lambda leaf: leaf.index_select(1, index), tree)
    return taken


def split_columns(tree: Tree, number: int) -> list[Tree]:
    """Split the rows of ``(T, B, …)`` tensors into `number` parts of nearly equal size."""
    pieces = tree_map(lambda leaf: leaf.tensor_split(number, 1), tree)
    return [tree_map(lambda _, parts, n=n: parts[n], tree, pieces) for n in range(number)]


def join_columns(trees: Sequence[Tree]) -> Tree:
    """Join the rows of trees of ``(T, B, …)`` tensors with the same T; a single tree is returned unchanged."""
    if len(trees) == 1:
        return trees[0]
    whole: Tree = tree_map(lambda *parts: torch.cat(parts, dim=1), *trees)
    return whole


def put(whole: Tree, rows: Tensor, part: Tree) -> Tree:
    """Return `whole` with the rows at the indices `rows`, int64 ``(M,)``, replaced by the M rows of `part`."""
    changed: Tree = tree_map(lambda leaf, new: leaf.index_copy(0, rows, new), whole, part)
    return changed


def where(rows: Tensor, new: Tree, old: Tree) -> Tree:
    """Return `new` in the rows where `rows`, bool ``(B,)``, is true, and `old` in all others."""

    def chosen(leaf: Any, other: Any) -> Any:
        if isinstance(leaf, Column):
            return leaf.where(rows, other)
        return torch.where(rows.reshape(-1, *[1] * (leaf.ndim - 1)), leaf, other)

    mixed: Tree = tree_map(chosen, new, old)
    return mixed


def concatenate(trees: Sequence[Tree]) -> Tree:
    """Join several trees, such as tasks or states of one family, along the first dimension."""
    whole: Tree = tree_map(lambda *parts: torch.cat(parts), *trees)
    return whole


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack T trees of ``(B, …)`` tensors into one tree of ``(T, B, …)`` tensors."""
    whole: Tree = tree_map(lambda *parts: torch.stack(parts), *trees)
    return whole


def to_device(tree: Tree, device: torch.device | str) -> Tree:
    """Return the tree with its tensors on `device`."""
    moved: Tree = tree_map(lambda leaf: leaf.to(device), tree)
    return moved


def detach(tree: Tree) -> Tree:
    """Return the tree with its tensors detached from autograd's graph."""
    cut: Tree = tree_map(lambda leaf: leaf.detach(), tree)
    return cut


def features(tree: Any) -> Tensor:
    """Flatten each row of a tree to one float32 vector, ``(B, D)``, such as the task input of a network."""
    return torch.cat([leaf[:, None].flatten(1).to(torch.float32) for leaf in leaves(tree)], dim=1)


def chunks(rows: int, size: int) -> list[tuple[slice, float]]:
    """Split `rows` rows into slices of at most `size` rows, each with its fraction of all rows."""
    parts = [slice(start, min(start + size, rows)) for start in range(0, rows, size)]
    return [(part, (part.stop - part.start) / rows) for part in parts]
