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
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.choice import Choice, bind_all, choose, is_fixed
from child_models.cost_terms import Shape, Term, term, unit
from child_models.ops.drop_path import drop_path as drop_paths
from child_models.ops.layers import Conv, Dense, Identity, Pool, ReLUConvBN, Zero
from child_models.ops.normalization import BatchNorm
from child_models.ops.pooling import halve
from child_models.shared_params import extract
from child_models.types import Published, Space
from controller.spec import Codec, Decision, DecisionSpec

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CHEAP = OPS[:2]  # that drop-path spares


# ---- decisions ----------------------------------------------------------------------


def _edges(nodes: int) -> tuple[tuple[int, int], ...]:
    """(source, target) of each edge; every node is fed by all before it."""
    return tuple((source, node) for node in range(1, nodes) for source in range(node))


EDGES = _edges(4)


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
            for source, target in _edges(nodes)
        ),
        codec=Codec(_encode, _decode),
    )


SPEC = _cell_spec(4, OPS)


# ---- the network --------------------------------------------------------------------


class Cell(nn.Module):
    """One cell; shapes stay as they are.

    Attributes:
      train: whether batch norm uses the statistics of the batch.
      affine: whether its batch norm has a scale and a bias.
      fixed: the choices of a fixed child; None where they are an operand.  It is an
        attribute because a lifted scan or remat would trace an operand.
      dtype: of the computation.
      nodes: of the cell, its input included.
      ops: that an edge chooses from.
    """

    train: bool
    affine: bool
    fixed: tuple[int, ...] | None
    dtype: Any = None
    nodes: int = 4
    ops: tuple[str, ...] = OPS

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        choices: Sequence[Choice] | None,
        drop_path: float | jax.Array | None,
    ) -> tuple[jax.Array, None]:
        """Returns (the last node, None), as the body of a scan over cells.

        Args:
          x: ``[B, H, W, C]``, node 0.
          choices: of the edges; None where `fixed` has them.
          drop_path: probability of dropping the output of a convolution or pool of a
            fixed cell; None for never.
        """
        choices = choices if self.fixed is None else self.fixed
        branches = self.branches(x.shape[-1])
        nodes = [x] + [None] * (self.nodes - 1)
        for choice, (source, target) in zip(choices, _edges(self.nodes), strict=True):
            y = choose(choice, branches, nodes[source], name=f"edge_{source}_{target}")
            if drop_path is not None and self.ops[choice] not in _CHEAP:
                y = drop_paths(y, drop_path, self.make_rng("dropout"))
            nodes[target] = y if nodes[target] is None else nodes[target] + y
        return nodes[-1], None

    def branches(self, channels: int) -> list:
        """Factories of the ops, in the order of the choices."""
        norm = {"train": self.train, "affine": self.affine, "dtype": self.dtype}
        known = {
            "none": Zero,
            "skip_connect": Identity,
            "nor_conv_1x1": partial(ReLUConvBN, channels, kernel=(1, 1), **norm),
            "nor_conv_3x3": partial(ReLUConvBN, channels, kernel=(3, 3), **norm),
            "avg_pool_3x3": partial(Pool, "avg", 3),
        }
        return [known[op] for op in self.ops]


class ResidualBlock(nn.Module):
    """Halves height and width: two ReLU-conv3x3-BN beside a pooled 1x1 convolution."""

    features: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, ceil(H/2), ceil(W/2), features]``."""
        make = partial(
            ReLUConvBN, self.features, self.train, kernel=(3, 3), dtype=self.dtype
        )
        y = make(strides=2, name="conv_a")(x)
        y = make(name="conv_b")(y)
        shortcut = Conv(self.features, (1, 1), dtype=self.dtype, name="shortcut")
        return y + shortcut(halve(x, "avg"))


class Network(nn.Module):
    """Stem, three stages of cells with residual blocks between, classifier.

    Attributes:
      classes: number of classes.
      channels: of the first stage; doubled at each of the other two.
      cells: N, of a stage.
      final: whether this is the form that is retrained: its cells are unrolled.  Those
        of the search form are one scan a stage, their parameters stacked.
      affine: whether the cells' batch norm has a scale and a bias.
      remat: whether a cell's inner nodes are computed again in the backward pass.
      dtype: of the computation.
      nodes: of a cell, its input included.
      ops: that an edge chooses from.
    """

    classes: int
    channels: int
    cells: int
    final: bool
    affine: bool
    remat: bool = False
    dtype: Any = None
    nodes: int = 4
    ops: tuple[str, ...] = OPS

    @nn.compact
    def __call__(
        self,
        choices: Sequence[Choice],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, channels]`` to float32 logits ``[B, classes]``.

        Args:
          choices: of the edges.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: of the final form: probability in the last cell; in the others in
            proportion to depth.

        Raises:
          ValueError: if the final form gets choices that are not fixed.
        """
        if self.final and not all(map(is_fixed, choices)):
            raise ValueError("the final form of nasbench201 takes fixed decisions only")
        x = Conv(self.channels, dtype=self.dtype, name="stem")(x)
        x = BatchNorm(train, dtype=self.dtype, name="stem_norm")(x)
        for stage in range(3):
            if stage:
                block = ResidualBlock(
                    self.channels * 2**stage, train, self.dtype, name=f"reduce_{stage}"
                )
                x = block(x)
            x = self._stage(stage, x, tuple(choices), train, drop_path)
        x = nn.relu(BatchNorm(train, dtype=self.dtype, name="last_norm")(x))
        x = jnp.mean(x, axis=(1, 2))
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(x)
        return logits.astype(jnp.float32)

    def _stage(self, stage, x, choices, train, drop_path):
        fixed, operand = None, choices
        if all(map(is_fixed, choices)):
            fixed, operand = tuple(map(int, choices)), None
        cell = nn.remat(Cell) if self.remat else Cell
        make = partial(
            cell, train, self.affine, fixed, self.dtype, self.nodes, self.ops
        )
        if self.final:
            for i in range(stage * self.cells, (stage + 1) * self.cells):
                probability = self._probability(i, train, drop_path)
                x, _ = make(name=f"cell_{i}")(x, operand, probability)
            return x
        if self.cells > 1:
            scanned = nn.scan(
                cell,
                variable_axes={"params": 0, "batch_stats": 0},
                split_rngs={"params": True},
                in_axes=nn.broadcast,
                length=self.cells,
            )
            make = partial(scanned, *make.args)
        return make(name=f"stage_{stage}")(x, operand, None)[0]

    def _probability(self, index, train, drop_path):
        never = isinstance(drop_path, float) and drop_path == 0
        if never or not train or not self.has_rng("dropout"):
            return None
        return drop_path * ((index + 1) / (3 * self.cells))


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
            "nasbench201: ops are none; one at least must be another of: "
            f"{', '.join(OPS)}"
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

    terms = partial(_terms, forms["final"])
    return Space(spec, module, bind, cut, terms=terms)


def _terms(network: Network, image: Shape) -> Iterator[Term]:
    """What the final form consists of; edges that reach no output are there too."""
    rest = {"train": False, "dtype": network.dtype}
    stem = unit(Conv(network.channels, dtype=network.dtype), image)
    norm, x = BatchNorm(False, dtype=network.dtype), stem.output
    yield term((), stem, unit(norm, x))
    cell = Cell(False, True, None, network.dtype, network.nodes, network.ops)
    for stage in range(3):
        if stage:
            reduce = unit(ResidualBlock(network.channels * 2**stage, **rest), x)
            yield term((), reduce)
            x = reduce.output
        for t in range(len(_edges(network.nodes))):
            for choice, branch in enumerate(cell.branches(x[2])):
                edge = unit(branch(), x)
                yield Term(((t, (choice,)),), ((edge, network.cells),))
    yield term(
        (), unit(norm, x), unit(Dense(network.classes, dtype=network.dtype), x[2:])
    )


def _skip_dead_ends(
    choices: Sequence[jax.Array], nodes: int, ops: tuple[str, ...]
) -> tuple[jax.Array, ...]:
    """Sampled choices, "none" for edges into a node that reaches no output.

    Their result is unused, and "none" costs nothing.
    """
    none, reaches = ops.index("none"), {nodes - 1: jnp.array(True)}
    edges = list(zip(choices, _edges(nodes), strict=True))
    for node in range(nodes - 2, 0, -1):
        onward = [(c != none) & reaches[t] for c, (s, t) in edges if s == node]
        reaches[node] = jnp.stack(onward).any()
    return tuple(jnp.where(reaches[t], choice, none) for choice, (_, t) in edges)


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
