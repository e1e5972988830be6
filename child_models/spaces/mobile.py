"""ProxylessNAS's space: a mobile network, each of whose blocks chooses an MBConv.

Cai et al., https://arxiv.org/abs/1812.00332, section 4; skeleton, choices and counts as
in the authors' code, mit-han-lab/proxylessnas.  A block expands its channels, filters
each by itself and projects back: kernel 3, 5 or 7, expansion 3 or 6.  A block that
changes neither size nor channels has a residual connection, and the choice "zero",
which leaves the block out.  With the default sizes that is 6^6 * 7^15 networks.

A network's text has the blocks of each stage between bars, ``k5e3 k3e3 | k7e3 zero``.
"""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from child_models.choice import Choice, bind_all
from child_models.spaces import mobile_cost
from child_models.spaces.mobile_network import (
    ZERO,
    Network,
    Skeleton,
    block_shapes,
    parse_op,
)
from child_models.spaces.repeated import extract_steps
from child_models.types import Published, Space
from controller.spec import Codec, Decision, DecisionSpec

OPS = ("k3e3", "k3e6", "k5e3", "k5e6", "k7e3", "k7e6")


# ---- decisions ----------------------------------------------------------------------


def _spec(skeleton: Skeleton, ops: tuple[str, ...]) -> DecisionSpec:
    decisions = tuple(
        Decision(
            f"stage_{stage}/block_{block}",
            (*ops, ZERO) if shape.residual else ops,
            "op",
            node,
        )
        for node, (stage, block, shape) in enumerate(block_shapes(skeleton))
    )
    return DecisionSpec(decisions, codec=Codec(_encode, _decode))


def _stages(spec: DecisionSpec) -> list[list[Decision]]:
    by_stage = itertools.groupby(spec.decisions, lambda d: d.name.partition("/")[0])
    return [list(stage) for _, stage in by_stage]


def _encode(spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    values = iter(decisions)
    stages = [
        " ".join(d.choices[next(values)] for d in stage) for stage in _stages(spec)
    ]
    return " | ".join(stages)


def _decode(spec: DecisionSpec, text: str) -> list[int]:
    """Reads the stages' blocks; those that are missing at a stage's end are zero."""
    given, stages = [part.split() for part in text.split("|")], _stages(spec)
    if len(given) != len(stages):
        raise ValueError(
            f"the network has {len(given)} stages, between bars; this space has"
            f" {len(stages)}: {text[:80]!r}"
        )
    decisions = []
    for ops, stage in zip(given, stages, strict=True):
        if len(ops) > len(stage):
            raise ValueError(
                f"{' '.join(ops)!r} has {len(ops)} blocks; this stage has at most"
                f" {len(stage)}"
            )
        for op, decision in itertools.zip_longest(ops, stage, fillvalue=ZERO):
            if op not in decision.choices:
                raise ValueError(
                    f"{decision.name} is {op!r}; it must be one of:"
                    f" {', '.join(decision.choices)}"
                )
            decisions.append(decision.choices.index(op))
    return decisions


# ---- the space ----------------------------------------------------------------------


def mobile(
    *,
    classes: int,
    ops: Sequence[str] = OPS,
    widths: Sequence[int] = (24, 40, 80, 96, 192, 320),
    blocks: Sequence[int] = (4, 4, 4, 4, 4, 1),
    strides: Sequence[int] = (2, 2, 2, 1, 2, 1),
    stem: int = 32,
    stem_strides: int = 2,
    first: int = 16,
    last: int = 1280,
    dropout: float = 0.0,
    remat: bool = False,
    dtype: Any = "float32",
) -> Space:
    """Builds the space; both forms are the same network.

    Args:
      classes: number of classes.
      ops: that a block chooses from, ``k<kernel>e<expansion>``, with an odd kernel.
      widths: channels of each stage.
      blocks: number of blocks of each stage.
      strides: of each stage's first block.
      stem: channels of the first convolution, 3x3.
      stem_strides: its stride.
      first: channels after the fixed block, of kernel 3 and without expansion.
      last: channels of the 1x1 convolution before the classifier.
      dropout: before the classifier, where a "dropout" key is given.
      remat: whether the search form computes a block again for its gradient, in place
        of keeping what it computed: less memory.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: on sizes that no network has, or ops that cannot be read or repeat.
    """
    ops = (ops,) if isinstance(ops, str) else tuple(ops)
    if not ops or len(set(ops)) < len(ops):
        raise ValueError(
            f"mobile: ops are {', '.join(ops) or 'none given'}; one at least is needed,"
            f" and all must be different, as {', '.join(OPS)}"
        )
    for op in ops:
        parse_op(op)
    stages = {"widths": widths, "blocks": blocks, "strides": strides}
    for name, values in stages.items():
        if len(values) != len(widths) or not values or min(values) < 1:
            raise ValueError(
                f"mobile: {name} is {tuple(values)}; it must have a positive number for"
                f" each of the {len(widths)} stages"
            )
    sizes = {"classes": classes, "stem": stem, "first": first, "last": last}
    for name, value in (sizes | {"stem_strides": stem_strides}).items():
        if value < 1:
            raise ValueError(f"mobile: {name} is {value}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"mobile: dropout is {dropout}; it must be in [0, 1)")
    skeleton = Skeleton(
        *(tuple(values) for values in stages.values()),
        *(stem, stem_strides, first, last),
    )
    spec = _spec(skeleton, ops)
    make = partial(Network, classes, skeleton, ops, dropout, jnp.dtype(dtype))
    forms = {"search": make(remat=remat), "final": make(final=True)}

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> tuple[Choice, ...]:
        return bind_all(spec, decisions)

    def cut(variables: Any, decisions: Any) -> Any:
        choices = bind(spec.validate(decisions))
        image = (32, 32, variables["params"]["stem"]["Conv_0"]["kernel"].shape[2])
        return extract_steps(forms["search"], choices, variables, image)

    terms = partial(mobile_cost.terms, forms["final"])
    return Space(spec, module, bind, cut, terms=terms)


# ---- published networks -------------------------------------------------------------


def _published(cells: str, **sizes: Any) -> Published:
    arguments = {"classes": 1000, **sizes}
    decisions = mobile(**arguments).spec.decode(cells)
    return Published("mobile", arguments, (224, 224, 3), decisions)


PUBLISHED = {
    "ProxylessNAS-mobile": _published(
        "k5e3 k3e3 | k7e3 k3e3 k5e3 k5e3 | k7e6 k5e3 k5e3 k5e3 | k5e6 k5e3 k5e3 k5e3"
        " | k7e6 k7e6 k7e3 k7e3 | k7e6",
        widths=(32, 40, 80, 96, 192, 320),  # the first is 24 in the search
    ),
    "ProxylessNAS-gpu": _published(
        "k5e3 | k7e3 k3e3 | k7e6 k5e3 | k5e6 k3e3 k5e3 | k7e6 k7e6 k7e6 k5e6 | k7e6",
        widths=(32, 56, 112, 128, 256, 432),
        stem=40,
        first=24,
        last=1728,
    ),
    "ProxylessNAS-cpu": _published(
        "k3e6 k3e3 k3e3 k3e3 | k3e6 k3e3 k3e3 k5e3 | k3e6 k3e3 | k5e6 k3e3 k3e3 k3e3"
        " | k5e6 k5e3 k5e3 k3e3 | k5e6",
        widths=(32, 48, 88, 104, 216, 360),
        stem=40,
        first=24,
        last=1432,
    ),
}
