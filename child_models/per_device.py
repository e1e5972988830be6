"""A training step in which every device trains an architecture of its own.

ENAS, Pham et al. 2018 (https://arxiv.org/abs/1802.03268), equation 1, with M the number
of devices: the gradient is the mean of those of M sampled architectures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from child_models.placement import AXIS


class Gradient(NamedTuple):
    """What a batch says about shared weights.

    Attributes:
      grads: of the loss by the parameters.
      metrics: scalars, by name; "loss" is not finite where the gradient is not.
      decisions: int32[T] of the architecture; of several, the first whose loss is not
        finite, or else the first.
    """

    grads: Any
    metrics: dict[str, jax.Array]
    decisions: jax.Array


# (keys, params, split, indices[B], decisions[M, T]) -> Gradient; keys is a pytree.
GradientFn = Callable[[Any, Any, Any, jax.Array, jax.Array], Gradient]


def per_device(mesh: Mesh, gradient: GradientFn) -> GradientFn:
    """Lets each device see one architecture and its part of the batch; averages.

    Args:
      mesh: of M devices along its axis "data".
      gradient: of one architecture, ``decisions[1, T]``, without collectives.  Device i
        calls it with keys into which i is folded.

    Returns:
      the same of M architectures: means of gradients and metrics.
    """
    devices = mesh.shape[AXIS]

    def local(keys, params, split, indices, decisions):
        device = jax.lax.axis_index(AXIS)
        keys = jax.tree.map(lambda k: jax.random.fold_in(k, device), keys)
        # Else the gradient by parameters that all devices hold would be summed where
        # they are used: in branches of a conditional, where devices never meet.
        params = jax.lax.pcast(params, AXIS, to="varying")
        own = decisions[device][None]
        grads, metrics, _ = gradient(keys, params, split, indices, own)
        failed = ~jnp.isfinite(metrics["loss"])
        first = jax.lax.pmin(jnp.where(failed, device, devices), AXIS)
        grads, metrics = jax.lax.pmean((grads, metrics), AXIS)
        return Gradient(grads, metrics, decisions[first % devices])

    whole, parts = PartitionSpec(), PartitionSpec(AXIS)
    return jax.shard_map(
        local, mesh=mesh, in_specs=(whole, whole, whole, parts, whole), out_specs=whole
    )
