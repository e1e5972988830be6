"""Checkpoints of a whole search state, by Orbax.

Saving is asynchronous, from a copy on the host.  Each checkpoint carries a checksum;
`restore` takes the newest one that is intact.  Nothing is ever deleted but by age.
Of several processes each has its own, or none: Orbax waits for no other.
"""

import errno
import itertools
import os
import shutil
import sys
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from launch.command import UserError

_FILES = 2**18  # bytes that a checkpoint takes beside its arrays, at most
_OTHER = "was written by another version of this program; take another workdir"


class Checkpoints:
    """The checkpoints of one folder; use as a context manager.

    Args:
      folder: holds one folder a step.
      keep: how many of the newest are kept; None to read only: nothing in the folder
        is written, renamed or deleted.
    """

    def __init__(self, folder: epath.PathLike, *, keep: int | None):
        self._folder = _absolute(epath.Path(folder))
        self._read_only = keep is None
        alone = _alone()
        if not self._read_only:
            self._folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(
            self._folder,
            item_handlers={
                "state": ocp.StandardCheckpointHandler(multiprocessing_options=alone),
                "host": ocp.JsonCheckpointHandler(multiprocessing_options=alone),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                read_only=self._read_only,
                create=False,
                multiprocessing_options=alone,
                enable_async_checkpointing=not self._read_only,
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

        Raises:
          OSError: if the disk has no room for it.
        """
        if step == self._manager.latest_step():
            return
        arrays = jax.tree.map(_to_host, state)
        self._check_room(sum(array.nbytes for array in jax.tree.leaves(arrays)))
        host = {"progress": progress, "checksum": _checksum(arrays)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(arrays), host=ocp.args.JsonSave(host)
            ),
        )

    def _check_room(self, size: int) -> None:
        """Asks the disk first: Orbax would print pages where it is full."""
        folder = os.fspath(self._folder)
        if not os.path.isdir(folder):  # of a remote store
            return
        if shutil.disk_usage(folder).free < size + _FILES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)

    def wait(self) -> None:
        """Returns when all that was saved is on disk."""
        self._manager.wait_until_finished()

    def restore(self, like: Any, *, free: bool = False) -> tuple[Any, Any] | None:
        """What `read` returns, with the state on JAX's default device."""
        found = self.read(like, free=free)
        return found and (from_host(like, found[0], jnp.array), found[1])

    def read(self, like: Any, *, free: bool = False) -> tuple[Any, Any] | None:
        """Reads the newest intact checkpoint.

        A damaged one is warned of and renamed to ``damaged-STEP``.

        Args:
          like: the state's shapes and dtypes, as `jax.eval_shape` gives them.
          free: whether shapes may be others; where `like` has an empty dictionary there
            may be any arrays, of any names.

        Returns:
          the state's arrays on the host, keys as their data, and progress; or None
          where no checkpoint is intact.

        Raises:
          UserError: if the newest intact one is of other shapes than `like`.
        """
        shapes = host_shapes(like)
        found = None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                arrays, host = self._read(step, shapes, free)
            except UserError:
                raise
            except Exception as error:  # whatever a damaged file makes Orbax raise
                self._set_aside(step, error)
                continue
            found = arrays, host["progress"]
            break
        self._manager.reload()
        return found

    def _read(self, step: int, shapes: Any, free: bool) -> tuple[Any, Any]:
        stored = self._manager.item_metadata(step).state.tree
        shapes = _as_stored(shapes, stored) if free else shapes
        if _stored_layout(stored) != _layout(shapes):
            raise UserError(f"checkpoint {self._folder / str(step)} {_OTHER}")
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

    def _set_aside(self, step: int, error: Exception) -> None:
        """Warns of a damaged checkpoint, and renames it."""
        path = self._folder / str(step)
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        text = f"warning: checkpoint {path} is damaged ({reason}); "
        if not self._read_only:
            tails = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
            names = (f"damaged-{step}{tail}" for tail in tails)
            name = next(name for name in names if not (self._folder / name).exists())
            path.rename(self._folder / name)
            text += f"renamed to {name}, "
        print(f"{text}taking the one before", file=sys.stderr)


def host_shapes(like: Any) -> Any:
    """Arrays of zeros, of the shapes and dtypes that `Checkpoints.read` returns."""
    return jax.tree.map(_host_shape, like)


def from_host(like: Any, arrays: Any, put: Callable[[Any], Any]) -> Any:
    """A state, with typed keys, out of what `Checkpoints.read` returns.

    Args:
      like: the state's shapes and dtypes.
      arrays: on the host.
      put: brings an array to where it is used; copies it.
    """

    def place(like: jax.ShapeDtypeStruct, x: np.ndarray) -> jax.Array:
        if _is_open(like):
            return jax.tree.map(put, x)
        placed = put(x)
        return jax.random.wrap_key_data(placed) if _is_key(like) else placed

    return jax.tree.map(place, like, arrays, is_leaf=_is_open)


def _alone() -> ocp.options.MultiprocessingOptions:
    """What Orbax is told where other processes do not take part."""
    if jax.process_count() == 1:
        return ocp.options.MultiprocessingOptions()
    me = jax.process_index()
    return ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"process{me}"
    )


def _layout(shapes: Any) -> dict[str, tuple]:
    """Shape and dtype of each array of a tree, by its dotted path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(shapes)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (x.shape, str(x.dtype))
        for path, x in leaves
    }


def _as_stored(shapes: Any, stored: Any) -> Any:
    """The tree of `shapes`, with the shapes that a checkpoint has in those places."""

    def zeros(metadata):
        return np.zeros(metadata.shape, metadata.dtype)

    def place(path, like):
        found = stored
        for key in path:
            name = jax.tree_util.keystr((key,), simple=True)
            found = found[int(name) if isinstance(found, list) else name]
        return jax.tree.map(zeros, found)

    try:
        return jax.tree_util.tree_map_with_path(place, shapes, is_leaf=_is_open)
    except (KeyError, IndexError, TypeError):  # a tree of another version
        return shapes


def _is_open(like: Any) -> bool:
    """Whether a place may hold any arrays: an empty dictionary."""
    return isinstance(like, dict) and not like


def _stored_layout(tree: Any) -> dict[str, tuple]:
    """The same of a checkpoint, from its metadata."""
    leaves = jax.tree.leaves(tree)
    return {x.name: (tuple(x.shape), str(np.dtype(x.dtype))) for x in leaves}


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


def _checksum(arrays: Any) -> int:
    total = 0
    for leaf in jax.tree.leaves(arrays):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
