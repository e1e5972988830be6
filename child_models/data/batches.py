"""Shuffled mini-batches as a traceable state machine.

The images stay on the device; what moves is a batch of indices.  Every epoch visits a
new permutation, drawn from ``fold_in(key, epoch)``, so that the order depends on the
state alone and a run that was stopped goes on with the very same batches.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class BatchState:
    """Where a pass over a split stands."""

    key: jax.Array  # key[], never consumed; every epoch folds its number in
    epoch: jax.Array  # int32[], the epoch of `order`
    position: jax.Array  # int32[], how many of `order` were visited
    order: jax.Array  # int32[size], the permutation of this epoch


@dataclasses.dataclass(frozen=True)
class Batches:
    """Batches of indices into a split; the last partial batch of an epoch is dropped.

    Attributes:
      size: number of images in the split.
      batch: number of images in a batch.
      split: what the split is called in messages.

    Raises:
      ValueError: if the batch is empty or larger than the split.
    """

    size: int
    batch: int
    split: str = "train"

    def __post_init__(self):
        if not 1 <= self.batch <= self.size:
            raise ValueError(
                f"a batch of {self.batch} cannot be taken from the {self.split} split"
                f" of {self.size} images; it must be 1 to {self.size}"
            )

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return self.size // self.batch

    def init(self, key: jax.Array) -> BatchState:
        """The start of epoch 0; the key becomes part of the state."""
        zero = jnp.zeros((), jnp.int32)
        return BatchState(key, zero, zero.copy(), self._order(key, zero))

    def next(self, state: BatchState) -> tuple[jax.Array, BatchState]:
        """Takes one batch.

        Args:
          state: from `init` or an earlier call.

        Returns:
          int32[batch], indices into the split, and the next state.
        """
        exhausted = state.position + self.batch > self.size
        state = jax.lax.cond(exhausted, self._reshuffle, lambda s: s, state)
        indices = jax.lax.dynamic_slice(state.order, (state.position,), (self.batch,))
        return indices, state.replace(position=state.position + self.batch)

    def _reshuffle(self, state: BatchState) -> BatchState:
        epoch = state.epoch + 1
        order = self._order(state.key, epoch)
        return state.replace(epoch=epoch, position=jnp.int32(0), order=order)

    def _order(self, key: jax.Array, epoch: jax.Array) -> jax.Array:
        order = jax.random.permutation(jax.random.fold_in(key, epoch), self.size)
        return order.astype(jnp.int32)


def sum_over_split(
    size: int, batch: int, measure: Callable[[jax.Array, jax.Array], Any]
) -> Any:
    """Adds up what a function measures on the batches of a whole split, in order.

    Args:
      size: number of images in the split.
      batch: number of images in a batch.
      measure: ``(indices int32[batch], weight float32[batch]) -> sums``, a pytree.  The
        last batch is filled up from the start of the split with images of weight 0.

    Returns:
      the sums over all batches.
    """

    def one(step):
        index = step * batch + jnp.arange(batch)
        return measure(index % size, (index < size).astype(jnp.float32))

    def body(sums, step):
        return jax.tree.map(jnp.add, sums, one(step)), None

    shapes = jax.eval_shape(one, jnp.int32(0))
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    return jax.lax.scan(body, zeros, jnp.arange(-(-size // batch)))[0]
