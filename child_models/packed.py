"""Weights side by side in one array, so that a loop slices one and not many.

A supernet's loop over edges has every weight of every branch of an edge; handed over
one by one, slicing them and adding up their gradients costs more than the branch.
"""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp


def pack(tree: Any, axes: int = 1) -> jax.Array:
    """Arrays ``[E, ...]`` side by side, ``[E, n]``.

    Args:
      tree: of arrays whose first axes are the same.
      axes: how many these are; E stands for all of them.
    """
    arrays = [a.reshape(*a.shape[:axes], -1) for a in jax.tree.leaves(tree)]
    return jnp.concatenate(arrays, axis=-1)


def unpack(row: jax.Array, shapes: Any) -> Any:
    """The arrays in a row ``[n]`` of `pack`.

    Args:
      row: of trees that were packed; whatever it has beyond them is left out.
      shapes: the arrays' without their first axes: tuples, in dicts like the trees.
    """
    wanted, treedef = jax.tree.flatten(shapes, is_leaf=lambda s: isinstance(s, tuple))
    sizes = [math.prod(shape) for shape in wanted]
    # Not by slices, whose gradients are added up, each as long as the row.
    parts = jax.lax.split(row, [*sizes, len(row) - sum(sizes)])[: len(sizes)]
    arrays = [p.reshape(shape) for p, shape in zip(parts, wanted, strict=True)]
    return jax.tree.unflatten(treedef, arrays)


@flax.struct.dataclass
class ChosenWeights:
    """The weights of the branch that each of some sampled choices takes.

    Attributes:
      values: ``[E, n]``, packed; n is the size of the largest branch.
      layouts: tree and shapes of each branch's weights.
    """

    values: jax.Array
    layouts: tuple[Any, ...] = flax.struct.field(pytree_node=False)

    def branch(self, number: int) -> Any:
        """The weights of one choice, ``values[n]``, if it takes that branch."""
        treedef, shapes = self.layouts[number]
        return unpack(self.values, jax.tree.unflatten(treedef, shapes))


def chosen_weights(params: Any, choice: jax.Array, branches: int) -> ChosenWeights:
    """Takes the chosen branches' weights out of those of all branches.

    Args:
      params: of a `Choose` in a lifted loop, by "branch_N": trees of ``[E, ...]``.  A
        branch without weights may be absent.
      choice: int32[E]; E stands for any number of axes.
      branches: their number.
    """
    layouts, rows = [], []
    for i in range(branches):
        leaves, treedef = jax.tree.flatten(params.get(f"branch_{i}", {}))
        layouts.append((treedef, tuple(a.shape[choice.ndim :] for a in leaves)))
        rows.append(pack(leaves or [jnp.zeros((*choice.shape, 0))], choice.ndim))
    longest = max(row.shape[-1] for row in rows)
    rows = [
        jnp.pad(row, [(0, 0)] * choice.ndim + [(0, longest - row.shape[-1])])
        for row in rows
    ]
    which = jnp.broadcast_to(choice[..., None], rows[0].shape)
    return ChosenWeights(jax.lax.select_n(which, *rows), tuple(layouts))
