"""Random augmentation of batches of images, inside compiled code.

Pad-and-crop with horizontal flips is the customary augmentation of CIFAR-10 (He et al.
2015, https://arxiv.org/abs/1512.03385); cutout is of DeVries and Taylor 2017,
https://arxiv.org/abs/1708.04552.
"""

from collections.abc import Callable
from functools import partial

import dm_pix as pix
import jax
import jax.numpy as jnp


def augmentation(
    *, pad: int = 0, flip: bool = False, cutout: int = 0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes a random augmentation of batches; every image is drawn for on its own.

    Args:
      pad: pixels of zeros around the image, from which a window of the image's size is
        cropped; 0 for none.  In normalised images zero is the mean colour.
      flip: whether to mirror left and right with probability 1/2.
      cutout: side of a square of zeros whose centre is uniform over the image, cut off
        at the border; 0 for none.

    Returns:
      ``(key, images float32[B, H, W, C]) -> images`` of the same shape; the key is
      consumed.

    Raises:
      ValueError: if pad or cutout is negative.
    """
    for name, value in (("pad", pad), ("cutout", cutout)):
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be 0 or more pixels")

    def augment(key: jax.Array, images: jax.Array) -> jax.Array:
        crop_key, flip_key, cutout_key = jax.random.split(key, 3)
        batch = images.shape[0]
        if pad:
            keys = jax.random.split(crop_key, batch)
            images = jax.vmap(partial(_pad_and_crop, pad=pad))(keys, images)
        if flip:
            keys = jax.random.split(flip_key, batch)
            images = jax.vmap(pix.random_flip_left_right)(keys, images)
        if cutout:
            keys = jax.random.split(cutout_key, batch)
            images = jax.vmap(partial(_cut_out, side=cutout))(keys, images)
        return images

    return augment


def _pad_and_crop(key: jax.Array, image: jax.Array, pad: int) -> jax.Array:
    padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    return pix.random_crop(key, padded, image.shape)


def _cut_out(key: jax.Array, image: jax.Array, side: int) -> jax.Array:
    """Zeroes rows and columns ``centre - side // 2 + [0, side)`` of image [H, W, C]."""
    height, width, _ = image.shape
    row_key, column_key = jax.random.split(key)
    top = jax.random.randint(row_key, (), 0, height) - side // 2
    left = jax.random.randint(column_key, (), 0, width) - side // 2
    rows = jnp.arange(height)[:, None, None] - top
    columns = jnp.arange(width)[None, :, None] - left
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return jnp.where(inside, jnp.zeros_like(image), image)
