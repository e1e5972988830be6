"""What the networks of a space are made of, as a sum over conditions on decisions.

A `Unit` is a module at a shape, the same wherever it stands in a network; a `Term` says
under which choices a network has which units.  Whatever is the sum of what its units
cost (parameters, multiply-adds, nearly milliseconds) follows from the terms, see
`child_models.cost_model`.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from child_models.cost import Cost, counts_and_shapes
from controller.spec import DecisionSpec

Shape = tuple[int, ...]  # of an array without its batch
When = tuple[tuple[int, tuple[int, ...]], ...]
"""(decision, choices) each: all of these decisions take one of their choices."""

MOST_SUBSETS = 2**13  # terms that one `counted` may have


class Unit(NamedTuple):
    """A module at a shape.

    Attributes:
      module: unbound, called with arrays alone; as it is outside training.
      shapes: of these arrays.
    """

    module: nn.Module
    shapes: tuple[Shape, ...]

    def inputs(self, batch: int) -> list[jax.ShapeDtypeStruct]:
        """What the module is called with."""
        return [jax.ShapeDtypeStruct((batch, *s), jnp.float32) for s in self.shapes]

    @property
    def output(self) -> Shape:
        """Shape of what it returns; of the last where it returns several."""
        return _traced(self)[1][-1]

    @property
    def outputs(self) -> tuple[Shape, ...]:
        """Shapes of all that it returns."""
        return _traced(self)[1]

    @property
    def cost(self) -> Cost:
        """Its parameters and multiply-adds, counted by tracing shapes."""
        return _traced(self)[0]

    @property
    def name(self) -> str:
        """Class, attributes and shapes in one line; equal for equal units only."""
        module = self.module
        hidden = ("parent", "name", "train", "kernel_init")
        fields = [
            f"{field}={_text(getattr(module, field))}"
            for field in module.__dataclass_fields__
            if field not in hidden and getattr(module, field) is not None
        ]
        shapes = " ".join("x".join(map(str, shape)) for shape in self.shapes)
        return f"{type(module).__name__}({', '.join(fields)}) {shapes}"


def unit(module: nn.Module, *shapes: Shape) -> Unit:
    """A unit of arrays of these shapes."""
    return Unit(module, shapes)


class Term(NamedTuple):
    """Units that a network has under a condition.

    Attributes:
      when: the condition, without one where it is empty; no decision is in it twice.
      units: each with how often it is there, less than 0 where it is taken away.
    """

    when: When
    units: tuple[tuple[Unit, int], ...]


def term(when: Sequence[tuple[int, Sequence[int]]], *units: Unit) -> Term:
    """Some units, each once."""
    return Term(
        tuple((t, tuple(choices)) for t, choices in when),
        tuple((each, 1) for each in units),
    )


def counted(
    events: int,
    when: Callable[[tuple[int, ...]], Sequence[tuple[int, Sequence[int]]]],
    units: Callable[[int], Sequence[Unit]],
) -> Iterator[Term]:
    """Units that depend on how many of some events happen.

    By inclusion and exclusion: where m of n happen,
    ``f(m) = sum_S [all of S happen] sum_k (-1)^(|S| - k) C(|S|, k) f(k)``.

    Args:
      events: n.
      when: the condition that all of some events happen.
      units: f, of m = 0 to n.

    Yields:
      a term for each subset S; in those of two and more whatever is linear in m
      vanishes.

    Raises:
      ValueError: if there are too many subsets.
    """
    if 2**events > MOST_SUBSETS:
        raise ValueError(f"{events} events have 2^{events} subsets, too many to list")
    values = [units(m) for m in range(events + 1)]
    for size in range(events + 1):
        signed = tuple(
            (each, (-1) ** (size - k) * math.comb(size, k))
            for k in range(size + 1)
            for each in values[k]
        )
        for subset in itertools.combinations(range(events), size):
            yield Term(tuple((t, tuple(c)) for t, c in when(subset)), signed)


def none_reads(
    spec: DecisionSpec, readers: Sequence[int], states: Sequence[int]
) -> list[tuple[int, tuple[int, ...]]]:
    """The condition that no decision about an input takes one of some states.

    Args:
      spec: of the space.
      readers: the decisions.
      states: numbered as their choices are.
    """
    return [
        (t, tuple(c for c in range(spec.num_choices[t]) if c not in states))
        for t in readers
        if any(state < spec.num_choices[t] for state in states)
    ]


@functools.lru_cache(maxsize=65536)
def _traced(unit: Unit) -> tuple[Cost, tuple[Shape, ...]]:
    cost, shapes = counts_and_shapes(
        lambda *x: unit.module.init(jax.random.key(0), *x),
        unit.module.apply,
        *unit.inputs(2),
    )
    return cost, tuple(shape[1:] for shape in shapes)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "(" + ",".join(map(_text, value)) + ")"
    if isinstance(value, type) or hasattr(value, "itemsize"):
        return str(jnp.dtype(value))
    return str(value)
