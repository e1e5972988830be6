"""The NASNet search space: a normal and a reduction cell of B blocks.

Zoph et al., https://arxiv.org/abs/1707.07012.  A block takes five decisions, in the
paper's order: two states (the output of the layer before, of the one before that, or of
an earlier block), an op for each out of 13, and how they are combined.  With B = 5 that
is 50 decisions, and ``(prod_b (2 + b)^2 * 13^2 * 2)^2`` ordered architectures.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import bind_all
from child_models.genotype import COMBINERS, Block, read_cells, write_cells
from child_models.spaces.nasnet_final import STEMS, Cells, FinalNetwork
from child_models.spaces.nasnet_ops import OPS
from child_models.spaces.nasnet_search import SearchNetwork, unstack
from child_models.types import Published, Space
from controller.spec import Codec, Decision, DecisionSpec

CELLS = ("normal", "reduce")


# ---- decisions ----------------------------------------------------------------------


def _group(flat: Sequence[Any]) -> Cells:
    """Blocks by cell, of one value a decision."""
    blocks = [
        Block(tuple(flat[t : t + 2]), tuple(flat[t + 2 : t + 4]), flat[t + 4])
        for t in range(0, len(flat), 5)
    ]
    half = len(blocks) // 2
    return {"normal": tuple(blocks[:half]), "reduce": tuple(blocks[half:])}


def _flatten(cells: Cells) -> list[Any]:
    """The inverse of `_group`."""
    return [
        value
        for name in CELLS
        for block in cells[name]
        for value in (*block.inputs, *block.ops, block.combiner)
    ]


def _encode(spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    named = [
        value if d.group == "input" else d.choices[value]
        for d, value in zip(spec.decisions, decisions, strict=True)
    ]
    return write_cells(_group(named))


def _decode(spec: DecisionSpec, text: str) -> list[int]:
    cells = read_cells(text, CELLS)
    blocks = spec.length // 10
    for name in CELLS:
        if len(cells[name]) != blocks:
            raise ValueError(
                f"cell {name!r} has {len(cells[name])} blocks; this space has {blocks}"
            )
    decisions = []
    for decision, value in zip(spec.decisions, _flatten(cells), strict=True):
        if decision.group != "input":
            if value not in decision.choices:
                raise ValueError(
                    f"decision {decision.name!r} is {value!r};"
                    f" legal: {', '.join(decision.choices)}"
                )
            value = decision.choices.index(value)
        elif not isinstance(value, int):
            raise ValueError(f"decision {decision.name!r} is {value!r}, not a state")
        decisions.append(value)
    return decisions


def nasnet_spec(blocks: int) -> DecisionSpec:
    """The decisions of both cells, ``10 * blocks``."""
    decisions = []
    for c, cell in enumerate(CELLS):
        for b in range(blocks):
            states = ("current", "previous", *(f"block_{i}" for i in range(b)))
            targets = (-1, -2, *(c * blocks + i for i in range(b)))
            for name, group, choices in (
                ("input_left", "input", states),
                ("input_right", "input", states),
                ("op_left", "op", OPS),
                ("op_right", "op", OPS),
                ("combiner", "combiner", COMBINERS),
            ):
                decisions.append(
                    Decision(
                        f"{cell}/{b}/{name}",
                        choices,
                        group,
                        c * blocks + b,
                        targets if group == "input" else (),
                    )
                )
    return DecisionSpec(tuple(decisions), codec=Codec(_encode, _decode))


# ---- the space ----------------------------------------------------------------------


def nasnet(
    *,
    classes: int,
    blocks: int = 5,
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
    dtype: str = "float32",
) -> Space:
    """The NASNet space.

    Args:
      classes: number of classes.
      blocks: B, blocks a cell.
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
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: on sizes that no network has.
    """
    positive = {"classes": classes, "channels": channels}
    if stem_multiplier is not None:
        positive["stem_multiplier"] = stem_multiplier
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout={dropout}: must be in [0, 1)")
    _check(blocks, cells, stem, normal_concat, reduce_concat, positive)
    spec = nasnet_spec(blocks)
    sizes = {
        "classes": classes,
        "channels": channels,
        "cells": cells,
        "stem": stem,
        "stem_multiplier": stem_multiplier or (3.0 if stem == "cifar" else 1.0),
        "normal_concat": None if normal_concat is None else tuple(normal_concat),
        "reduce_concat": None if reduce_concat is None else tuple(reduce_concat),
        "dtype": dtype,
    }
    search = SearchNetwork(affine=affine, **sizes)
    final = FinalNetwork(
        skip_reduction_layer_input=skip_reduction_layer_input,
        aux_head=aux_head,
        dropout=dropout,
        **sizes,
    )

    def module(form: str) -> nn.Module:
        forms = {"search": search, "final": final}
        if form not in forms:
            raise ValueError(f"form {form!r}: must be one of {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> Cells:
        return _group(bind_all(spec, decisions))

    return Space(spec, module, bind, functools.partial(_extract, search, bind))


def _check(blocks, cells, stem, normal_concat, reduce_concat, positive) -> None:
    for name, value in positive.items():
        if not value > 0:
            raise ValueError(f"{name}={value}: must be positive")
    if blocks < 1:
        raise ValueError(f"blocks={blocks}: must be at least 1")
    if cells < 2:
        raise ValueError(f"cells={cells}: must be at least 2, one after each reduction")
    if stem not in STEMS:
        raise ValueError(f"stem={stem!r}: must be one of {', '.join(STEMS)}")
    for name, concat in (("normal", normal_concat), ("reduce", reduce_concat)):
        if concat is not None and (not concat or set(concat) - set(range(blocks + 2))):
            raise ValueError(
                f"{name}_concat={tuple(concat)}: must name some of the states 0 to"
                f" {blocks + 1}"
            )


def _extract(search: SearchNetwork, bind: Any, variables: Any, decisions: Any) -> Any:
    """Variables of the fixed search-form child of integer decisions; see `Space`."""
    channels = variables["params"]["stem"]["Conv_0"]["kernel"].shape[2]
    image = jax.ShapeDtypeStruct((2, 32, 32, channels), jnp.float32)
    wanted = jax.eval_shape(
        lambda x: search.init(jax.random.key(0), bind(decisions), x, True), image
    )
    return {
        name: unstack(variables[name], wanted[name])
        for name in wanted
        if name in variables
    }


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


def _nasnet_a(image: tuple[int, int, int], **sizes: Any) -> Published:
    """NASNet-A at some size; its cells return the states that the authors' do."""
    concat = {"normal_concat": (1, 2, 3, 4, 5, 6), "reduce_concat": (3, 4, 5, 6)}
    decisions = nasnet_spec(5).decode(_NASNET_A)
    return Published("nasnet", {"blocks": 5, **sizes, **concat}, image, decisions)


PUBLISHED = {
    "NASNet-A-mobile": _nasnet_a(
        (224, 224, 3),
        classes=1000,
        channels=44,
        cells=12,
        stem="imagenet",
        stem_multiplier=1.0,
    ),
    "NASNet-A-large": _nasnet_a(
        (331, 331, 3),
        classes=1000,
        channels=168,
        cells=18,
        stem="imagenet",
        stem_multiplier=3.0,
        skip_reduction_layer_input=True,
    ),
    "NASNet-A-CIFAR": _nasnet_a(
        (32, 32, 3),
        classes=10,
        channels=32,
        cells=18,
        stem="cifar",
        stem_multiplier=3.0,
    ),
}
