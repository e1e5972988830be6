"""Times of compiled programs: compilation apart, in turn, with medians and spread."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Options(NamedTuple):
    """What the user chose.

    Attributes:
      spaces: names of spaces.
      n: random architectures of each.
      repeats: measured calls of each program.
    """

    spaces: tuple[str, ...]
    n: int
    repeats: int


class Row(NamedTuple):
    """One line of a suite's table.

    Attributes:
      name: what was measured.
      ours: the figure, in `unit`.
      reference: what it stands beside, in `unit`; None for a figure by itself.
      ratio: median of ours / reference, pair by pair.
      unit: of both.
      spread: quartiles of those ratios.
      note: whatever else belongs beside the figure.
    """

    name: str
    ours: float
    reference: float | None = None
    ratio: float | None = None
    unit: str = "ms"
    spread: tuple[float, float] | None = None
    note: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        ours: Sequence[float],
        reference: Sequence[float],
        *,
        unit: str = "ms",
        note: str = "",
    ) -> "Row":
        """A row of the medians of measured pairs."""
        ratios = np.divide(ours, reference)
        return cls(
            name,
            float(np.median(ours)),
            float(np.median(reference)),
            float(np.median(ratios)),
            unit,
            tuple(np.quantile(ratios, (0.25, 0.75)).tolist()),
            note,
        )


class Compiled(NamedTuple):
    """A program compiled ahead of time, and the seconds of tracing and compiling."""

    call: jax.stages.Compiled
    seconds: float


def compile_program(
    function: Callable[..., Any], *args: Any, donate: tuple[int, ...] = ()
) -> Compiled:
    """Compiles a function for the shapes of some arguments."""
    start = time.perf_counter()
    call = jax.jit(function, donate_argnums=donate).lower(*args).compile()
    return Compiled(call, time.perf_counter() - start)


def in_turn(
    runs: Mapping[str, Callable[[], Any]], repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each run, one after the other, `repeats` times.

    Taking turns spreads whatever else the machine does over all of them.  Each is
    called once before, unmeasured.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(1e3 * (time.perf_counter() - start))
    return times


def peak_flops(size: int = 2048, repeats: int = 5) -> float:
    """Floating-point operations a second of a float32 product of square matrices."""
    a = jnp.ones((size, size), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision="highest"))
    times = in_turn({"product": lambda: product(a)}, repeats)["product"]
    return 2 * size**3 / (1e-3 * min(times))
