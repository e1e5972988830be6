"""Modules of one kind in turn: unrolled in a fixed child, else one lifted loop.

Compilation is most of what a supernet costs at first, so one body serves all steps of a
kind, over weights stacked ``[steps, ...]``; `unstack` cuts a fixed child's out of them.
"""

import re
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

_STEP = re.compile(r"(cells|blocks|sides|edges|entries)_(\d+)")


def stack(trees: Sequence[Any]) -> Any:
    """The leaves of equal trees, stacked along a new first axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def repeat(step: type[nn.Module], name: str, common: Any, carry: Any, xs: Any):
    """Runs modules ``(carry, x) -> (carry, y)`` of one kind in turn.

    Where ``xs`` is a list they are unrolled, with a name each, and the y's are a list;
    else one lifted scan runs over its leading axis, which the weights have too.

    Args:
      step: the modules' class, called with ``common`` and a name.
      name: of the weights; one that `unstack` knows.
      common: static, the same for all.
      carry: of the first.
      xs: one a step.

    Returns:
      the last carry, and the y's.
    """
    if isinstance(xs, list):
        ys = []
        for i, x in enumerate(xs):
            carry, y = step(common, name=f"{name}_{i}")(carry, x)
            ys.append(y)
        return carry, ys
    lifted = nn.scan(
        step,
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        check_constancy_invariants=False,  # which would trace the body once more
    )
    return lifted(common, name=name)(carry, xs)


def unstack(shared: Any, wanted: Any) -> Any:
    """Cuts a fixed child's variables out of shared ones, trees of one collection.

    The child's ``cells_1/blocks_3/sides_0/...`` is ``cells/blocks/sides/...[1, 3, 0]``.
    A cell of fewer blocks has the first of an output's kernels.
    """
    shared = traverse_util.flatten_dict(shared)
    child = {}
    for path, leaf in traverse_util.flatten_dict(wanted).items():
        steps = [_STEP.fullmatch(part) for part in path]
        source = tuple(m[1] if m else p for m, p in zip(steps, path, strict=True))
        found = shared[source][tuple(int(m[2]) for m in steps if m)]
        child[path] = found[: leaf.shape[0]]
    return traverse_util.unflatten_dict(child)


def extract_steps(
    module: nn.Module, choices: Any, variables: Any, image: Sequence[int]
) -> Any:
    """Variables of a fixed child that is built of `repeat`.

    Args:
      module: the search form.
      choices: the fixed binding.
      variables: of the shared form, by collection.
      image: shape (H, W, C) of an image the module accepts.

    Returns:
      variables for ``module.apply(_, choices, x, ...)``.
    """
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    wanted = jax.eval_shape(
        lambda x: module.init(jax.random.key(0), choices, x, True), x
    )
    return {
        name: unstack(variables[name], wanted[name])
        for name in wanted
        if name in variables
    }
