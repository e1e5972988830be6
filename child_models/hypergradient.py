"""The gradient of the validation loss with respect to an architecture's weights.

DARTS, Liu et al. 2019 (https://arxiv.org/abs/1806.09055), section 2.3; the published
code, quark0/darts, takes momentum and weight decay into the step ahead, and leaves its
clipping out.  With L the loss on training and V that on validation images, w the shared
weights, a those of the architecture, and

    w' = w - rate (drift + dL(w, a)/dw),    drift = momentum trace + weight_decay w,

the gradient is

    first               dV(w, a)/da
    exact               dV(w'(a), a)/da, through the step
    finite_difference   dV(w', a)/da - rate (dL(w + e v, a)/da - dL(w - e v, a)/da) / 2e
                        at fixed w', v = dV(w', a)/dw', e = 0.01 / |v|
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

HYPERGRADIENTS = ("first", "finite_difference", "exact")
_REACH = 0.01  # |e v|

Loss = Callable[[Any, Any], jax.Array]  # (params, architecture) -> float[]


def architecture_gradient(
    kind: str,
    train_loss: Loss,
    validation_loss: Callable[[Any, Any], tuple[jax.Array, Any]],
    params: Any,
    architecture: Any,
    rate: jax.Array | float,
    drift: Any,
) -> tuple[Any, Any]:
    """Differentiates the validation loss by the architecture's weights.

    Args:
      kind: one of `HYPERGRADIENTS`.
      train_loss: L; not called to first order.
      validation_loss: V, which also returns something else, as does this function.
      params: w, a pytree.
      architecture: a, a pytree.
      rate: xi of the step ahead; at 0 the second order is the first.
      drift: like the params.

    Returns:
      ``(auxiliary, gradient)``; the auxiliary of V where V is differentiated: at w to
      first order, at w' to second.
    """
    value = jax.grad(validation_loss, argnums=1, has_aux=True)

    def ahead(architecture):
        grads = jax.grad(train_loss)(params, architecture)
        return jax.tree.map(lambda w, d, g: w - rate * (d + g), params, drift, grads)

    if kind == "first":
        gradient, auxiliary = value(params, architecture)
    elif kind == "exact":
        gradient, auxiliary = jax.grad(
            lambda a: validation_loss(ahead(a), a), has_aux=True
        )(architecture)
    else:
        (v, gradient), auxiliary = jax.grad(
            validation_loss, argnums=(0, 1), has_aux=True
        )(ahead(architecture), architecture)
        curvature = _mixed_product(train_loss, params, architecture, v)
        gradient = jax.tree.map(lambda g, c: g - rate * c, gradient, curvature)
    return auxiliary, gradient


def _mixed_product(train_loss, params, architecture, v):
    """d2L/da dw times v, by a central difference along v."""
    reach = _REACH / jnp.maximum(optax.tree.norm(v), 1e-30)  # of v = 0 the product is 0

    def gradient_at(signed):
        moved = jax.tree.map(lambda w, d: w + signed * d, params, v)
        return jax.grad(train_loss, argnums=1)(moved, architecture)

    return jax.tree.map(
        lambda plus, minus: (plus - minus) / (2 * reach),
        gradient_at(reach),
        gradient_at(-reach),
    )
