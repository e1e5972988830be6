"""Checkpoints of a whole search state, by Orbax.

Saving is asynchronous, from a copy on the host.  Each checkpoint carries a checksum;
`restore` takes the newest one that is intact.
"""

import os
import sys
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath


class Checkpoints:
    """The checkpoints of one folder; use as a context manager.

    Args:
      folder: holds one folder a step.
      keep: how many of the newest are kept.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int):
        self._folder = _absolute(epath.Path(folder))
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=True
            ),
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self._manager.close()

    def latest(self) -> epath.Path | None:
        """Folder of the newest checkpoint, None where there is none."""
        self._manager.wait_until_finished()
        step = self._manager.latest_step()
        return None if step is None else self._folder / str(step)

    def save(self, step: int, state: Any, progress: Any) -> None:
        """Saves in the background; a step that is there already is left as it is.

        Args:
          step: names the checkpoint; grows.
          state: pytree of arrays, with typed keys or not.
          progress: what the host keeps beside it, as JSON.
        """
        if step == self._manager.latest_step():
            return
        arrays = jax.tree.map(_to_host, state)
        host = {"progress": progress, "checksum": _checksum(arrays)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), host=ocp.args.JsonSave(host)
            ),
        )

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Any) -> tuple[Any, Any] | None:
        """Reads the newest intact checkpoint; damaged ones are warned of and deleted.

        Args:
          like: the state's shapes and dtypes, as `jax.eval_shape` gives them.

        Returns:
          state and progress, or None where no checkpoint is intact.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays, host = self._read(step, like)
            except Exception as error:  # whatever a damaged file makes Orbax raise
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                print(
                    f"warning: checkpoint {self._folder / str(step)} is damaged "
                    f"({reason}); taking the one before",
                    file=sys.stderr,
                )
                (self._folder / str(step)).rmtree()
                continue
            self._manager.reload()
            return jax.tree.map(_from_host, like, arrays), host["progress"]
        self._manager.reload()
        return None

    def _read(self, step: int, like: Any) -> tuple[Any, Any]:
        shapes = jax.tree.map(_host_shape, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(shapes), host=ocp.args.JsonRestore()
            ),
        )
        arrays = jax.tree.map(np.asarray, restored.state)
        if _checksum(arrays) != restored.host["checksum"]:
            raise ValueError("its checksum is wrong")
        return arrays, restored.host


def _absolute(path: epath.Path) -> epath.Path:
    """Orbax refuses relative paths; remote ones are absolute."""
    remote = "://" in os.fspath(path)
    return path if remote else epath.Path(os.path.abspath(path))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _to_host(x: jax.Array) -> np.ndarray:
    """A copy: the next compiled call donates, and on CPU shares, the buffer of x."""
    return np.array(jax.random.key_data(x) if _is_key(x) else x)


def _host_shape(x: jax.ShapeDtypeStruct) -> np.ndarray:
    if _is_key(x):
        x = jax.eval_shape(jax.random.key_data, x)
    return np.zeros(x.shape, x.dtype)


def _from_host(like: jax.ShapeDtypeStruct, x: np.ndarray) -> jax.Array:
    if _is_key(like):
        return jax.random.wrap_key_data(jnp.array(x))
    return jnp.array(x)


def _checksum(arrays: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(arrays):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
