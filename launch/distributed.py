"""Several processes that run one search: joining them, and agreeing on the host's side.

Every process runs the same compiled programs in the same order over the devices of all.
So whatever a process decides by itself (a clock, a signal, a file) is first exchanged.
Process 0 alone writes and prints.  With one process nothing here does anything.
"""

import atexit
import contextlib
import importlib.util
import os
import re
import socket
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import multihost_utils

from launch.command import UserError

CONNECT_SECONDS = 300
_METADATA = (
    "http://metadata.google.internal/computeMetadata/v1/instance/attributes/"
    "worker-network-endpoints"
)
_METADATA_SECONDS = 5
_SLURM_STEP = (
    "SLURM_JOB_ID",
    "SLURM_STEP_NODELIST",
    "SLURM_PROCID",
    "SLURM_LOCALID",
)

# ---- joining ------------------------------------------------------------------------


def define_flags() -> None:
    """Defines ``--coordinator``, ``--num_processes`` and ``--process_id``."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, of several")
    flags.DEFINE_integer("num_processes", None, "processes that run this one search")
    flags.DEFINE_integer("process_id", None, "number of this process, from 0")


def arguments_from_flags() -> dict[str, Any] | None:
    """What `jax.distributed.initialize` is to be told.

    Returns:
      its arguments by the flags; without flags, none at all where a Cloud TPU slice or
      a Slurm step has several processes, and None where this process is alone.

    Raises:
      UserError: on flags that do not go together.
    """
    names = ("coordinator", "num_processes", "process_id")
    given = {name: flags.FLAGS[name].value for name in names}
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if len(missing) == len(names):
        return {} if max(_slurm_tasks(), _tpu_workers()) > 1 else None
    if missing:
        raise UserError(
            f"{' and '.join(missing)} missing; give --coordinator, --num_processes "
            "and --process_id together, or none of them"
        )
    return _checked(**given)


def _checked(coordinator, num_processes, process_id) -> dict[str, Any] | None:
    if num_processes < 1:
        raise UserError(f"--num_processes is {num_processes}; it must be 1 or more")
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id is {process_id}; of --num_processes={num_processes} it must "
            f"be 0 to {num_processes - 1}"
        )
    address = re.fullmatch(r"(\S+):(\d{1,5})", coordinator)
    if address is None or not 0 < int(address[2]) < 2**16:
        raise UserError(
            f"--coordinator is {coordinator!r}; expected HOST:PORT of process 0"
        )
    if num_processes == 1:
        return None
    return {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
    }


def _slurm_tasks() -> int:
    """Tasks of the Slurm step that runs this process; 1 where ``srun`` did not."""
    if not all(name in os.environ for name in _SLURM_STEP):
        return 1
    tasks = os.environ.get("SLURM_NTASKS", "1")
    return min(int(tasks), int(os.environ.get("SLURM_STEP_NUM_TASKS", tasks)))


def _tpu_workers() -> int:
    """Hosts of the Cloud TPU slice that this one belongs to; 1 where there is none."""
    platforms = jax.config.jax_platforms or "tpu"
    # JAX sets the variable, when it is imported, on a machine without a TPU.
    if "tpu" not in platforms or "TPU_SKIP_MDS_QUERY" in os.environ:
        return 1
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if os.environ.get(name):
            return len(os.environ[name].split(","))
    if importlib.util.find_spec("libtpu") is None:
        return 1
    request = urllib.request.Request(_METADATA, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=_METADATA_SECONDS) as reply:
            return len(reply.read().decode().split(","))
    except OSError:
        return 1


@contextlib.contextmanager
def joined(arguments: dict[str, Any] | None) -> Iterator[None]:
    """Joins the other processes, before JAX touches any device, and leaves them.

    A process that fails by itself ends at once, so that the others see it gone; one
    that ends as all do waits until all have.

    Args:
      arguments: of `arguments_from_flags`.

    Raises:
      UserError: if the others are not met.
    """
    if arguments is None:
        yield
        return
    if "coordinator_address" in arguments:
        _meet(arguments["coordinator_address"], arguments["process_id"])
    # JAX would take SIGTERM for itself; `Signals` heeds it between compiled calls.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=CONNECT_SECONDS)
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"cannot join the other processes: {reason}") from error
    atexit.register(_leave)  # runs before JAX's own handler, which waits for the others
    yield
    end_together()


def _meet(coordinator: str, process_id: int) -> None:
    """Makes sure of the coordinator's port; JAX would end the process without a word.

    Raises:
      UserError: in process 0 if the port is taken, in another if nobody answers there.
    """
    host, port = coordinator.rsplit(":", 1)
    address = (host.strip("[]"), int(port))
    if process_id == 0:
        try:
            socket.create_server(("", address[1])).close()
        except OSError as error:
            raise UserError(
                f"cannot listen at port {port}: {error.strerror}"
            ) from error
        return
    end = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"process 0 does not answer at --coordinator={coordinator}: {error}"
                ) from error
        time.sleep(0.2)


def end_together() -> None:
    """Says that this process ends where all others do, and may wait for them."""
    atexit.unregister(_leave)


def _leave() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


# ---- agreeing -----------------------------------------------------------------------


def is_main() -> bool:
    """Whether this process writes and prints."""
    return jax.process_index() == 0


def exchange(*values: int) -> np.ndarray:
    """Hands a few numbers to all processes, which all must call this.

    Args:
      values: 31 bits each.

    Returns:
      int[P, n], a row for each of the P processes.

    Raises:
      UserError: if another process is gone.
    """
    row = np.array(values, np.int32)
    if jax.process_count() == 1:
        return row[None]
    try:
        return np.asarray(multihost_utils.process_allgather(row))
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"lost another process, whose messages may say why: {reason}"
        ) from error


@contextlib.contextmanager
def all_or_none() -> Iterator[None]:
    """Ends all processes where one fails in the body, which holds no computation.

    Raises:
      UserError: where only others have failed.
    """
    try:
        yield
    except Exception:
        exchange(1)
        end_together()
        raise
    failed = np.flatnonzero(exchange(0))
    if len(failed):
        end_together()
        raise UserError(f"process {failed[0]} has failed; its messages say why")


def check_same(what: str, number: int) -> None:
    """Raises `UserError`, on all processes, where their numbers differ."""
    rows = exchange(number & 0x7FFFFFFF)
    if (rows != rows[0]).any():
        end_together()
        odd = np.flatnonzero((rows != rows[0]).any(axis=1))[0]
        raise UserError(f"{what} of process {odd} differ from those of process 0")


def broadcast(tree: Any) -> Any:
    """The NumPy arrays of process 0, bit for bit, on all processes.

    Args:
      tree: of arrays; those of other processes lend their shapes and dtypes only.
    """
    if jax.process_count() == 1:
        return tree
    sent = jax.tree.map(lambda x: x.reshape(-1).view(np.uint8), tree)
    got = multihost_utils.broadcast_one_to_all(sent)
    return jax.tree.map(
        lambda x, b: np.asarray(b).view(x.dtype).reshape(x.shape), tree, got
    )


def broadcast_text(text: str) -> str:
    """The text of process 0 on all processes."""
    data = np.frombuffer(text.encode(), np.uint8)
    length = int(exchange(len(data))[0, 0])
    return (
        broadcast(data if is_main() else np.zeros(length, np.uint8)).tobytes().decode()
    )
