"""What the training step of a supernet takes: memory, and time to compile.

Both are estimated from a trace of the step, or measured by compiling it.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from child_models.types import Space

# That XLA:CPU took on two idle cores for 1,000 operations of the steps of five configs
# (enas_micro, enas_macro, darts, nasbench201), the least and the most.
SECONDS = (0.5, 1.1)
_MIB = 2**20


class Estimate(NamedTuple):
    """Of the forward and backward pass of a batch.

    Attributes:
      weights: bytes of the parameters.
      saved: bytes that the backward pass keeps of the forward pass.
      operations: that are to be compiled; the body of a loop counts once.
    """

    weights: int
    saved: int
    operations: int


class Measured(NamedTuple):
    """Of the same, compiled.

    Attributes:
      seconds: that compiling took.
      memory: bytes beside weights and gradients while it runs.
    """

    seconds: float
    memory: int


def trace_step(
    space: Space, image: Sequence[int], batch_size: int, binding: str
) -> Estimate:
    """Estimates from a trace of the step; nothing is compiled.

    Memory is what automatic differentiation saves; a compiler may take less, and needs
    room for its own.

    Args:
      space: of the architectures.
      image: (H, W, C).
      batch_size: images of a step.
      binding: "sampled" or "relaxed", one that the space supports.
    """
    saved: list[int] = []
    step, arguments = _step(space, image, batch_size, binding, saved)
    traced = jax.make_jaxpr(step)(*arguments)
    weights = _bytes(arguments[0])
    return Estimate(weights, max(0, saved[-1] - weights), operations(traced.jaxpr))


def compile_step(
    space: Space, image: Sequence[int], batch_size: int, binding: str
) -> Measured:
    """Compiles the step for this machine; arguments as of `trace_step`."""
    step, arguments = _step(space, image, batch_size, binding, [])
    lowered = jax.jit(step).lower(*arguments)
    cached = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    try:
        begin = time.monotonic()
        compiled = lowered.compile()
        seconds = time.monotonic() - begin
    finally:
        jax.config.update("jax_enable_compilation_cache", cached)
    return Measured(seconds, compiled.memory_analysis().temp_size_in_bytes)


def _step(
    space: Space,
    image: Sequence[int],
    batch_size: int,
    binding: str,
    saved: list[int],
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The step, the shapes of its arguments; tracing it appends to `saved`."""
    network = space.module("search")
    x = jax.ShapeDtypeStruct((batch_size, *image), jnp.float32)
    decisions = jax.ShapeDtypeStruct((space.spec.length,), jnp.int32)
    architecture = decisions
    if binding == "relaxed":
        weights = jax.eval_shape(space.spec.one_hot, decisions)
        live = {k: jax.ShapeDtypeStruct(w.shape, bool) for k, w in weights.items()}
        architecture = {"weights": weights, "live": live}

    def init(architecture, x):
        return network.init(jax.random.key(0), space.bind(architecture), x, True)

    def step(params, rest, architecture, x):
        def forward(params):
            variables = {"params": params, **rest}
            bound = space.bind(architecture)
            rngs = {"dropout": jax.random.key(0)}
            return network.apply(
                variables, bound, x, True, mutable=["batch_stats"], rngs=rngs
            )[0]

        out, backward = jax.vjp(forward, params)
        saved.append(_bytes(backward))
        return backward(jax.tree.map(jnp.ones_like, out))

    rest = dict(jax.eval_shape(init, architecture, x))
    params = rest.pop("params")
    return step, (params, rest, architecture, x)


def _bytes(tree: Any) -> int:
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return sum(
        math.prod(leaf.shape) * leaf.dtype.itemsize
        for leaf in leaves
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    )


def operations(jaxpr: Any) -> int:
    """The operations of a traced function and of all inside it."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [j for value in equation.params.values() for j in _jaxprs(value)]
        total += sum(map(operations, inner)) if inner else 1
    return total


def _jaxprs(value: Any) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for item in value:
            yield from _jaxprs(item)
    elif hasattr(value, "jaxpr"):
        yield value.jaxpr
    elif hasattr(value, "eqns"):
        yield value


# ---- in words -----------------------------------------------------------------------


def estimate_lines(found: Estimate, batch_size: int, measured: bool = False) -> str:
    """Memory, and the time to compile, both said to be estimates.

    Args:
      found: of the step.
      batch_size: its images.
      measured: whether the time to compile is measured, and not estimated here.
    """
    total = (3 * found.weights + found.saved) / _MIB
    memory = (
        f"supernet: {found.weights / _MIB:,.1f} MiB of weights; a training step of "
        f"{batch_size} images takes about {total:,.0f} MiB, {found.saved / _MIB:,.0f}"
        " of them activations"
    )
    if measured:
        return memory
    low, high = (found.operations / 1000 * seconds for seconds in SECONDS)
    return (
        f"{memory}\nits forward and backward pass has {found.operations:,} operations: "
        f"some {low:.0f} to {high:.0f} s to compile on two CPU cores, estimated by "
        "their number; --compile measures"
    )


def measured_line(found: Measured, operations: int) -> str:
    """What compiling took, and the compiler's own figure of memory."""
    return (
        f"its forward and backward pass of {operations:,} operations was compiled in "
        f"{found.seconds:.1f} s on this machine; while it runs it takes "
        f"{found.memory / _MIB:,.0f} MiB beside weights and gradients"
    )
