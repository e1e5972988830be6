"""What a network costs: parameters and multiply-adds, counted exactly."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import traverse_util

from child_models.ops.counting import AUXILIARY_HEAD, count_macs
from child_models.ops.lowering import shapes_only


class Cost(NamedTuple):
    """Counts of one network.

    Attributes:
      params: trainable scalars, without the auxiliary head and batch statistics.
      params_aux: trainable scalars of the auxiliary head.
      macs: multiply-adds of convolutions and dense layers for one image, without the
        auxiliary head; everything else counts 0.
    """

    params: int
    params_aux: int
    macs: int


def count(module: nn.Module, choices: Any, image_shape: Sequence[int]) -> Cost:
    """Counts a module's cost from shapes alone; nothing is computed.

    Args:
      module: called as ``module(choices, x, train)``; without lifted loops, whose body
        would be counted once.
      choices: the fixed binding.
      image_shape: (H, W, C) of one image.

    Returns:
      exact counts.

    >>> from child_models.spaces import SPACES
    >>> space = SPACES["nasbench201"](classes=10, channels=4, cells=1)
    >>> decisions = (3, 1, 1, 3, 3, 3)
    >>> count(space.module("final"), space.bind(decisions), (16, 16, 3))
    Cost(params=17214, params_aux=0, macs=584864)
    """
    x = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    return counts_and_shapes(
        lambda x: module.init(jax.random.key(0), choices, x, True),
        lambda variables, x: module.apply(variables, choices, x, False),
        x,
    )[0]


def counts_and_shapes(
    init: Callable[..., Any], apply: Callable[..., Any], *inputs: jax.ShapeDtypeStruct
) -> tuple[Cost, list[tuple[int, ...]]]:
    """Counts what a function of modules costs, from shapes alone.

    Args:
      init: ``(*inputs) -> variables``.
      apply: ``(variables, *inputs) -> outputs``.
      *inputs: shapes.

    Returns:
      exact counts, and the shapes of the arrays that `apply` returns.
    """
    shapes: list[tuple[int, ...]] = []

    def run(*arguments):
        shapes.extend(leaf.shape for leaf in jax.tree.leaves(apply(*arguments)))

    with shapes_only():
        variables = jax.eval_shape(init, *inputs)
        macs = count_macs(run, variables, *inputs)
    trainable, auxiliary = 0, 0
    for path, leaf in traverse_util.flatten_dict(variables.get("params", {})).items():
        if AUXILIARY_HEAD in path:
            auxiliary += math.prod(leaf.shape)
        else:
            trainable += math.prod(leaf.shape)
    return Cost(trainable, auxiliary, macs), shapes
