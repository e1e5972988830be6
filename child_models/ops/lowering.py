"""Which form of an operation is compiled: XLA's own, or ours for XLA:CPU.

Inside control flow XLA:CPU is slow at convolutions whose dimension order is not NHWC
and HWIO, which the gradients that JAX derives are, at grouped convolutions and at the
gradients of ``reduce_window`` (https://github.com/jax-ml/jax/issues/12868).  There
the operations of this package are written as plain convolutions, matrix products and
sums of shifted arrays, with VJPs of their own.  GPU and TPU get XLA's operations.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_shapes_only: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "shapes_only", default=False
)


def on_cpu() -> bool:
    """Whether programs are compiled for CPU: the default backend, when tracing."""
    return jax.default_backend() == "cpu" and not _shapes_only.get()


@contextlib.contextmanager
def shapes_only() -> Iterator[None]:
    """Takes XLA's operations on CPU too: they are traced several times as quickly."""
    token = _shapes_only.set(True)
    try:
        yield
    finally:
        _shapes_only.reset(token)
