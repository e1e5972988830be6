"""What one process writes and shows of a search: trials, rounds, lines, checkpoints."""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from controller.loop import Log, SearchState
from launch.build import Search
from launch.checkpoints import Checkpoints
from launch.display import Display
from launch.figures.text import picture
from launch.planner import Planner
from launch.rounds import Rounds, collapse, decisions_of
from launch.settings import config_sha256, search_sha256
from launch.store import Row, Store
from launch.workdir import commit

Position = tuple[int, int]
"""round, tick within it"""


@dataclasses.dataclass
class _Progress:
    """What the host keeps beside the state, in the checkpoint."""

    scored: int = 0
    child_steps: int = 0
    seconds: float = 0.0  # of all processes that worked on this search in turn
    compile_seconds: float = 0.0
    best: float | None = None  # highest reward so far
    record: dict[str, Any] | None = None  # of the last complete round
    collapse: dict[str, Any] | None = None  # the first one
    rows: dict[str, Any] | None = None  # of the round that is not complete
    best_trial: dict[str, Any] | None = None  # its decisions and reward


class Book:
    """The book of one search; use as a context manager.

    Args:
      built: the objects of the search.
      config: resolved.
      workdir: that is written to.
      planner: knows how much is left.
      quiet: whether no progress is shown.
    """

    def __init__(
        self,
        built: Search,
        config: ConfigDict,
        workdir: epath.Path,
        planner: Planner,
        quiet: bool = False,
    ):
        self._spec = built.space.spec
        self._schedule = built.schedule
        self._invalid = built.evaluator.invalid
        self._config = config
        self._workdir = workdir
        self._planner = planner
        self._quiet = quiet
        self._draws = True  # until a drawing fails
        self._shown: str | None = None  # decisions of the best that was shown
        self._clock = self._saved = time.monotonic()
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Book":
        folder, train = self._workdir / "checkpoints", self._config.train
        self._checkpoints = self._open.enter_context(
            Checkpoints(folder, keep=train.keep)
        )
        store = Store(self._workdir, train.seed, search_sha256(self._config))
        self._store = self._open.enter_context(store)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.__exit__(*error)

    def restore(self, like: Any, *, free: bool = False) -> Any:
        """Host arrays of the newest checkpoint, or None: a search that begins.

        Args:
          like: the state's shapes and dtypes.
          free: whether shapes may be others, see `Checkpoints.read`.
        """
        found = self._checkpoints.read(like, free=free)
        self._progress = _Progress() if found is None else _Progress(**found[1])
        rows = self._progress.rows
        self._rounds = Rounds(self._spec, self._schedule, rows, self._invalid)
        return None if found is None else found[0]

    def show(self, position: Position) -> Display:
        """Shows rounds from a position on, while the display is entered."""
        train, planner = self._config.train, self._planner
        self._saved = time.monotonic()
        self._display = Display(
            self._workdir,
            total=planner.total(),
            rounds=train.rounds,
            start=(planner.done(*position), position[0]),
            log_every=train.log_every,
            quiet=self._quiet,
        )
        return self._display

    def add_compilation(self, seconds: float) -> None:
        """Tells of a compilation, and counts it."""
        self.say(f"compiled in {seconds:.1f} s")
        self._progress.compile_seconds += seconds

    def say(self, text: str) -> None:
        """Prints a line about progress."""
        if not self._quiet:
            print(text, flush=True)

    def add(self, log: Log, count: int, seconds: float, position: Position) -> None:
        """Writes and shows what a call has done.

        Args:
          log: of the call, on the host.
          count: its rows that count.
          seconds: that the call ran.
          position: after it.
        """
        trials, records = self._rounds.add(log, count, seconds)
        self._store.add_trials(trials)
        self._note_best(trials)
        learn = log.learn[:count]
        self._progress.child_steps += int(np.sum(~learn))
        self._progress.scored += int(np.sum(learn)) * log.reward.shape[1]
        left = self._planner.remaining_seconds(*position)
        for record in records:
            self._close_round(record, left)
        self._display.ticks(self._planner.done(*position), left)

    def _note_best(self, trials: Sequence[Row]) -> None:
        for row in trials:
            best = self._progress.best_trial
            if row.valid and (best is None or row.reward > best["reward"]):
                best = {"decisions": row.decisions, "reward": row.reward}
                self._progress.best_trial = best

    def _show_best(self, round: int) -> None:
        """Shows the best architecture, where it is time and it is another one."""
        every, best = self._config.train.show_every, self._progress.best_trial
        if not self._draws or not every or best is None or (round + 1) % every:
            return
        if best["decisions"] != self._shown:
            self._shown = best["decisions"]
            decisions = decisions_of(best["decisions"])
            try:
                image, text = self._drawn(decisions), picture(self._spec, decisions)
            except Exception as error:  # names of a user's own decisions mean anything
                self._draws = False
                what = f"{type(error).__name__}: {error}"
                self._display.say(f"warning: the best is not drawn: {what}")
                return
            self._display.best(round, best["reward"], text, image)

    def _drawn(self, decisions: Sequence[int]) -> np.ndarray:
        from launch.figures.graphs import graphs  # matplotlib takes a second to load
        from launch.figures.image import pixels

        options = self._config.space.to_dict()
        return pixels(graphs(self._spec, decisions, options["name"], options))

    def _close_round(self, record: dict[str, Any], left: float) -> None:
        progress = self._progress
        if record["reward_max"] is not None:
            earlier = record["reward_max"] if progress.best is None else progress.best
            progress.best = max(record["reward_max"], earlier)
        progress.record = record
        self._store.add_round(record["round"], record)
        self._display.round(record, progress.best, left)
        self._show_best(record["round"])
        if progress.collapse is None:
            progress.collapse = collapse(self._spec, record)
            if progress.collapse is not None:
                self._display.say(
                    f"warning: collapse in round {record['round'] + 1}: "
                    f"{progress.collapse['reason']}; {progress.collapse['advice']}"
                )

    def save_if_due(self, state: SearchState) -> None:
        """Saves where the last checkpoint is old enough."""
        if time.monotonic() - self._saved > self._config.train.checkpoint_seconds:
            self.save(state)
            self._display.sync()

    def save(self, state: SearchState, *, wait: bool = False) -> None:
        """Writes a checkpoint, in the background unless asked to wait."""
        self._saved = self._count_seconds()
        self._progress.rows = self._rounds.partial()
        self._store.sync()
        progress = dataclasses.asdict(self._progress)
        self._checkpoints.save(int(state.step), state, progress)
        if wait:
            self._checkpoints.wait()

    def latest(self) -> epath.Path | None:
        """Folder of the newest checkpoint, None where there is none."""
        return self._checkpoints.latest()

    def result(
        self, scored: list[dict[str, Any]], kept: dict[str, list[str]] | None
    ) -> dict[str, Any]:
        """What ``result.json`` is to hold.

        Args:
          scored: candidates of the final choice, the best one first.
          kept: the choices that a relaxed strategy has left, by decision.
        """
        self._count_seconds()
        progress = self._progress
        return {
            "space": self._config.space.name,
            "strategy": self._config.strategy.name,
            "best": {k: v for k, v in scored[0].items() if k != "source"},
            "text": picture(self._spec, scored[0]["decisions"]),
            "candidates": scored,
            "budget": {
                "scored": progress.scored,
                "child_steps": progress.child_steps,
                "seconds": progress.seconds,
            },
            "diagnostics": self._diagnostics() | {"kept": kept},
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

    def _count_seconds(self) -> float:
        """Adds the time since the last call of this; returns what the clock says."""
        now = time.monotonic()
        self._progress.seconds += now - self._clock
        self._clock = now
        return now
