"""The NASNet search space: a normal and a reduction cell of B blocks.

Zoph et al., https://arxiv.org/abs/1707.07012.  A block takes five decisions, in the
paper's order: two states (the output of the layer before, of the one before that, or of
an earlier block), an op for each out of 13, and how they are combined.  With B = 5 that
is 50 decisions, and ``(prod_b (2 + b)^2 * 13^2 * 2)^2`` ordered architectures.
"""

import functools
from collections.abc import Sequence

from child_models.spaces.nasnet_ops import OPS
from child_models.spaces.nasnet_space import (
    CIFAR,
    LARGE,
    MOBILE,
    cell_space,
    check_concat,
    published,
)
from child_models.spaces.nasnet_spec import cell_spec
from child_models.types import Space

CELLS = ("normal", "reduce")


def nasnet(
    *,
    classes: int,
    blocks: int = 5,
    ops: Sequence[str] = OPS,
    add_only: bool = False,
    channels: int = 32,
    cells: int = 6,
    stem: str = "cifar",
    stem_multiplier: float | None = None,
    skip_reduction_layer_input: bool = False,
    normal_concat: Sequence[int] | None = None,
    reduce_concat: Sequence[int] | None = None,
    aux_head: bool = False,
    dropout: float = 0.0,
    affine: bool = True,
    remat: bool = True,
    dtype: str = "float32",
) -> Space:
    """The NASNet space.

    Args:
      classes: number of classes.
      blocks: B, blocks a cell.
      ops: that a block may apply, by name.
      add_only: whether blocks add their two sides, and no combiner is decided.
      channels: F, of the first normal cells; doubled by each reduction.
      cells: N, normal cells in total; reductions come before int(N/3) and int(2N/3).
      stem: "cifar", a 3x3 convolution; or "imagenet", a strided one and two reduction
        cells at F/4 and F/2.
      stem_multiplier: width of the stem, in F on CIFAR (default 3), in 32 on ImageNet
        (default 1).
      skip_reduction_layer_input: of the final form, see `nasnet_final.layout`.
      normal_concat, reduce_concat: the states that each cell returns.  By default those
        that no block takes; the published cells of NASNet-A also return states that are
        taken (state 1 of the normal cell, 3 of the reduction cell).
      aux_head: whether the final form has an auxiliary head.
      dropout: of the final form's linear layer.
      affine: whether batch norm has a scale and a bias in the search form.
      remat: whether the search form computes an op again for its gradient in place of
        keeping what it computed: less memory, and on CPU less time too.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: on sizes that no network has, or an unknown op.
    """
    spec = cell_spec(CELLS, blocks, ops, add_only=add_only)
    sizes = {
        "classes": classes,
        "channels": channels,
        "cells": cells,
        "stem": stem,
        "stem_multiplier": stem_multiplier,
        "normal_concat": check_concat("normal_concat", normal_concat, blocks),
        "reduce_concat": check_concat("reduce_concat", reduce_concat, blocks),
        "dtype": dtype,
    }
    final = {
        "skip_reduction_layer_input": skip_reduction_layer_input,
        "aux_head": aux_head,
        "dropout": dropout,
    }
    return cell_space(spec, ops, sizes, final=final, affine=affine, remat=remat)


# ---- published cells ----------------------------------------------------------------

_NASNET_A = """{
"normal": [
[["sep_conv_5x5", 0], ["sep_conv_3x3", 1], "add"],
[["sep_conv_5x5", 1], ["sep_conv_3x3", 1], "add"],
[["avg_pool_3x3", 0], ["identity", 1], "add"],
[["avg_pool_3x3", 1], ["avg_pool_3x3", 1], "add"],
[["sep_conv_3x3", 0], ["identity", 0], "add"]],
"reduce": [
[["sep_conv_5x5", 0], ["sep_conv_7x7", 1], "add"],
[["max_pool_3x3", 0], ["sep_conv_7x7", 1], "add"],
[["avg_pool_3x3", 0], ["sep_conv_5x5", 1], "add"],
[["identity", 3], ["avg_pool_3x3", 2], "add"],
[["sep_conv_3x3", 2], ["max_pool_3x3", 0], "add"]]}"""


# Its cells return the states that the authors' do.
_nasnet_a = functools.partial(
    published,
    "nasnet",
    cell_spec(CELLS, 5, OPS, add_only=False),
    _NASNET_A,
    blocks=5,
    normal_concat=(1, 2, 3, 4, 5, 6),
    reduce_concat=(3, 4, 5, 6),
)
PUBLISHED = {
    "NASNet-A-mobile": _nasnet_a(MOBILE, channels=44, cells=12),
    "NASNet-A-large": _nasnet_a(
        LARGE, channels=168, cells=18, skip_reduction_layer_input=True
    ),
    "NASNet-A-CIFAR": _nasnet_a(CIFAR, channels=32, cells=18),
}
