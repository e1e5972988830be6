"""The convolutional space of the first NAS paper: a chain with anchors for skips.

Zoph & Le 2017, https://arxiv.org/abs/1611.01578, section 3.3.  A layer is a
convolution, batch norm and ReLU, with its own height, width and number of filters and a
bit for each earlier layer: whether it reads that one.  What it reads is concatenated by
depth.  A layer that reads none takes the image; outputs that no layer reads are
concatenated, averaged over pixels and classified.  Strides are 1.  How many layers
there are may be a decision too: the depth that the paper's search raises as it goes on.

Under shared weights a kernel is a centred part of the largest, so that a step pays for
the taps of the sampled kernel; filters that are not there are masked, and paid for.

Shapes: B images of H x W pixels with D channels, F the largest number of filters.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.choice import Choice, Choose, Weighted, bind_all, is_fixed
from child_models.ops.convolution import conv2d
from child_models.ops.counting import report_macs
from child_models.ops.initializers import he_kernel
from child_models.ops.layers import Dense
from child_models.ops.normalization import BatchNorm
from child_models.picking import indicator
from child_models.spaces.bits import (
    Coefficient,
    coefficients,
    is_absent,
    product,
    scaled,
)
from child_models.types import Space
from controller.spec import Decision, DecisionSpec, FirstNodes


class Layer(NamedTuple):
    """The choices of one layer."""

    height: Choice
    width: Choice
    filters: Choice
    skips: tuple[Choice, ...]  # a bit for each earlier layer
    present: Coefficient = 1  # whether there is this layer


class Sizes(NamedTuple):
    """What a layer chooses among."""

    heights: tuple[int, ...]
    widths: tuple[int, ...]
    filters: tuple[int, ...]


def _decisions(counts: tuple[int, ...], sizes: Sizes) -> tuple[Decision, ...]:
    """Those of the layers, after their number where there are several counts."""
    decisions = []
    if len(counts) > 1:
        decisions.append(Decision("layers", tuple(map(str, counts)), "blocks"))
    for i in range(counts[-1]):
        for group, values in zip(("height", "width", "filters"), sizes, strict=True):
            choices = tuple(map(str, values))
            decisions.append(Decision(f"layer/{i}/{group}", choices, group, i))
        decisions += [
            Decision(f"layer/{i}/skip_{j}", ("no", "yes"), "skip", i, (j, j))
            for j in range(i)
        ]
    return tuple(decisions)


def _present(depth: Choice, counts: tuple[int, ...]) -> list[Coefficient]:
    """Whether there is each of the layers, where their number is chosen."""
    there = np.arange(counts[-1]) < np.array(counts)[:, None]
    if is_fixed(depth):
        return list(map(int, there[depth]))
    return list(indicator(depth, len(counts)) @ there)


# ---- anchors ------------------------------------------------------------------------


class Connections(NamedTuple):
    """What the skips say, as coefficients."""

    reads: tuple[tuple[Coefficient, ...], ...]  # by layer, of the image and each before
    loose: tuple[Coefficient, ...]  # no layer reads its output


def connect(
    skips: Sequence[Sequence[Choice]], present: Sequence[Coefficient] | None = None
) -> Connections:
    """Applies the anchors' two rules; the network is connected, whatever the bits.

    Args:
      skips: bits of each layer, one for each earlier layer; no layer that is there
        reads one that is not.
      present: which layers there are; None for all.
    """
    pairs = [[coefficients(bit) for bit in bits] for bits in skips]
    reads = [(product(no for no, _ in row), *(yes for _, yes in row)) for row in pairs]
    present = [1] * len(pairs) if present is None else present
    loose = [
        product([present[j], *(row[j][0] for row in pairs[j + 1 :])])
        for j in range(len(pairs))
    ]
    return Connections(tuple(reads), tuple(loose))


def _gather(weights: Sequence[Coefficient], arrays: Sequence[jax.Array]) -> jax.Array:
    """Concatenates by depth; what is absent is left out if fixed, and 0 if not."""
    pairs = zip(weights, arrays, strict=True)
    there = [scaled(weight, x) for weight, x in pairs if not is_absent(weight)]
    return jnp.concatenate(there, axis=-1)


# ---- the network --------------------------------------------------------------------


class _Centre(nn.Module):
    """Convolves with the centred part of a kernel that has this height and width."""

    height: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(x, kernel[_centre(kernel, self.height, self.width)])


class _Absent(nn.Module):
    """In place of the convolution of a layer that is not there: zeros."""

    @nn.compact
    def __call__(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jnp.zeros((*x.shape[:-1], kernel.shape[-1]), x.dtype)


def _centre(kernel: Any, height: int, width: int) -> tuple[slice, slice]:
    top, left = (kernel.shape[0] - height) // 2, (kernel.shape[1] - width) // 2
    return slice(top, top + height), slice(left, left + width)


class Convolution(nn.Module):
    """Convolution, batch norm, ReLU; of shared weights, the widest, masked.

    Parameter "kernel": ``[height, width, in, filters]``, each the largest where the
    choices are not fixed.
    """

    sizes: Sizes
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, layer: Layer, x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H, W, filters]``, or F of them."""
        fixed = is_fixed(layer.height)
        if fixed:
            choices = layer[:3]
            shape = [s[choice] for s, choice in zip(self.sizes, choices, strict=True)]
        else:
            shape = list(map(max, self.sizes))
        shape.insert(2, x.shape[-1])
        kernel = self.param("kernel", he_kernel, tuple(shape))
        dtype = x.dtype if self.dtype is None else self.dtype
        x, kernel = x.astype(dtype), kernel.astype(dtype)
        if fixed:
            report_macs(self, math.prod(x.shape[1:3]) * math.prod(shape))
            x = conv2d(x, kernel)
        else:
            both = itertools.product(self.sizes.heights, self.sizes.widths)
            branches = tuple(partial(_Centre, *size) for size in both)
            choice = _joint(layer.height, layer.width, self.sizes)
            if not is_fixed(layer.present):
                branches += (_Absent,)
                choice = _or_last(choice, layer.present, len(branches) - 1)
            x = Choose(branches, parent=None).apply({}, choice, x, kernel)
        norm = BatchNorm(self.train, dtype=self.dtype, name="norm")
        x = nn.relu(norm(x))
        return x if fixed else x * self._mask(layer.filters).astype(x.dtype)

    def _mask(self, choice: Choice) -> jax.Array:
        """[1, 1, 1, F]: which filters are there."""
        filters = np.array(self.sizes.filters)
        there = np.arange(filters.max()) < filters[:, None]
        return (indicator(choice, len(filters)) @ there).reshape(1, 1, 1, -1)


def _joint(height: Choice, width: Choice, sizes: Sizes) -> Choice:
    """One choice of the two, width running first."""
    if not isinstance(height, Weighted):
        return height * len(sizes.widths) + width
    weight = height.weight[:, None] * width.weight[None]
    live = height.mask[:, None] & width.mask[None]
    return Weighted(weight.ravel(), live.ravel())


def _or_last(choice: Choice, present: Coefficient, last: int) -> Choice:
    """A choice of branches, or of one more after them where nothing is present."""
    if not isinstance(choice, Weighted):
        return jnp.where(present > 0, choice, last)
    weight = jnp.append(choice.weight * present, 1 - present)
    return Weighted(weight, jnp.append(choice.mask & (present > 0), False))


class Network(nn.Module):
    """The layers and a classifier.

    Attributes:
      classes: number of classes.
      sizes: what a layer chooses among.
      final: whether this is the form that is retrained, of fixed decisions only.
      dtype: of the computation.
    """

    classes: int
    sizes: Sizes
    final: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: Sequence[Layer],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, D]`` to float32 logits ``[B, classes]``.

        Args:
          choices: of each layer.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect; no paths are dropped.

        Raises:
          ValueError: if the final form gets choices that are not fixed.
        """
        if self.final and not is_fixed(choices[0].height):
            raise ValueError("the final form of nas_rl_cnn takes fixed decisions only")
        connections = connect(*zip(*(layer[3:] for layer in choices), strict=True))
        arrays = [x]
        for i, layer in enumerate(choices):
            inputs = _gather(connections.reads[i], arrays)
            convolution = Convolution(self.sizes, train, self.dtype, name=f"layer_{i}")
            arrays.append(convolution(layer, inputs))
        x = _gather(connections.loose, [jnp.mean(y, (1, 2)) for y in arrays[1:]])
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(x)
        return logits.astype(jnp.float32)


# ---- the child of shared weights ----------------------------------------------------


def _cut(
    choices: Sequence[Layer], sizes: Sizes, variables: Any
) -> dict[str, dict[str, Any]]:
    """The variables of a fixed child: parts of the largest kernels."""
    connections = connect([layer.skips for layer in choices])
    widest, counts = max(sizes.filters), [sizes.filters[c.filters] for c in choices]
    depth = variables["params"]["layer_0"]["kernel"].shape[2]
    blocks = [np.arange(depth)]  # of the concatenation of everything
    blocks += [depth + i * widest + np.arange(n) for i, n in enumerate(counts)]

    def taken(weights, blocks):
        return np.concatenate([b for w, b in zip(weights, blocks, strict=True) if w])

    child = {name: {} for name in variables}
    for i, layer in enumerate(choices):
        name, count = f"layer_{i}", counts[i]
        for collection, tree in variables.items():
            norm = {key: leaf[:count] for key, leaf in tree[name]["norm"].items()}
            child[collection][name] = {"norm": norm}
        kernel = variables["params"][name]["kernel"]
        height, width = sizes.heights[layer.height], sizes.widths[layer.width]
        kernel = kernel[_centre(kernel, height, width)]
        inputs = taken(connections.reads[i], blocks[: i + 1])
        child["params"][name]["kernel"] = kernel[:, :, inputs, :count]
    rows = taken(connections.loose, blocks[1:]) - depth
    head = variables["params"]["classifier"]
    child["params"]["classifier"] = {**head, "kernel": head["kernel"][rows]}
    return child


# ---- the space ----------------------------------------------------------------------


def nas_rl_cnn(
    *,
    classes: int,
    layers: int = 6,
    fewest: int | None = None,
    layer_step: int = 2,
    heights: Sequence[int] = (1, 3, 5, 7),
    widths: Sequence[int] = (1, 3, 5, 7),
    filters: Sequence[int] = (24, 36, 48, 64),
    dtype: Any = "float32",
) -> Space:
    """Builds the space: ``64^n 2^(n (n - 1) / 2)`` networks of n layers by default.

    Both forms take the same sizes, and are the same network.

    Args:
      classes: number of classes.
      layers: n, or the most of them.
      fewest: layers of the smallest network, 6 in the paper.  How many there are is the
        first decision then, group "blocks", and the decisions of absent layers are 0.
        None where all have n.
      layer_step: layers from one depth to the next.
      heights: of kernels, odd.
      widths: of kernels, odd.
      filters: numbers of filters.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: if a size is not positive, a kernel even, nothing is there to choose
        among, or no number of steps leads from the fewest layers to the most.
    """
    for name, value in (
        ("classes", classes),
        ("layers", layers),
        ("fewest", fewest),
        ("layer_step", layer_step),
    ):
        if value is not None and value < 1:
            raise ValueError(f"nas_rl_cnn: {name} is {value}; it must be at least 1")
    first = layers if fewest is None else fewest
    counts = tuple(range(first, layers + 1, layer_step))
    if layers not in counts:
        raise ValueError(
            f"nas_rl_cnn: fewest is {fewest}, layers {layers} and layer_step "
            f"{layer_step}; steps must lead from fewest to layers"
        )
    sizes = Sizes(tuple(heights), tuple(widths), tuple(filters))
    for name, values in sizes._asdict().items():
        if not values or min(values) < 1:
            raise ValueError(
                f"nas_rl_cnn: {name} is {values}; it needs numbers of at least 1"
            )
        if name != "filters" and not all(value % 2 for value in values):
            raise ValueError(f"nas_rl_cnn: {name} is {values}; all must be odd")
    deeper = len(counts) > 1
    spec = DecisionSpec(
        _decisions(counts, sizes), FirstNodes(counts) if deeper else None
    )
    forms = {
        form: Network(classes, sizes, form == "final", jnp.dtype(dtype))
        for form in ("search", "final")
    }

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> tuple[Layer, ...]:
        choices = iter(bind_all(spec, decisions))
        present = _present(next(choices), counts) if deeper else [1] * layers
        bound = [
            Layer(
                *itertools.islice(choices, 3),
                tuple(next(choices) for _ in range(i)),
                present[i],
            )
            for i in range(layers)
        ]
        return tuple(layer for layer in bound if not is_absent(layer.present))

    def cut(variables: Any, decisions: Any) -> Any:
        return _cut(bind(np.asarray(decisions)), sizes, variables)

    return Space(spec, module, bind, cut)
