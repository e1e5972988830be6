"""A network as a flat list of primitives, for exports that write each in their own way.

Functions that a jaxpr calls are put in the place of their calls.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.extend.core
import numpy as np

BATCH = 7919  # stands for the batch size in a trace: no other size is a multiple of it
_SAME = ("name", "copy", "copy_p", "stop_gradient", "optimization_barrier")

Input = str | np.ndarray  # the name of an array, or a constant


class Step(NamedTuple):
    """One primitive.

    Attributes:
      equation: of the jaxpr; its avals have the shapes.
      inputs: names and constants.
      output: a name.
    """

    equation: Any
    inputs: list[Input]
    output: str


class Trace(NamedTuple):
    """What a network does.

    Attributes:
      steps: in order.
      logits: the name of the result, or a constant.
      images, result: shapes and dtypes of the two ends.
    """

    steps: list[Step]
    logits: Input
    images: Any
    result: Any


def trace(
    run: Callable[..., jax.Array], weights: Mapping[str, Any], image: Sequence[int]
) -> Trace:
    """Traces a network, whose weights keep their names; the images are "images".

    Args:
      run: ``(weights, uint8[B, H, W, C]) -> float32[B, classes]``.
      weights: arrays by name.
      image: (H, W, C).
    """
    shapes = {n: jax.ShapeDtypeStruct(a.shape, a.dtype) for n, a in weights.items()}
    images = jax.ShapeDtypeStruct((BATCH, *image), np.uint8)
    traced = jax.make_jaxpr(run)(shapes, images)
    steps: list[Step] = []
    inputs = [*sorted(weights), "images"]
    (logits,) = _inline(traced.jaxpr, traced.consts, inputs, steps)
    return Trace(steps, logits, traced.in_avals[-1], traced.out_avals[0])


def _inline(jaxpr: Any, consts: Sequence[Any], inputs: Sequence[Input], steps: list):
    """Adds the steps of a jaxpr; returns the names of its outputs."""
    names = dict(zip(jaxpr.invars, inputs, strict=True))
    names |= dict(zip(jaxpr.constvars, map(np.asarray, consts), strict=True))

    def read(atom) -> Input:
        literal = isinstance(atom, jax.extend.core.Literal)
        return np.asarray(atom.val) if literal else names[atom]

    for equation in jaxpr.eqns:
        taken = [read(atom) for atom in equation.invars]
        inner = _called(equation.params)
        if inner is not None:
            parts = (getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()))
            outputs = _inline(*parts, taken, steps)
        elif equation.primitive.name in _SAME:
            outputs = taken
        else:
            outputs = [f"x{len(steps)}"]
            steps.append(Step(equation, taken, outputs[0]))
        names |= dict(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _called(params: Mapping[str, Any]) -> Any:
    """The jaxpr of the function that an equation calls, None if it calls none."""
    keys = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    return next((params[key] for key in keys if key in params), None)


def is_batch(size: int) -> bool:
    """Whether a size of a trace is that of the batch, or a multiple."""
    return size > 0 and size % BATCH == 0
