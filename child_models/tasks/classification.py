"""Image classification: one label an image."""

import jax
import jax.numpy as jnp
import optax

from child_models.types import Task


def classification(*, classes: int, label_smoothing: float = 0.0) -> Task:
    """Builds the task of naming an image's class.

    The loss is the cross-entropy in nats of ``softmax(logits)`` against the label, of
    which ``1 - label_smoothing`` of the mass stays and the rest is spread evenly over
    all classes (Szegedy et al. 2016, https://arxiv.org/abs/1512.00567).  The metric is
    1 where the largest logit is the label's, else 0; its mean is the accuracy.

    Args:
      classes: number of classes.
      label_smoothing: share of the mass that is spread, in [0, 1).

    Returns:
      the task; both functions take logits ``[B, classes]`` of any float type and labels
      ``int[B]``, and return float32[B].

    Raises:
      ValueError: on fewer than two classes, on label_smoothing outside [0, 1), or, when
        called, on logits of another width.
    """
    if classes < 2:
        raise ValueError(f"classes is {classes}; classification needs 2 or more")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing is {label_smoothing}; it must be in [0, 1)")

    def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
        _check_width(logits, classes)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, classes), label_smoothing)
        return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)

    def metric(logits: jax.Array, labels: jax.Array) -> jax.Array:
        _check_width(logits, classes)
        return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)

    return Task(loss, metric)


def _check_width(logits: jax.Array, classes: int) -> None:
    if logits.shape[-1] != classes:
        raise ValueError(f"logits are {logits.shape}; the task has {classes} classes")
