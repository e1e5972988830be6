"""From stored uint8 images to the normalised floats that a child sees."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from child_models.types import Dataset


def preprocess(dataset: Dataset) -> Callable[[jax.Array], jax.Array]:
    """Makes the normalisation of a data set's images.

    Args:
      dataset: whose mean and standard deviation count.

    Returns:
      ``(images uint8[..., C]) -> float32[..., C]``, each channel of mean 0 and standard
      deviation 1 over the training images.
    """
    scale = jnp.asarray(1 / (255 * dataset.std), jnp.float32)
    shift = jnp.asarray(-dataset.mean / dataset.std, jnp.float32)

    def normalise(images: jax.Array) -> jax.Array:
        shape = (1,) * (images.ndim - 1) + (-1,)
        return images.astype(jnp.float32) * scale.reshape(shape) + shift.reshape(shape)

    return normalise
