"""The space of Genetic CNN: stages of nodes, a bit for each pair of nodes.

Xie & Yuille 2017, https://arxiv.org/abs/1703.01513, section 3.1.  A node is a
convolution, batch norm and ReLU of the sum of its inputs; the bit of a pair (i, j), i <
j, says whether node j reads node i.  A node that any bit names is active, the others do
not exist.  Every stage has two more nodes: the input, a convolution of what enters the
stage, is read by the active nodes without a predecessor; the output is a convolution of
the sum of those without a successor.  A stage without any bit is the input node alone.
A max pool 3x3 of stride 2 follows each stage, then, as in LeNet, a hidden layer with
dropout and a classifier.

The text of a stage has the bits by target, ``12-13,23-14,24,34``: the chain of four
nodes is ``1-01-001``.  Stages are joined by " | ".

Shapes: B images of H x W pixels, K nodes of a stage, C channels.
"""

import itertools
import math
import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.choice import (
    Choice,
    Weighted,
    bind_all,
    choose,
    is_fixed,
)
from child_models.ops.layers import Conv, Dense, Identity, Zero
from child_models.ops.normalization import BatchNorm
from child_models.ops.pooling import max_pool
from child_models.shared_params import extract
from child_models.spaces.bits import (
    Coefficient,
    coefficients,
    is_absent,
    product,
    scaled,
)
from child_models.types import Space
from controller.spec import Codec, Decision, DecisionSpec

# ---- decisions ----------------------------------------------------------------------


def pairs(nodes: int) -> list[tuple[int, int]]:
    """The pairs (i, j), 1 <= i < j <= nodes, by target j."""
    return [(i, j) for j in range(2, nodes + 1) for i in range(1, j)]


def _decisions(nodes: Sequence[int]) -> tuple[Decision, ...]:
    decisions, built = [], 0
    for stage, count in enumerate(nodes, start=1):
        # The first node of a stage has no decision; to policies it is an input.
        numbers = [-stage, *range(built, built + count - 1)]
        built += count - 1
        decisions += [
            Decision(
                f"stage_{stage}/{i}-{j}",
                ("no", "yes"),
                "skip",
                numbers[j - 1],
                (numbers[i - 1],) * 2,
            )
            for i, j in pairs(count)
        ]
    return tuple(decisions)


def _split(nodes: Sequence[int], items: Iterable[Any]) -> tuple[tuple[Any, ...], ...]:
    """Items, one a pair, by stage."""
    items = iter(items)
    return tuple(tuple(itertools.islice(items, math.comb(k, 2))) for k in nodes)


def _codec(nodes: tuple[int, ...]) -> Codec:
    form = " | ".join("-".join("b" * j for j in range(1, k)) for k in nodes)
    pattern = re.compile(
        r"\s*\|\s*".join(re.sub("b", "[01]", s) for s in form.split(" | "))
    )

    def encode(spec, decisions):
        stages = []
        for count, bits in zip(nodes, _split(nodes, map(str, decisions)), strict=True):
            source = iter(bits)
            groups = ("".join(itertools.islice(source, j)) for j in range(1, count))
            stages.append("-".join(groups))
        return " | ".join(stages)

    def decode(spec, text):
        if not pattern.fullmatch(text.strip()):
            raise ValueError(
                f"not a Genetic CNN code: {text[:120]!r}; "
                f"expected {form}, each b 0 or 1"
            )
        return [int(bit) for bit in re.sub("[^01]", "", text)]

    return Codec(encode, decode)


# ---- wiring -------------------------------------------------------------------------


class Wiring(NamedTuple):
    """What the bits of a stage say, as coefficients of sums."""

    edges: dict[tuple[int, int], Coefficient]  # node j reads node i
    from_input: tuple[Coefficient, ...]  # a node reads the input node
    to_output: tuple[Coefficient, ...]  # the output node reads a node
    active: tuple[Coefficient, ...]
    empty: Coefficient  # no bit is set


def wire(nodes: int, bits: Sequence[Choice]) -> Wiring:
    """The wiring of a stage.

    Args:
      nodes: K.
      bits: choices ("no", "yes") of `pairs`.

    Returns:
      ints for fixed bits, scalars else.
    """
    no, yes = {}, {}
    for pair, bit in zip(pairs(nodes), bits, strict=True):
        no[pair], yes[pair] = coefficients(bit)
    rows = range(1, nodes + 1)
    alone_in = [product(no[i, j] for i in range(1, j)) for j in rows]
    alone_out = [product(no[i, j] for j in range(i + 1, nodes + 1)) for i in rows]
    both = list(zip(alone_in, alone_out, strict=True))
    return Wiring(
        edges=yes,
        from_input=tuple(product((a, 1 - b)) for a, b in both),
        to_output=tuple(product((1 - a, b)) for a, b in both),
        active=tuple(1 - product((a, b)) for a, b in both),
        empty=product(no.values()),
    )


def _switches(
    nodes: int, bits: Sequence[Choice], wiring: Wiring
) -> tuple[list[Choice], Choice]:
    """Choices (absent, there) of each node, and of the output node.

    A relaxed node is there, with weight 1, while a bit of it may be set.
    """
    everything = (*wiring.active, 1 - wiring.empty)
    if is_fixed(bits[0]):
        return [int(c) for c in everything[:-1]], int(everything[-1])
    if not isinstance(bits[0], Weighted):
        choices = [c.astype(jnp.int32) for c in everything]
        return choices[:-1], choices[-1]

    live = dict(zip(pairs(nodes), (bit.mask for bit in bits), strict=True))
    nowhere = jnp.stack([flags[0] for flags in live.values()]).all()
    choices = []
    for node in range(1, nodes + 1):
        there = jnp.stack([flags[1] for p, flags in live.items() if node in p]).any()
        flags = jnp.stack([jnp.zeros_like(there), there])
        choices.append(Weighted(jnp.array([0.0, 1.0]), flags))
    somewhere = jnp.stack([flags[1] for flags in live.values()]).any()
    weight = jnp.stack([wiring.empty, 1 - wiring.empty])
    return choices, Weighted(weight, jnp.stack([nowhere, somewhere]))


# ---- the network --------------------------------------------------------------------


class Node(nn.Module):
    """Convolution, batch norm, ReLU."""

    features: int
    kernel: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.kernel, self.kernel)
        x = Conv(self.features, size, dtype=self.dtype)(x)
        return nn.relu(BatchNorm(self.train, dtype=self.dtype)(x))


class Stage(nn.Module):
    """One stage: `nodes` ordinary nodes between its input and its output node."""

    nodes: int
    features: int
    kernel: int
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, bits: Sequence[Choice], x: jax.Array) -> jax.Array:
        """Maps ``[B, H, W, C]`` to ``[B, H, W, features]``.

        Args:
          bits: choices of `pairs`.
          x: what enters the stage.
        """
        wiring = wire(self.nodes, bits)
        there, has_output = _switches(self.nodes, bits, wiring)
        node = partial(Node, self.features, self.kernel, self.train, self.dtype)
        first = node(name="input")(x)
        states: list[jax.Array] = []
        for j, (choice, reads) in enumerate(
            zip(there, wiring.from_input, strict=True), start=1
        ):
            weights = [wiring.edges[i, j] for i in range(1, j)]
            total = _sum((reads, *weights), (first, *states))
            states.append(choose(choice, (Zero, node), total, name=f"node_{j}"))
        y = _sum((wiring.empty, *wiring.to_output), (first, *states))
        return choose(has_output, (Identity, node), y, name="output")


def _sum(weights: Sequence[Coefficient], arrays: Sequence[jax.Array]) -> jax.Array:
    """The weighted sum; fixed terms of weight 0 are left out."""
    terms = zip(weights, arrays, strict=True)
    terms = [scaled(weight, x) for weight, x in terms if not is_absent(weight)]
    return sum(terms[1:], terms[0]) if terms else jnp.zeros_like(arrays[0])


class Network(nn.Module):
    """Stages, each with a pool after it, a hidden layer, a classifier.

    Attributes:
      classes: number of classes.
      nodes: K of each stage.
      channels: C of each stage.
      kernel: side of the convolutions.
      hidden: units of the hidden layer; 0 for none.
      dropout: after the hidden layer, where a key "dropout" is given.
      final: whether this is the form that is retrained, of fixed decisions only.
      dtype: of the computation.
    """

    classes: int
    nodes: tuple[int, ...]
    channels: tuple[int, ...]
    kernel: int
    hidden: int
    dropout: float
    final: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self,
        choices: Sequence[Sequence[Choice]],
        x: jax.Array,
        train: bool = True,
        drop_path: float | jax.Array = 0.0,
    ) -> jax.Array:
        """Maps images ``[B, H, W, channels]`` to float32 logits ``[B, classes]``.

        Args:
          choices: of the pairs of each stage.
          x: images.
          train: whether batch norm uses the statistics of the batch.
          drop_path: has no effect; stages drop no paths.

        Raises:
          ValueError: if the final form gets choices that are not fixed.
        """
        if self.final and not all(map(is_fixed, itertools.chain(*choices))):
            raise ValueError("the final form of genetic_cnn takes fixed decisions only")
        sizes = zip(self.nodes, self.channels, choices, strict=True)
        for number, (nodes, features, bits) in enumerate(sizes, start=1):
            stage = Stage(
                *(nodes, features, self.kernel, train, self.dtype),
                name=f"stage_{number}",
            )
            x = max_pool(stage(bits, x), 3, 2)
        x = x.reshape(len(x), -1)
        if self.hidden:
            x = nn.relu(Dense(self.hidden, dtype=self.dtype, name="hidden")(x))
            keep_all = not self.has_rng("dropout")
            x = nn.Dropout(self.dropout, deterministic=keep_all, name="dropout")(x)
        logits = Dense(self.classes, dtype=self.dtype, name="classifier")(x)
        return logits.astype(jnp.float32)


# ---- the space ----------------------------------------------------------------------


def genetic_cnn(
    *,
    classes: int,
    nodes: Sequence[int] = (3, 4, 5),
    channels: Sequence[int] = (8, 16, 32),
    kernel: int = 5,
    hidden: int = 128,
    dropout: float = 0.5,
    dtype: Any = "float32",
) -> Space:
    """Builds the space: ``2^L`` networks, ``L = sum_s K_s (K_s - 1) / 2``.

    The defaults are the network that the paper searches in on CIFAR-10; on MNIST it has
    ``nodes=(3, 5)``.  Both forms take the same sizes, and are the same network.

    Args:
      classes: number of classes.
      nodes: K of each stage.
      channels: C of each stage.
      kernel: side of the convolutions, odd.
      hidden: units of the hidden layer; 0 for none.
      dropout: after the hidden layer, where a key "dropout" is given.
      dtype: of the computation; parameters and logits are float32.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: if a size is too small, a kernel even, dropout outside [0, 1), or
        there is not one number of channels a stage.
    """
    nodes, channels = tuple(nodes), tuple(channels)
    least = [("classes", classes, 1), ("kernel", kernel, 1), ("hidden", hidden, 0)]
    least += [("nodes", k, 2) for k in nodes] + [("channels", c, 1) for c in channels]
    for name, value, minimum in least:
        if value < minimum:
            raise ValueError(
                f"genetic_cnn: {name} has {value}; it must be at least {minimum}"
            )
    if not nodes or len(nodes) != len(channels):
        raise ValueError(
            f"genetic_cnn: nodes is {nodes} and channels is {channels}; "
            "both need one number a stage"
        )
    if kernel % 2 == 0:
        raise ValueError(f"genetic_cnn: kernel is {kernel}; it must be odd")
    if not 0 <= dropout < 1:
        raise ValueError(f"genetic_cnn: dropout is {dropout}; it must be in [0, 1)")
    spec = DecisionSpec(_decisions(nodes), codec=_codec(nodes))
    sizes = (classes, nodes, channels, kernel, hidden, dropout)
    forms = {
        form: Network(*sizes, final=form == "final", dtype=jnp.dtype(dtype))
        for form in ("search", "final")
    }

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> tuple[tuple[Choice, ...], ...]:
        return _split(nodes, bind_all(spec, decisions))

    def cut(variables: Any, decisions: Any) -> Any:
        first = variables["params"]["stage_1"]["input"]["Conv_0"]["kernel"]
        image = (8, 8, first.shape[2])  # what the weights of a child are named by
        choices = bind(np.asarray(decisions))
        return extract(forms["search"], choices, variables, image)

    return Space(spec, module, bind, cut)
