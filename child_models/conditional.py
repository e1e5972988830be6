"""A conditional over branches, with a VJP of its own.

JAX's makes every branch return the residuals of all branches.  Here the branches share
slots for theirs, so that the memory is that of the largest branch, and only what
`child_models.ops.kept.keep` marks is saved: the rest is computed again.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax

from child_models.ops.kept import KEPT, NOTHING


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def switch(branches, remat, index, differentiable, other):
    """``branches[index](differentiable, other)``.

    Args:
      branches: functions of two pytrees that close over static Python only.
      remat: saves nothing: a branch is computed again for its gradient.
      index: int32[].
      differentiable: pytree of inexact arrays, which get gradients.
      other: pytree of keys and integers, which get none.
    """
    return jax.lax.switch(index, branches, differentiable, other)


def _switch_fwd(branches, remat, index, differentiable, other):
    pullback_of = functools.partial(_vjp, remat)
    layouts, shapes = _layouts(branches, pullback_of, differentiable, other)
    first_slot = len(jax.tree.leaves((differentiable, other)))

    def run(branch, layout, differentiable, other):
        out, pullback = pullback_of(branch, differentiable, other)
        found = dict(zip(layout.places, jax.tree.leaves(pullback), strict=True))
        like = jax.tree.leaves(out)[0]  # under `shard_map` all vary over the same axes
        slots = [
            found.get(first_slot + i, jax.lax.full_like(like, 0, s.dtype, s.shape))
            for i, s in enumerate(shapes)
        ]
        return out, slots

    pairs = zip(branches, layouts, strict=True)
    runs = [functools.partial(run, *pair) for pair in pairs]
    out, slots = jax.lax.switch(index, runs, differentiable, other)
    return out, (_Saved(slots, layouts), index, differentiable, other)


def _switch_bwd(branches, remat, residuals, cotangent):
    del branches, remat  # the pullbacks are in the residuals
    saved, index, differentiable, other = residuals

    def run(layout, differentiable, other, slots, cotangent):
        arrays = jax.tree.leaves((differentiable, other)) + slots
        leaves = [arrays[place] for place in layout.places]
        return jax.tree.unflatten(layout.treedef, leaves)(cotangent)[0]

    runs = [functools.partial(run, layout) for layout in saved.layouts]
    operands = (differentiable, other, saved.slots, cotangent)
    return None, jax.lax.switch(index, runs, *operands), None


switch.defvjp(_switch_fwd, _switch_bwd)


# ---- what is saved ------------------------------------------------------------------


class _Layout(NamedTuple):
    """A branch's pullback without its arrays."""

    treedef: Any
    places: tuple[int, ...]  # of each array, among the operands and then the slots


@flax.struct.dataclass
class _Saved:
    """What the gradient needs beside the arguments of `switch`."""

    slots: list[jax.Array]
    layouts: tuple[_Layout, ...] = flax.struct.field(pytree_node=False)


def recomputed(branch: Callable[..., Any], remat: bool) -> Callable[..., Any]:
    """The branch, of which the gradient keeps what that of `switch` does.

    Nothing undoes the savings inside a branch or a loop.
    """
    policy = NOTHING if remat else KEPT
    return jax.checkpoint(branch, policy=policy, prevent_cse=False)


def _vjp(remat, branch, differentiable, other):
    # The primal output of jax.vjp has no custom VJP left in it, so that a JVP of the
    # gradient works.
    branch = recomputed(branch, remat)
    return jax.vjp(lambda d: branch(d, other), differentiable)


def _layouts(branches, pullback_of, differentiable, other):
    """The branches' layouts, and the shapes of the slots that they share."""
    slots: list[jax.ShapeDtypeStruct] = []
    first_slot = len(jax.tree.leaves((differentiable, other)))

    def layout(branch):
        treedef, places, shapes = _pullback_shapes(
            functools.partial(pullback_of, branch), differentiable, other
        )
        free = list(range(len(slots)))
        for i, shape in enumerate(shapes):
            if places[i] is None:
                slot = next((s for s in free if slots[s] == shape), len(slots))
                if slot == len(slots):
                    slots.append(shape)
                else:
                    free.remove(slot)
                places[i] = first_slot + slot
        return _Layout(treedef, tuple(places))

    return tuple(map(layout, branches)), slots


def _pullback_shapes(pullback_of, differentiable, other):
    """A pullback's structure; which operand, if any, each array is; their shapes."""
    found = []

    def trace(differentiable, other):
        operands = jax.tree.leaves((differentiable, other))
        leaves, treedef = jax.tree.flatten(pullback_of(differentiable, other)[1])
        indices = range(len(operands))
        places = [next((i for i in indices if operands[i] is x), None) for x in leaves]
        found.append((treedef, places))
        return leaves

    shapes = jax.eval_shape(trace, differentiable, other)
    return *found[0], shapes
