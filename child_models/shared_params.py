"""Parameters of which a choice has its own, and cutting a child's out of shared ones.

A fixed child's parameters have the names that they have in the shared form, so that
`extract` finds them by path; of a parameter stacked over choices it holds its own rows.
"""

import contextlib
import contextvars
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from child_models.choice import Choice, is_fixed
from child_models.picking import pick

_recorded: contextvars.ContextVar[dict | None] = contextvars.ContextVar(
    "recorded", default=None
)


def indexed_param(
    module: nn.Module,
    name: str,
    init: Callable[..., jax.Array],
    shape: Sequence[int],
    choice: Choice,
    n: int,
) -> jax.Array:
    """A parameter of which every choice has its own: stacked ``[n, *shape]``, picked.

    A fixed child holds only its own, of shape ``shape``.

    Args:
      module: the module whose parameter it is.
      name: of the parameter.
      init: ``(key, shape) -> array``, applied to each slice with a key of its own.
      shape: of one slice.
      choice: int, int32[] or `Weighted` over the n slices.
      n: number of slices.

    Returns:
      array of shape ``shape``.
    """
    if is_fixed(choice):
        if (record := _recorded.get()) is not None:
            record[(*module.path, name)] = (int(choice), len(shape))
        return module.param(name, init, tuple(shape))

    def stacked(key):
        return jax.vmap(lambda k: init(k, tuple(shape)))(jax.random.split(key, n))

    return pick(choice, module.param(name, stacked))


def stacked_param(
    module: nn.Module,
    name: str,
    init: Callable[..., jax.Array],
    shape: Sequence[int],
    n: int,
    rows: Sequence[int] | None = None,
) -> jax.Array:
    """A parameter ``[n, *shape]``, of which a fixed child holds some rows only.

    Args:
      module: the module whose parameter it is.
      name: of the parameter.
      init: ``(key, [rows, *shape]) -> array``.
      shape: of one row.
      n: number of rows in the shared form.
      rows: those that a fixed child holds, in its order; None for all.

    Returns:
      array ``[n, *shape]``, or ``[len(rows), *shape]`` of the fixed child.
    """
    if rows is not None and (record := _recorded.get()) is not None:
        record[(*module.path, name)] = (np.array(rows, int), 1 + len(shape))
    size = n if rows is None else len(rows)
    return module.param(name, init, (size, *shape))


@contextlib.contextmanager
def _recording():
    token = _recorded.set({})
    try:
        yield _recorded.get()
    finally:
        _recorded.reset(token)


def extract(
    module: nn.Module, choices: Any, variables: Any, image: Sequence[int]
) -> Any:
    """Cuts the variables of a fixed child out of shared ones.

    Args:
      module: the search form.
      choices: the fixed binding.
      variables: of the shared form; collections "params" and, if there, "batch_stats".
      image: shape (H, W, C) of an image the module accepts.

    Returns:
      variables for ``module.apply(_, choices, x, ...)``.
    """
    x = jax.ShapeDtypeStruct((2, *image), jnp.float32)
    with _recording() as indices:
        wanted = jax.eval_shape(
            lambda x: module.init(jax.random.key(0), choices, x, True), x
        )

    def cut(collection):
        shared = traverse_util.flatten_dict(variables[collection])
        child = {}
        for path, leaf in traverse_util.flatten_dict(wanted[collection]).items():
            child[path] = shared[path]
            if path in indices:
                index, trailing = indices[path]
                axis = len(leaf.shape) - trailing  # after the axes of a lifted scan
                child[path] = jnp.take(shared[path], index, axis=axis)
        return traverse_util.unflatten_dict(child)

    return {name: cut(name) for name in wanted if name in variables}
