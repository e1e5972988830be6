"""One training from scratch: compiled calls, and what happens between them.

Between two calls progress is shown, signals are heeded and the whole state is saved, so
that a training that was stopped anywhere goes on bit for bit.
"""

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from etils import epath
from tqdm import tqdm

from child_models.recipe import TrainState
from child_models.retraining import Retraining
from launch.checkpoints import Checkpoints
from launch.command import UserError
from launch.display import HEARTBEAT_SECONDS
from launch.signals import Signals

CALL_SECONDS = 1.0
# Compiling well costs more than it saves where only so many steps run.
QUICK_STEPS = 3000


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      variables: "params" and "batch_stats".
      test_metric: mean metric over the test split.
      seconds: of training and testing, in all processes together.
      compile_seconds: beside them.
    """

    variables: dict[str, Any]
    test_metric: float
    seconds: float
    compile_seconds: float


class NotFinite(UserError):
    """The loss of a step was not finite."""


def train(
    training: Retraining,
    key: jax.Array,
    *,
    name: str,
    folder: epath.PathLike,
    checkpoint_seconds: float,
    signals: Signals,
) -> Trained:
    """Runs a training, or goes on with the one whose checkpoint is there; then tests.

    Args:
      training: what is run.
      key: of all that is random in it.
      name: shown with the progress.
      folder: of the checkpoints; of this training only.
      checkpoint_seconds: between checkpoints.
      signals: heeded between calls, after saving, and before compiling.

    Raises:
      NotFinite: if the loss of a step is not.
      Interrupted: after a signal.
    """
    with (
        Checkpoints(epath.Path(folder), keep=1) as checkpoints,
        _Progress(name, training) as progress,
    ):
        run = _Run(training, key, checkpoints, progress, signals)
        saved = time.monotonic()
        while run.step < training.steps:
            if signals.caught is not None:
                run.save()
                signals.heed()
            run.call()
            if time.monotonic() - saved > checkpoint_seconds:
                run.save()
                saved = time.monotonic()
        run.save()
        return run.finish()


class _Run:
    """One process' work on a training."""

    def __init__(self, training, key, checkpoints, progress, signals):
        self._training = training
        self._checkpoints = checkpoints
        self._progress = progress
        self._signals = signals
        self._seconds = self._compile_seconds = 0.0
        self._count = 1
        self._state = self._restore(key)
        self.step = int(self._state.step)
        if self.step < training.steps:
            count = jnp.int32(1)
            arguments = (self._state, training.data, count)
            self._run = self._compile(training.run, *arguments, donate=(0,))

    def _restore(self, key: jax.Array) -> TrainState:
        data = self._training.data
        found = self._checkpoints.restore(
            jax.eval_shape(self._training.init, key, data)
        )
        if found is None:
            # It runs once, so that no optimisation is worth its time.
            return self._compile(self._training.init, key, data, level=0)(key, data)
        state, progress = found
        self._seconds = progress["seconds"]
        self._compile_seconds = progress["compile_seconds"]
        return state

    def _compile(self, function, *arguments, donate=(), level=None) -> Callable:
        """Compiles, unless a signal was noted; what was trained is saved by then."""
        self._signals.heed()
        begin = time.monotonic()
        self._progress.say("compiling")
        if level is None and self._training.steps < QUICK_STEPS:
            level = 1
        options = None
        if level is not None and jax.default_backend() == "cpu":
            options = {"xla_backend_optimization_level": level}
        lowered = jax.jit(function, donate_argnums=donate).lower(*arguments)
        compiled = lowered.compile(options)
        self._compile_seconds += time.monotonic() - begin
        self._progress.say("compiled")
        return compiled

    def call(self) -> None:
        """One compiled call of about `CALL_SECONDS`."""
        begin, before = time.monotonic(), self.step
        count = jnp.int32(self._count)
        self._state, metrics = self._run(self._state, self._training.data, count)
        metrics = jax.device_get(metrics)
        seconds = time.monotonic() - begin
        self._seconds += seconds
        self.step = int(self._state.step)
        if bool(self._state.failed):
            epoch = self.step // self._training.steps_per_epoch + 1
            raise NotFinite(
                f"the loss of step {self.step} (epoch {epoch}) is not finite"
            )
        pace = max(seconds, 1e-6) / max(self.step - before, 1)
        self._count = max(1, min(int(CALL_SECONDS / pace), 8 * self._count))
        self._progress.step(self.step, metrics)

    def save(self) -> None:
        """Writes a checkpoint."""
        progress = {
            "seconds": self._seconds,
            "compile_seconds": self._compile_seconds,
        }
        self._checkpoints.save(self.step, self._state, progress)
        self._checkpoints.wait()

    def finish(self) -> Trained:
        """Tests the network, whose training is saved."""
        state, data = self._state, self._training.data
        variables = state.variables
        test = self._compile(self._training.test, variables, data)
        begin = time.monotonic()
        metric = float(test(variables, data))
        seconds = self._seconds + time.monotonic() - begin
        return Trained(variables, metric, seconds, self._compile_seconds)


class _Progress:
    """A tqdm line on a terminal; elsewhere a line a minute."""

    def __init__(self, name: str, training: Retraining):
        self._name, self._training = name, training
        self._printed = time.monotonic()
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(total=training.steps, desc=name, unit="step", leave=False)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        self._printed = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(text)

    def step(self, done: int, metrics: dict[str, Any]) -> None:
        text = f"loss {metrics['loss']:.3f}  accuracy {metrics['accuracy']:.3f}"
        epoch = done / self._training.steps_per_epoch
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(f"epoch {epoch:.1f}  {text}")
        elif time.monotonic() - self._printed > HEARTBEAT_SECONDS:
            self._printed = time.monotonic()
            share = done / self._training.steps
            print(f"{self._name}: epoch {epoch:.1f} ({share:.0%})  {text}", flush=True)
