"""Trials as tasks of Ray, on the cluster of ``RAY_ADDRESS`` or on this machine.

Ray is the extra ``.[ray]``.  The workers need this package installed as it is here; the
data set is sent to them.  A worker compiles the trials once, and keeps the program as
long as Ray keeps the worker.  A trial whose worker dies is run again, once.
"""

import collections
import dataclasses
import functools
import importlib.util
import math
import os
import re
import socket
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from controller.execution import (
    Executor,
    Outcome,
    Runner,
    joined,
    nothing,
    rows_of,
)
from controller.types import Evaluator, Proposal, Trial
from launch.command import UserError
from launch.signals import handlers_kept

CONNECT_SECONDS = 10.0
# What a result depends on besides the program; workers take the values from here.
_NUMERICS = (
    "jax_default_matmul_precision",
    "jax_default_prng_impl",
    "jax_enable_x64",
    "jax_threefry_partitionable",
)


def on_ray(make: Callable[[], Runner], evaluator: Evaluator) -> Executor:
    """Runs trials as tasks of Ray, as many at once as the evaluator's execution says.

    Args:
      make: builds the trials in a worker; is sent there.
      evaluator: of the trials.

    Returns:
      the Executor; it connects when it is first used, and raises `UserError` where it
      cannot.

    Raises:
      UserError: if Ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError(
            "evaluator.executor='ray' needs the package ray: pip install "
            "'cellwright[ray]', in a checkout pip install -e '.[ray]'"
        )
    tasks = _Tasks(make, evaluator)
    return Executor(
        tasks.start,
        tasks.submit,
        tasks.wait,
        tasks.collect,
        tasks.score,
        tasks.announce,
    )


class _Died(UserError):
    """A worker of Ray died, and so did the one that ran the same again."""

    def __init__(self, memory: bool):
        how = "ran out of memory" if memory else "died"
        super().__init__(f"its worker {how}, and so did the one that ran it again")


@dataclasses.dataclass(eq=False)
class _Ticket:
    """What was submitted together, and its tasks; None: not begun."""

    tasks: list[Any]
    key: Any = None
    proposal: Proposal | None = None


class _Work(NamedTuple):
    """One task of a ticket."""

    ticket: _Ticket
    i: int  # which of its tasks
    arguments: tuple[Any, ...]  # method and its arguments
    again: bool = False  # whether its worker died once


class _Tasks:
    """The tasks of one search."""

    def __init__(self, make: Callable[[], Runner], evaluator: Evaluator):
        self._make = make
        self._evaluator = evaluator
        self._limit = evaluator.execution.workers
        self._waiting: collections.deque[_Work] = collections.deque()
        self._running: dict[Any, _Work] = {}  # by task
        self._scores: dict[bytes, _Ticket] = {}

    @functools.cached_property
    def _ray(self) -> Any:
        """Ray's module, connected."""
        execution = self._evaluator.execution
        return connect(execution.workers, execution.gpus)

    @functools.cached_property
    def _remote(self) -> Callable[..., Any]:
        """``(method, *arguments) -> task``."""
        # Ray itself would repeat what a worker has no memory for without end.
        options = {"max_retries": 0, "num_gpus": self._evaluator.execution.gpus}
        task = self._ray.remote(**options)(_work)
        numerics = {name: getattr(jax.config, name) for name in _NUMERICS}
        make = self._ray.put(self._make)  # sent once
        return lambda *arguments: task.remote(make, make.hex(), numerics, *arguments)

    def start(self, state: Any, proposal: Proposal) -> None:
        """Connects; workers compile when they begin."""
        del state, proposal
        self._ray  # noqa: B018

    def submit(self, key: Any, state: Any, proposal: Proposal) -> _Ticket:
        """Begins the trials of a proposal, or lets them wait for a free worker."""
        rows = rows_of(jax.device_get(proposal))
        ticket = _Ticket([None] * len(rows), key, proposal)
        for i, row in enumerate(rows):
            arguments = ("run", _plain(key), self._sent(state, row.parent), row)
            self._waiting.append(_Work(ticket, i, arguments))
        self._fill()
        return ticket

    def _sent(self, state: Any, parents: Any = None) -> Any:
        """What a worker needs of the evaluator's state: of weights the parents'."""
        if self._evaluator.keep is not None:
            state = self._evaluator.keep(state, [] if parents is None else parents)
        return jax.tree.map(_plain, state)

    def _fill(self) -> None:
        """Begins as many as may run at once; first what a worker died of, once."""
        if self._running:
            tasks = list(self._running)
            done, _ = self._ray.wait(tasks, num_returns=len(tasks), timeout=0)
            for task in done:
                work = self._running.pop(task)
                if not work.again and self._has_died(task):
                    work.ticket.tasks[work.i] = None
                    self._waiting.appendleft(work._replace(again=True))
        while self._waiting and len(self._running) < self._limit:
            work = self._waiting.popleft()
            task = self._remote(*work.arguments)
            work.ticket.tasks[work.i] = task
            self._running[task] = work

    def _has_died(self, task):
        try:
            self._ray.get(task)
        except self._deaths:
            return True
        except Exception:  # told where the result is asked for
            return False
        return False

    @functools.cached_property
    def _deaths(self) -> tuple[type[Exception], ...]:
        known = self._ray.exceptions
        return known.WorkerCrashedError, known.OutOfMemoryError, known.NodeDiedError

    def wait(self, tickets: Sequence[_Ticket], seconds: float) -> int | None:
        """The first of the tickets whose trials have all ended."""
        end = time.monotonic() + seconds
        while True:
            self._fill()
            for i, ticket in enumerate(tickets):
                if not any(t is None or t in self._running for t in ticket.tasks):
                    return i
            left = end - time.monotonic()
            if left <= 0:
                return None
            self._ray.wait(list(self._running), num_returns=1, timeout=left)

    def collect(self, state: Any, ticket: _Ticket) -> tuple[Any, Outcome]:
        """The trials of a ticket; the state gets the weights that they left."""
        parts = [
            self._result(task, state, ticket.key, row)
            for task, row in zip(ticket.tasks, rows_of(ticket.proposal), strict=True)
        ]
        trials, reasons, workers, weights = zip(*parts, strict=True)
        if self._evaluator.adopt is not None:
            state = functools.reduce(self._evaluator.adopt, weights, state)
        return state, Outcome(joined(ticket.proposal, trials), reasons, workers)

    def _result(self, task, state, key, row):
        try:
            return self._get(task)
        except _Died as died:
            like = Trial(None, np.zeros(1, np.float32), np.zeros(1, bool))
            if self._evaluator.keep is None:  # it may be traced, and hold more
                example = (key, state, self._evaluator.data, row)
                _, like = jax.eval_shape(self._evaluator.evaluate, *example)
            return nothing(like), str(died), None, None

    def score(self, state: Any, decisions: Any) -> float:
        """The score of one architecture, waited for."""
        name = np.asarray(decisions, np.int32).tobytes()
        if name not in self._scores:
            self.announce(state, [decisions])
        ticket = self._scores.pop(name)
        while self.wait([ticket], 60.0) is None:
            pass
        try:
            return self._get(ticket.tasks[0])
        except _Died:
            return math.nan

    def announce(self, state: Any, decisions: Sequence[Any]) -> None:
        """Begins to measure scores, or lets them wait for a free worker."""
        state = self._sent(state)
        for row in (np.asarray(row, np.int32) for row in decisions):  # of any length
            ticket = self._scores[row.tobytes()] = _Ticket([None])
            self._waiting.append(_Work(ticket, 0, ("score", state, row)))
        self._fill()

    def _get(self, task):
        """What a task returned; what it raised is raised here."""
        known = self._ray.exceptions
        try:
            return self._ray.get(task)
        except known.RayTaskError as error:
            if isinstance(error.cause, ImportError):
                raise UserError(
                    f"a worker of Ray cannot import what it needs: {error.cause}"
                ) from error
            raise error.cause from error
        except self._deaths as error:
            raise _Died(isinstance(error, known.OutOfMemoryError)) from None
        except known.RayError as error:
            text = " ".join(str(error).split())[:200]
            raise UserError(f"the Ray cluster has failed: {text}") from error


# ---- the cluster --------------------------------------------------------------------


def connect(workers: int, gpus: float) -> Any:
    """Ray's module, connected to the cluster of ``RAY_ADDRESS`` or to a local one.

    Args:
      workers: CPUs that a local one offers.
      gpus: that a worker needs.

    Raises:
      UserError: if the cluster is not reached, or has not so many GPUs.
    """
    import ray

    if not ray.is_initialized():
        _initialize(ray, workers)
    if ray.cluster_resources().get("GPU", 0) < gpus:
        raise UserError(f"evaluator.gpus is {gpus}; the Ray cluster has not so many")
    return ray


def _initialize(ray: Any, workers: int) -> None:
    address = os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        options = {"num_cpus": workers, "include_dashboard": False}
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # tells nobody
    _check_reachable(address)
    try:
        with handlers_kept(), warnings.catch_warnings():
            # A local cluster is started by fork and exec, which JAX warns of.
            warnings.filterwarnings("ignore", r"os\.fork\(\) was called")
            ray.init(
                address=address, log_to_driver=False, logging_level="ERROR", **options
            )
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(_unreachable(address, error)) from error


def _check_reachable(address: str) -> None:
    """Tries the port first: Ray tries for minutes, and then ends the process."""
    found = re.fullmatch(r"(?:\w+://)?(\[.+\]|[^:/]+):(\d+)", address)
    if found is None:  # "local", "auto", or for Ray to refuse
        return
    try:
        place = (found[1].strip("[]"), int(found[2]))
        socket.create_connection(place, timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(_unreachable(address, error)) from error


def _unreachable(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200]
    return (
        f"cannot reach the Ray cluster at RAY_ADDRESS={address}: {reason}; start it, "
        "or unset RAY_ADDRESS for a cluster on this machine"
    )


# ---- in a worker --------------------------------------------------------------------

_runners: dict[str, Runner] = {}


def _work(make, name, numerics, method, *arguments):
    """One task: a trial, why it is not valid, who ran it, what it left; or a score.

    Args:
      make: builds the trials; `name` is its name.
      numerics: settings of JAX.
      method: of `Runner`.
      *arguments: its own, with keys as `_plain` leaves them.
    """
    if name not in _runners:
        for setting, value in numerics.items():
            jax.config.update(setting, value)
        _runners.clear()
        _runners[name] = make()
    runner = _runners[name]
    run = getattr(runner, method)
    found = run(*jax.tree.map(_typed, arguments, is_leaf=_is_plain_key))
    if method == "score":
        return found
    state, trial, reason = found
    weights = None if runner.left is None else runner.left(state)
    return trial, reason, f"{socket.gethostname()}:{os.getpid()}", weights


@dataclasses.dataclass(frozen=True)
class _PlainKey:
    data: np.ndarray
    implementation: str


def _is_plain_key(x):
    return isinstance(x, _PlainKey)


def _plain(x):
    """An array on the host; of a key what a process needs to make it again."""
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        data = np.asarray(jax.random.key_data(x))
        return _PlainKey(data, str(jax.random.key_impl(x)))
    return np.asarray(x)


def _typed(x):
    if _is_plain_key(x):
        return jax.random.wrap_key_data(x.data, impl=x.implementation)
    return x
