"""Where arrays live on several devices: batches are split, all else is on each.

The program stays one: XLA splits it over the mesh, adds up gradients and batch
statistics over all devices, and so returns what one device would, but for rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "data"


class Placement(NamedTuple):
    """How a program's arrays are placed; each function takes and returns a pytree.

    Attributes:
      put: host arrays to every device, outside compiled code; of several processes
        each brings its own, equal, to its own devices.
      split: inside compiled code: the leading axis over the mesh.
      copy: inside compiled code: whole on each device.
      devices: how many there are.
    """

    put: Callable[[Any], Any]
    split: Callable[[Any], Any]
    copy: Callable[[Any], Any]
    devices: int

    def check(self, name: str, batch: int) -> None:
        """Tells of a batch that does not split.

        Raises:
          ValueError: with the name, the batch and the number of devices.
        """
        if batch % self.devices:
            raise ValueError(
                f"{name} is {batch}; it must be a multiple of the {self.devices} "
                "devices that a batch is split over"
            )


def placement(mesh: Mesh | None) -> Placement:
    """Places arrays on a mesh with an axis "data"; None for JAX's default device."""
    if mesh is None:

        def same(tree: Any) -> Any:
            return tree

        return Placement(lambda tree: jax.tree.map(jnp.array, tree), same, same, 1)
    whole, parts = (NamedSharding(mesh, PartitionSpec(*a)) for a in ((), (AXIS,)))

    def constrain(sharding):
        return lambda tree: jax.lax.with_sharding_constraint(tree, sharding)

    def put(x):
        return jax.make_array_from_callback(np.shape(x), whole, lambda i: x[i])

    return Placement(
        lambda tree: jax.tree.map(put, tree),
        constrain(parts),
        constrain(whole),
        mesh.shape[AXIS],
    )
