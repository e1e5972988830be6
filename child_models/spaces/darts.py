"""DARTS's space: a normal and a reduction cell, whose edges choose among ops.

Liu et al., https://arxiv.org/abs/1806.09055; cells, networks and counts as in the
authors' code, quark0/darts.  A cell of 4 nodes has 14 edges; a node keeps two of them,
each with one of 7 ops: ``prod_n C(n + 2, 2) * 7^2``, 1,037,664,180 cells, and the
square of it with both.  P-DARTS, PC-DARTS, ASAP and PARSEC search the same space.
"""

import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from child_models.spaces import darts_cost
from child_models.spaces.darts_final import STEMS, FinalNetwork
from child_models.spaces.darts_ops import KNOWN_OPS, NONE, OPS
from child_models.spaces.darts_search import SearchNetwork
from child_models.spaces.darts_spec import Cells, bind_cells, edge_spec, pair_spec
from child_models.spaces.repeated import extract_steps
from child_models.types import Space


def darts(
    *,
    classes: int,
    nodes: int = 4,
    ops: Sequence[str] = OPS,
    pairs: bool = False,
    normal_concat: Sequence[int] | None = None,
    reduce_concat: Sequence[int] | None = None,
    channels: int = 16,
    cells: int = 8,
    stem: str = "cifar",
    stem_multiplier: int = 3,
    partial_channels: int = 1,
    skip_dropout: float = 0.0,
    aux_head: bool = False,
    affine: bool = False,
    remat: bool = False,
    dtype: Any = "float32",
) -> Space:
    """Builds the space; both forms take the same sizes.

    Args:
      classes: number of classes.
      nodes: computed nodes of a cell, 4 in the paper.
      ops: that an edge chooses from, in the order of the choices.  "none", an absent
        edge, is the first choice where it is left out.
      pairs: whether a node decides for two (state, op) pairs, which may read one state
        twice, in place of edges.  Such architectures are fixed children only, and both
        forms are the final one: this is how cells of other spaces are retrained.
      normal_concat, reduce_concat: the states that each cell returns; by default all
        nodes, ``2, 3, ...``.  The inputs of a reduction cell are too large for it.
      channels: C of the first cells; doubled by each reduction.
      cells: L, with reductions at L//3 and 2L//3.
      stem: "cifar", a 3x3 convolution; or "imagenet", three strided ones.
      stem_multiplier: the stem of CIFAR makes this times C channels.
      partial_channels: K of PC-DARTS: in the search form 1/K of an edge's channels go
        through its ops; 1 for all.
      skip_dropout: of the search form, rate of dropout after a skip in training.
      aux_head: whether the final form has an auxiliary head after the second reduction.
      affine: whether batch norm in the cells of the search form has a scale and a bias.
      remat: whether the search form computes an op again for its gradient, in place of
        keeping what it computed: less memory.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings, or of the fixed one with ``pairs``.

    Raises:
      ValueError: on sizes that no network has, or ops that are unknown, repeat, or are
        none at all.
    """
    ops = _check_ops(ops)
    sizes = {"classes": classes, "nodes": nodes, "channels": channels, "cells": cells}
    for name, value in (sizes | {"stem_multiplier": stem_multiplier}).items():
        if value < 1:
            raise ValueError(f"darts: {name} is {value}; it must be at least 1")
    if stem not in STEMS:
        raise ValueError(f"darts: stem is {stem!r}; it must be one of {STEMS}")
    if stem == "imagenet" and channels < 2:
        raise ValueError(
            f"darts: channels is {channels}; the stem of ImageNet has half of them, so"
            " that it must be at least 2"
        )
    if partial_channels < 1 or channels % partial_channels:
        raise ValueError(
            f"darts: partial_channels is {partial_channels}; it must divide the"
            f" {channels} channels"
        )
    if not 0 <= skip_dropout < 1:
        raise ValueError(f"darts: skip_dropout is {skip_dropout}; it must be in [0, 1)")
    concats = (
        _concat("normal_concat", normal_concat, nodes, 0),
        _concat("reduce_concat", reduce_concat, nodes, 2),
    )
    if pairs:
        ops = tuple(op for op in ops if op != NONE)
    spec = (pair_spec if pairs else edge_spec)(nodes, ops, concats)
    common = {
        "classes": classes,
        "channels": channels,
        "cells": cells,
        "stem": stem,
        "stem_multiplier": stem_multiplier,
        "ops": ops,
        "normal_concat": concats[0],
        "reduce_concat": concats[1],
        "dtype": jnp.dtype(dtype),
    }
    final = FinalNetwork(aux_head=aux_head, **common)
    search = SearchNetwork(
        nodes=nodes,
        partial_channels=partial_channels,
        skip_dropout=skip_dropout,
        affine=affine,
        remat=remat,
        **common,
    )
    forms = {"search": final if pairs else search, "final": final}

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> Cells:
        return bind_cells(spec, decisions)

    def cut(variables: Any, decisions: Any) -> Any:
        choices = bind(spec.validate(decisions))
        if pairs:
            return variables
        kernel = variables["params"]["stem"]["Conv_0"]["kernel"]
        image = (32, 32, kernel.shape[2])
        return extract_steps(search, choices, variables, image)

    bindings = ("fixed",) if pairs else ("fixed", "sampled", "relaxed")
    terms = functools.partial(darts_cost.terms, spec, final, nodes)
    return Space(spec, module, bind, cut, frozenset(bindings), terms=terms)


def _check_ops(ops: Sequence[str]) -> tuple[str, ...]:
    """The choices of an edge, "none" among them."""
    ops = (ops,) if isinstance(ops, str) else tuple(ops)
    if len(set(ops)) < len(ops) or not set(ops) <= set(KNOWN_OPS):
        raise ValueError(
            f"darts: ops are {', '.join(ops)}; they must be different ones of:"
            f" {', '.join(KNOWN_OPS)}"
        )
    if not set(ops) - {NONE}:
        raise ValueError(
            f"darts: ops are {', '.join(ops) or 'missing'}; one at least must not be"
            f" {NONE!r}: {', '.join(o for o in KNOWN_OPS if o != NONE)}"
        )
    return ops if NONE in ops else (NONE, *ops)


def _concat(
    name: str, concat: Sequence[int] | None, nodes: int, first: int
) -> Sequence[int]:
    """The states that a cell returns, from the first that it may."""
    if concat is None:
        return range(2, nodes + 2)
    states = tuple(concat)
    if (
        not states
        or len(set(states)) < len(states)
        or (not set(states) <= set(range(first, nodes + 2)))
    ):
        raise ValueError(
            f"darts: {name} is {list(states)}; it must list different ones of the"
            f" states {first} to {nodes + 1}"
        )
    return states
