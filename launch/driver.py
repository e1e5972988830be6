"""The host's side of a search: compiled calls, and what happens between them.

Between two calls the driver writes trials, shows progress, heeds signals and saves
checkpoints.  The whole search is `SearchState` plus a small `progress`, which go into
one checkpoint, so that a search that was stopped anywhere goes on bit for bit.
"""

import dataclasses
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from child_models.data.prepared import cache_folder
from controller.loop import SearchState
from launch.build import Search, build, resolve
from launch.checkpoints import Checkpoints
from launch.command import Interrupted, UserError
from launch.derive import derive
from launch.display import Display
from launch.planner import Planner
from launch.rounds import Rounds, collapse
from launch.settings import config_sha256
from launch.signals import Signals
from launch.store import Store
from launch.workdir import commit, open_workdir, read_result, write_json


class SearchFailed(UserError):
    """A loss or reward was not finite; nothing of that step was kept."""


def search(
    config: Mapping[str, Any], workdir: epath.PathLike, *, built: Search | None = None
) -> dict[str, Any]:
    """Runs a search in a workdir, or goes on with the one that is there.

    Args:
      config: resolved or not.
      workdir: local or remote.
      built: objects of an earlier search whose config differs in ``train.seed`` only;
        they come with its compiled programs.

    Returns:
      what ``result.json`` holds.

    Raises:
      UserError: on a mistake of the user, before anything compiles.
      SearchFailed: on a loss or reward that is not finite, or where no candidate of
        the final choice has a finite score.
      Interrupted: after SIGINT or SIGTERM, when all is saved.
    """
    config = resolve(config)
    prepare_jax(config)
    built = build(config) if built is None else built
    workdir = open_workdir(workdir, config)
    result = read_result(workdir)
    if result is not None and result["config_sha256"] == config_sha256(config):
        return result
    train = config.train
    with (
        Checkpoints(workdir / "checkpoints", keep=train.keep) as checkpoints,
        Store(workdir, train.seed) as store,
        Signals() as signals,
    ):
        run = _Run(built, config, workdir, checkpoints, store, signals)
        run.restore()
        run.rounds()
        result = run.finish()
    write_json(workdir / "result.json", result)
    return result


def prepare_jax(config: ConfigDict) -> None:
    """Sets what must be set before the first computation: the cache, determinism."""
    cache = config.train.compilation_cache
    if cache == "auto":  # where the user's environment names a folder, that one
        cache = jax.config.jax_compilation_cache_dir or str(cache_folder() / "jax")
    if cache != "off":
        jax.config.update("jax_compilation_cache_dir", cache)
    flag = "--xla_gpu_deterministic_ops=true"
    if config.train.deterministic and flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()


@dataclasses.dataclass
class _Progress:
    """What the host keeps beside the state, in the checkpoint."""

    scored: int = 0
    child_steps: int = 0
    seconds: float = 0.0  # of all processes that worked on this search
    compile_seconds: float = 0.0
    best: float | None = None  # highest reward so far
    record: dict[str, Any] | None = None  # of the last complete round
    collapse: dict[str, Any] | None = None  # the first one
    rows: dict[str, Any] | None = None  # of the round that is not complete


class _Run:
    """One process' work on a search."""

    def __init__(self, built, config, workdir, checkpoints, store, signals):
        self._built = built
        self._config = config
        self._workdir = workdir
        self._checkpoints = checkpoints
        self._store = store
        self._signals = signals
        self._planner = Planner(
            built.schedule,
            config.train.rounds,
            built.loop.max_ticks,
            config.train.steps_per_call,
        )
        self._clock = time.monotonic()

    # ---- beginning ------------------------------------------------------------------

    def restore(self) -> None:
        """Takes the newest checkpoint, or begins."""
        key = jax.random.key(self._config.train.seed)
        like = jax.eval_shape(self._built.loop.init, key)
        found = self._checkpoints.restore(like)
        if found is None:
            self._state, self._progress = self._built.loop.init(key), _Progress()
        else:
            self._state, self._progress = found[0], _Progress(**found[1])
        self._position = _position(self._state)
        self._rounds = Rounds(
            self._built.space.spec, self._built.schedule, self._progress.rows
        )

    # ---- the loop -------------------------------------------------------------------

    def rounds(self) -> None:
        """Runs all rounds that are left, and saves."""
        train, planner = self._config.train, self._planner
        if not planner.ticks(*self._position):
            return
        self._compile()
        self._saved = time.monotonic()
        start = (planner.done(*self._position), self._position[0])
        with Display(
            self._workdir,
            total=planner.total(),
            rounds=train.rounds,
            start=start,
            log_every=train.log_every,
        ) as display:
            while ticks := planner.ticks(*self._position):
                self._heed_signals()
                self._call(ticks, display)
                if time.monotonic() - self._saved > train.checkpoint_seconds:
                    self._save()
                    display.sync()
            self._save()

    def _compile(self) -> None:
        if "run" in self._built.compiled:
            return
        begin = time.monotonic()
        print("compiling the search ...", flush=True)
        self._state, _ = jax.block_until_ready(self._built.loop.run(self._state, 0))
        seconds = time.monotonic() - begin
        print(f"compiled in {seconds:.1f} s", flush=True)
        self._progress.compile_seconds += seconds
        self._built.compiled.add("run")

    def _call(self, ticks: int, display: Display) -> None:
        """One compiled call and the book-keeping after it."""
        begin = time.monotonic()
        self._state, log = self._built.loop.run(self._state, ticks)
        log = jax.device_get(log)
        seconds = time.monotonic() - begin
        failed = bool(self._state.failed)
        count = int(log.count) - failed
        self._planner.observe(*self._position, int(log.count), seconds)
        trials, records = self._rounds.add(log, count, seconds)
        self._store.add_trials(trials)
        learn = log.learn[:count]
        self._progress.child_steps += int(np.sum(~learn))
        self._progress.scored += int(np.sum(learn)) * log.reward.shape[1]
        if failed:
            self._fail(log, count)
        self._position = _position(self._state)
        for record in records:
            self._close_round(record, display)
        display.ticks(self._planner.done(*self._position), self._left())

    def _close_round(self, record: dict[str, Any], display: Display) -> None:
        progress = self._progress
        if record["reward_max"] is not None:
            earlier = record["reward_max"] if progress.best is None else progress.best
            progress.best = max(record["reward_max"], earlier)
        progress.record = record
        self._store.add_round(record["round"], record)
        display.round(record, progress.best, self._left())
        if progress.collapse is None:
            progress.collapse = collapse(self._built.space.spec, record)
            if progress.collapse is not None:
                display.say(
                    f"warning: collapse in round {record['round'] + 1}: "
                    f"{progress.collapse['reason']}; {progress.collapse['advice']}"
                )

    def _left(self) -> float:
        return self._planner.remaining_seconds(*self._position)

    def _heed_signals(self) -> None:
        if self._signals.caught is not None:
            self._save()
            self._checkpoints.wait()
            raise Interrupted(self._signals.caught)

    def _save(self) -> None:
        now = time.monotonic()
        self._progress.seconds += now - self._clock
        self._clock = self._saved = now
        self._progress.rows = self._rounds.partial()
        self._store.sync()
        self._checkpoints.save(
            int(self._state.step), self._state, dataclasses.asdict(self._progress)
        )

    def _fail(self, log: Any, count: int) -> None:
        what = "reward" if log.learn[count] else "child loss"
        text = self._built.space.spec.encode(np.asarray(self._state.failed_decisions))
        latest = self._checkpoints.latest()
        raise SearchFailed(
            f"the {what} of step {int(self._state.step) - 1} (round "
            f"{int(log.round[count]) + 1}) is not finite, of architecture {text}; "
            f"last good checkpoint: {latest or 'none yet'}"
        )

    # ---- the end --------------------------------------------------------------------

    def finish(self) -> dict[str, Any]:
        """Derives the best architecture; returns the result."""
        self._heed_signals()
        print(f"scoring the last {self._config.derive.n} candidates ...", flush=True)
        scored = derive(self._built, self._state, between=self._heed_signals)
        if scored[0]["reward"] is None:
            raise SearchFailed(
                f"the score of each of the {len(scored)} candidates is not finite: "
                "shared weights have diverged; search in another workdir with a "
                "smaller config.evaluator.learning_rate or clip_norm"
            )
        best = {k: scored[0][k] for k in ("decisions", "genotype", "reward")}
        progress = self._progress
        progress.seconds += time.monotonic() - self._clock
        return {
            "space": self._config.space.name,
            "strategy": self._config.strategy.name,
            "best": best,
            "candidates": scored,
            "budget": {
                "scored": progress.scored,
                "child_steps": progress.child_steps,
                "seconds": progress.seconds,
            },
            "diagnostics": self._diagnostics(),
            "seed": self._config.train.seed,
            "config_sha256": config_sha256(self._config),
        }

    def _diagnostics(self) -> dict[str, Any]:
        progress = self._progress
        return {
            "collapse": progress.collapse,
            "last_round": progress.record,
            "best_reward": progress.best,
            "compile_seconds": progress.compile_seconds,
            "device": jax.devices()[0].device_kind,
            "jax": jax.__version__,
            "commit": commit(),
        }


def _position(state: SearchState) -> tuple[int, int]:
    return int(state.round), int(state.tick)
