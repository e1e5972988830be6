"""The NAS-Bench-201 space: a cell of four nodes and six edges, five ops an edge.

Fewer nodes or ops make smaller spaces of the same kind.

Dong and Yang, https://arxiv.org/abs/2001.00326; network as in the authors' code,
D-X-Y/AutoDL-Projects.  A node is the sum of its incoming edges.  Three stages of N
cells, with a residual block of stride 2 before the second and the third, stand between
a 3x3 convolution and a linear classifier.

Counts of the final form follow the project's rules and equal those derived from the
paper's networks: convolutions without bias, batch norm with 2C parameters, the pooled
shortcut of a residual block a 1x1 convolution without batch norm.  The benchmark's own
"FLOPs" are such multiply-adds in millions, its "params" are in millions too.

Shapes: B images of H x W pixels, C channels of the stage.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, bind_all
from child_models.shared_params import extract
from child_models.spaces import nasbench201_cost
from child_models.spaces.nasbench201_network import OPS as OPS
from child_models.spaces.nasbench201_network import Network, edges
from child_models.types import Published, Space
from controller.spec import Codec, Decision, DecisionSpec

# ---- decisions ----------------------------------------------------------------------


EDGES = edges(4)


def _form(nodes: int, op: str) -> str:
    """A cell's text with the same op at every edge."""
    fed = (
        "".join(f"|{op}~{source}" for source in range(node)) for node in range(1, nodes)
    )
    return "|+".join(fed) + "|"


def _nodes(spec: DecisionSpec) -> int:
    return spec.decisions[-1].node + 2


def _encode(spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    pairs = zip(spec.decisions, decisions, strict=True)
    return _form(_nodes(spec), "{}").format(*(d.choices[v] for d, v in pairs))


def _decode(spec: DecisionSpec, text: str) -> list[int]:
    form, ops = _form(_nodes(spec), "op"), spec.decisions[0].choices
    pattern = re.escape(form).replace("op", r"([^|~]+)")
    match = re.fullmatch(pattern, text.strip())
    if not match:
        raise ValueError(f"not a NAS-Bench-201 cell: {text[:120]!r}; expected {form}")
    if unknown := [op for op in match.groups() if op not in ops]:
        raise ValueError(f"op {unknown[0]!r} must be one of: {', '.join(ops)}")
    return [ops.index(op) for op in match.groups()]


def _cell_spec(nodes: int, ops: tuple[str, ...]) -> DecisionSpec:
    return DecisionSpec(
        tuple(
            Decision(f"{source}>{target}", ops, "op", node=target - 1)
            for source, target in edges(nodes)
        ),
        codec=Codec(_encode, _decode),
    )


SPEC = _cell_spec(4, OPS)


# ---- the space ----------------------------------------------------------------------


def nasbench201(
    *,
    classes: int,
    channels: int = 16,
    cells: int = 5,
    nodes: int = 4,
    ops: Sequence[str] = OPS,
    affine: bool = False,
    remat: bool = False,
    dtype: Any = "float32",
) -> Space:
    """Builds the space; both forms take the same sizes.

    Args:
      classes: number of classes.
      channels: C of the first stage; doubled at each of the other two.
      cells: N, cells a stage.
      nodes: of a cell, its input included; 4 in the paper.
      ops: that an edge chooses from, of `OPS`, in the order of the choices.
      affine: whether batch norm inside the cells of the search form has a scale and a
        bias; the authors search without.  Elsewhere it always has.
      remat: whether a cell's inner nodes are computed again in the backward pass.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: if a size is too small, or on ops that are unknown or repeated.

    >>> spec = nasbench201(classes=10).spec
    >>> spec.size()
    15625
    >>> spec.encode((3, 0, 1, 3, 3, 0))
    '|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_3x3~0|nor_conv_3x3~1|none~2|'
    """
    sizes = {"classes": classes, "channels": channels, "cells": cells, "nodes": nodes}
    for name, value in sizes.items():
        least = 2 if name == "nodes" else 1
        if value < least:
            raise ValueError(
                f"nasbench201: {name} is {value}; it must be at least {least}"
            )
    ops = (ops,) if isinstance(ops, str) else tuple(ops)
    if not ops or len(set(ops)) < len(ops) or not set(ops) <= set(OPS):
        raise ValueError(
            f"nasbench201: ops are {', '.join(ops) or 'none given'}; they must be "
            f"different ones of: {', '.join(OPS)}"
        )
    if ops == ("none",):
        raise ValueError(
            "nasbench201: ops are none; one at least must be of: "
            f"{', '.join(op for op in OPS if op != 'none')}"
        )
    spec = _cell_spec(nodes, ops)
    sizes |= {"ops": ops, "remat": remat, "dtype": jnp.dtype(dtype)}
    forms = {
        "search": Network(final=False, affine=affine, **sizes),
        "final": Network(final=True, affine=True, **sizes),
    }

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def cut(variables: Any, decisions: Any) -> Any:
        image = (8, 8, variables["params"]["stem"]["kernel"].shape[2])
        choices = spec.validate(decisions)
        return extract(forms["search"], choices, variables, image)

    def bind(decisions: Any) -> tuple[Choice, ...]:
        choices = bind_all(spec, decisions)
        sampled = isinstance(decisions, jax.Array) and "none" in ops
        return _skip_dead_ends(choices, nodes, ops) if sampled else choices

    terms = partial(nasbench201_cost.terms, forms["final"])
    return Space(spec, module, bind, cut, terms=terms)


def _skip_dead_ends(
    choices: Sequence[jax.Array], nodes: int, ops: tuple[str, ...]
) -> tuple[jax.Array, ...]:
    """Sampled choices, "none" for edges into a node that reaches no output.

    Their result is unused, and "none" costs nothing.
    """
    none, reaches = ops.index("none"), {nodes - 1: jnp.array(True)}
    taken = list(zip(choices, edges(nodes), strict=True))
    for node in range(nodes - 2, 0, -1):
        onward = [(c != none) & reaches[t] for c, (s, t) in taken if s == node]
        reaches[node] = jnp.stack(onward).any()
    return tuple(jnp.where(reaches[t], choice, none) for choice, (_, t) in taken)


# ---- known cells --------------------------------------------------------------------

# The first three as in the authors' code; the last has the best mean test accuracy on
# CIFAR-10 after 200 epochs, 94.37 %.
_CELLS = {
    "ResNet": "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|"
    "+|skip_connect~0|none~1|skip_connect~2|",
    "conv3x3": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|nor_conv_3x3~0|nor_conv_3x3~1|nor_conv_3x3~2|",
    "conv1x1": "|nor_conv_1x1~0|+|nor_conv_1x1~0|nor_conv_1x1~1|"
    "+|nor_conv_1x1~0|nor_conv_1x1~1|nor_conv_1x1~2|",
    "CIFAR-10-best": "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
    "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|",
}
PUBLISHED = {
    f"NAS-Bench-201-{name}": Published(
        "nasbench201",
        {"classes": 10, "channels": 16, "cells": 5},
        (32, 32, 3),
        SPEC.decode(text),
    )
    for name, text in _CELLS.items()
}
