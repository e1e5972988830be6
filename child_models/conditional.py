"""A conditional over branches, with a VJP of its own.

JAX's makes every branch return the residuals of all branches.  Here the branches share
slots for theirs, even if they differ in their channels, so that the memory is that of
the largest branch, and only what `child_models.ops.kept.keep` marks is saved: the rest
is computed again.
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
            _widened(found[first_slot + i], s)
            if first_slot + i in found
            else jax.lax.full_like(like, 0, s.dtype, s.shape)
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
        pairs = zip(layout.places, layout.shapes, strict=True)
        leaves = [_narrowed(arrays[place], s) for place, s in pairs]
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
    shapes: tuple[tuple[int, ...], ...]  # of each array; a slot may have more channels


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
    slots: list[tuple[jax.ShapeDtypeStruct, set[int]]] = []  # and the branches using it
    first_slot = len(jax.tree.leaves((differentiable, other)))

    def layout(number, branch):
        treedef, places, shapes = _pullback_shapes(
            functools.partial(pullback_of, branch), differentiable, other
        )
        for i, shape in enumerate(shapes):
            if places[i] is None:
                free = (j for j, (s, users) in enumerate(slots) if number not in users)
                slot = next((j for j in free if slots[j][0] == shape), len(slots))
                if slot == len(slots):
                    slots.append((shape, set()))
                slots[slot][1].add(number)
                places[i] = first_slot + slot
        return _Layout(treedef, tuple(places), tuple(s.shape for s in shapes))

    layouts = [layout(*pair) for pair in enumerate(branches)]
    joined, target = _joined(slots)
    target = [*range(first_slot), *(first_slot + slot for slot in target)]
    return tuple(
        found._replace(places=tuple(target[place] for place in found.places))
        for found in layouts
    ), joined


def _joined(slots):
    """Fewer slots: one in place of those that no branch needs two of.

    They differ in their channels alone, so that a batch stays split over devices.

    Returns:
      the shapes, and for each of the given slots the one that takes its place.
    """
    joined: list[tuple[jax.ShapeDtypeStruct, set[int]]] = []
    target = []
    for shape, users in slots:

        def fits(other, shape=shape, users=users):
            same = other[0].dtype == shape.dtype and len(shape.shape) > 1
            return (
                same
                and other[0].shape[:-1] == shape.shape[:-1]
                and not (users & other[1])
            )

        place = next((j for j, o in enumerate(joined) if fits(o)), len(joined))
        if place == len(joined):
            joined.append((shape, users))
        else:
            other, others = joined[place]
            wider = max(other, shape, key=lambda s: s.shape[-1])
            joined[place] = wider, users | others
        target.append(place)
    return [shape for shape, _ in joined], target


def _widened(x, slot):
    missing = [(0, n - m) for m, n in zip(x.shape, slot.shape, strict=True)]
    return jax.numpy.pad(x, missing) if x.shape != slot.shape else x


def _narrowed(x, shape):
    return x if x.shape == shape else x[..., : shape[-1]]


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
