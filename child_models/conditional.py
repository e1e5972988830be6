"""A conditional over branches, with a VJP of its own.

JAX's makes every branch return the residuals of all branches.  Here the branches share
slots for theirs, so that the memory is that of the largest branch, and only what
`child_models.ops.kept.keep` marks is saved: the rest is computed again.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp

from child_models.ops.kept import POLICY

Branch = Callable[[Any, Any], Any]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def switch(branches, index, differentiable, other):
    """``branches[index](differentiable, other)``.

    Args:
      branches: functions of two pytrees that close over static Python only.
      index: int32[].
      differentiable: pytree of inexact arrays, which get gradients.
      other: pytree of keys and integers, which get none.
    """
    return jax.lax.switch(index, branches, differentiable, other)


class _Layout(NamedTuple):
    """A branch's pullback without its arrays."""

    treedef: Any
    places: tuple[int, ...]  # of each array, among the operands and then the slots


@flax.struct.dataclass
class Saved:
    """What `backward` needs beside the arguments of `switch`."""

    slots: list[jax.Array]
    layouts: tuple[_Layout, ...] = flax.struct.field(pytree_node=False)


def forward(
    branches: Sequence[Branch], index: jax.Array, differentiable: Any, other: Any
) -> tuple[Any, Saved]:
    """What `switch` returns, and what its gradient saves."""
    layouts, shapes = _layouts(branches, differentiable, other)
    first_slot = len(jax.tree.leaves((differentiable, other)))

    def run(branch, layout, differentiable, other):
        out, pullback = _vjp(branch, differentiable, other)
        found = dict(zip(layout.places, jax.tree.leaves(pullback), strict=True))
        slots = [
            found.get(first_slot + i, jnp.zeros(s.shape, s.dtype))
            for i, s in enumerate(shapes)
        ]
        return out, slots

    pairs = zip(branches, layouts, strict=True)
    runs = [functools.partial(run, *pair) for pair in pairs]
    out, slots = jax.lax.switch(index, runs, differentiable, other)
    return out, Saved(slots, layouts)


def backward(
    saved: Saved, index: jax.Array, differentiable: Any, other: Any, cotangent: Any
) -> Any:
    """The gradient of `switch` with respect to `differentiable`."""

    def run(layout, differentiable, other, slots, cotangent):
        arrays = jax.tree.leaves((differentiable, other)) + slots
        leaves = [arrays[place] for place in layout.places]
        return jax.tree.unflatten(layout.treedef, leaves)(cotangent)[0]

    runs = [functools.partial(run, layout) for layout in saved.layouts]
    return jax.lax.switch(index, runs, differentiable, other, saved.slots, cotangent)


def _switch_fwd(branches, *arguments):
    out, saved = forward(branches, *arguments)
    return out, (saved, *arguments)


def _switch_bwd(branches, residuals, cotangent):
    del branches  # their pullbacks are in the residuals
    return None, backward(*residuals, cotangent), None


switch.defvjp(_switch_fwd, _switch_bwd)


def _vjp(branch, differentiable, other):
    # The primal output of jax.vjp has no custom VJP left in it, so that a JVP of the
    # gradient works.  Nothing undoes the savings: each is in a branch of its own.
    branch = jax.checkpoint(branch, policy=POLICY, prevent_cse=False)
    return jax.vjp(lambda d: branch(d, other), differentiable)


def _layouts(branches, differentiable, other):
    """The branches' layouts, and the shapes of the slots that they share."""
    found = []

    def trace(branch, differentiable, other):
        operands = jax.tree.leaves((differentiable, other))
        leaves, treedef = jax.tree.flatten(_vjp(branch, differentiable, other)[1])
        same = [[i for i, x in enumerate(operands) if x is leaf] for leaf in leaves]
        found.append((treedef, [i[0] if i else None for i in same]))
        return leaves

    layouts, slots = [], []
    count = len(jax.tree.leaves((differentiable, other)))
    for branch in branches:
        leaves = jax.eval_shape(
            functools.partial(trace, branch), differentiable, other
        )
        treedef, places = found.pop()
        free = list(range(len(slots)))
        for i, leaf in enumerate(leaves):
            if places[i] is None:
                fits = [s for s in free if slots[s] == leaf]
                if not fits:
                    slots.append(leaf)
                    fits = [len(slots) - 1]
                else:
                    free.remove(fits[0])
                places[i] = count + fits[0]
        layouts.append(_Layout(treedef, tuple(places)))
    return tuple(layouts), slots
