"""The host's side of a search: compiled calls, and what happens between them.

Between two calls signals are heeded, and the `Book` writes trials, shows progress and
saves checkpoints.  The whole search is `SearchState` plus a small `progress`, which go
into one checkpoint, so that a search that was stopped anywhere goes on bit for bit.

Several processes run the same calls; process 0 alone has a book.
"""

import contextlib
import functools
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from controller.loop import SearchState
from launch import distributed
from launch.book import Book, Position
from launch.build import Search, build, resolve
from launch.checkpoints import from_host, host_shapes
from launch.command import Interrupted, UserError
from launch.derive import derive, final_candidates
from launch.planner import Planner
from launch.prepare import prepare_jax
from launch.settings import config_sha256
from launch.signals import Signals
from launch.stages import kept_choices, search_stages
from launch.workdir import open_workdir, read_result, record_command, write_json


class SearchFailed(UserError):
    """A loss or reward was not finite; nothing of that step was kept."""


def search(
    config: Mapping[str, Any],
    workdir: epath.PathLike,
    *,
    built: Search | None = None,
    command: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Runs a search in a workdir, or goes on with the one that is there.

    Args:
      config: resolved or not.
      workdir: local or remote.
      built: objects of an earlier search whose config differs in ``train.seed`` only;
        they come with its compiled programs.  Not used by a search in stages.
      command: that the user typed, to be kept in the workdir.
      quiet: whether nothing but warnings is printed.

    Returns:
      what ``result.json`` holds; the same on all processes.

    Raises:
      UserError: on a mistake of the user, before anything compiles.
      SearchFailed: on a loss or reward that is not finite, or where no candidate of
        the final choice has a finite score.
      Interrupted: after SIGINT or SIGTERM to any process, when all is saved.
    """
    config = resolve(config)
    if config.train.stages:
        stage = functools.partial(search, command=command, quiet=quiet)
        return search_stages(stage, config, epath.Path(workdir))
    prepare_jax(config)
    workdir, result = epath.Path(workdir), None
    with distributed.all_or_none():
        built = build(config) if built is None else built
        if distributed.is_main():
            workdir = open_workdir(workdir, config)
            if command is not None:
                record_command(workdir, command)
            result = read_result(workdir)
    _check_same(config, built)
    result = _shared(result)
    if result is not None and result["config_sha256"] == config_sha256(config):
        return result
    train = config.train
    # Driven from the host, a tick takes a trial's time: signals are heeded after each.
    steps = (built.loop.max_ticks, train.steps_per_call or int(_on_host(built)))
    planner = Planner(built.schedule, train.rounds, *steps)
    with contextlib.ExitStack() as stack:
        book = None
        with distributed.all_or_none():
            if distributed.is_main():
                book = Book(built, config, workdir, planner, quiet)
                stack.enter_context(book)
        signals = stack.enter_context(Signals())
        run = _Run(built, config, planner, signals, book)
        run.restore()
        run.rounds()
        result = _shared(run.finish())
    if distributed.is_main():
        write_json(workdir / "result.json", result)
    return result


def _check_same(config: ConfigDict, built: Search) -> None:
    """Whether all processes search the same; else they would hang or go apart."""
    if jax.process_count() > 1:
        digest = config_sha256(config)
        distributed.check_same("the settings", zlib.crc32(digest.encode()))
        total = 0
        for leaf in jax.tree.leaves((built.dataset.train, built.dataset.validation)):
            total = zlib.crc32(np.ascontiguousarray(leaf), total)
        distributed.check_same("the images", total)


def _shared(result: dict[str, Any] | None) -> dict[str, Any] | None:
    """The result of process 0, on all processes."""
    if jax.process_count() == 1:
        return result
    return json.loads(distributed.broadcast_text(json.dumps(result)))


def _on_host(built: Search) -> bool:
    """Whether the host drives the loop; else it is one program."""
    return built.loop.compiled_text is None


class _Run:
    """One process' work on a search."""

    def __init__(self, built, config, planner, signals, book):
        self._built = built
        self._config = config
        self._planner = planner
        self._signals = signals
        self._book = book  # None on all processes but the first

    def restore(self) -> None:
        """Takes the newest checkpoint, or begins."""
        key = jax.random.key(self._config.train.seed)
        loop = self._built.loop
        free = _on_host(self._built)
        like = loop.init(key) if free else jax.eval_shape(loop.init, key)
        arrays = None
        with distributed.all_or_none():
            if self._book is not None:
                arrays = self._book.restore(like, free=free)
        if distributed.exchange(arrays is not None)[0, 0]:
            arrays = host_shapes(like) if arrays is None else arrays
            arrays = distributed.broadcast(arrays)
            self._state = from_host(like, arrays, self._built.place.put)
        else:
            self._state = self._built.loop.init(key)
        self._position = _position(self._state)

    # ---- the loop -------------------------------------------------------------------

    def rounds(self) -> None:
        """Runs all rounds that are left, and saves."""
        if not self._planner.ticks(*self._position):
            return
        self._compile()
        with contextlib.ExitStack() as stack:
            if self._book is not None:
                stack.enter_context(self._book.show(self._position))
            while ticks := self._next_ticks():
                self._call(ticks)
                if self._book is not None:
                    self._book.save_if_due(self._state)
            self._save()

    def _compile(self) -> None:
        if "run" in self._built.compiled or self._built.evaluator.keep is not None:
            return
        begin = time.monotonic()
        self._say("compiling the search ...")
        self._state, _ = jax.block_until_ready(self._built.loop.run(self._state, 0))
        if self._book is not None:
            self._book.add_compilation(time.monotonic() - begin)
        self._built.compiled.add("run")

    def _next_ticks(self) -> int:
        """Ticks of the next call, 0 at the end; where clocks differ, by process 0's."""
        ticks = self._planner.ticks(*self._position)
        return int(self._agree(ticks)[0])

    def _call(self, ticks: int) -> None:
        """One compiled call and the book-keeping after it."""
        begin = time.monotonic()
        self._state, log = self._built.loop.run(self._state, ticks)
        log = jax.device_get(log)
        seconds = time.monotonic() - begin
        failed = bool(self._state.failed)
        count = int(log.count) - failed
        self._planner.observe(*self._position, int(log.count), seconds)
        self._position = _position(self._state)
        if self._book is not None:
            self._book.add(log, count, seconds, self._position)
        if failed:
            self._fail(log, count)

    def _agree(self, number: int = 0) -> np.ndarray:
        """All processes' numbers; stops all where one of them caught a signal."""
        rows = distributed.exchange(self._signals.caught or 0, number)
        if signum := int(rows[:, 0].max()):
            self._save(wait=True)
            distributed.end_together()
            raise Interrupted(signum)
        return rows[:, 1]

    def _save(self, *, wait: bool = False) -> None:
        if self._book is not None:
            self._book.save(self._state, wait=wait)

    def _say(self, text: str) -> None:
        if self._book is not None:
            self._book.say(text)

    def _fail(self, log: Any, count: int) -> None:
        what = "reward" if log.learn[count] else "child loss"
        text = self._built.space.spec.encode(np.asarray(self._state.failed_decisions))
        latest = None if self._book is None else self._book.latest()
        distributed.end_together()
        raise SearchFailed(
            f"the {what} of step {int(self._state.step) - 1} (round "
            f"{int(log.round[count]) + 1}) is not finite, of architecture {text}; "
            f"last good checkpoint: {latest or 'none yet'}"
        )

    # ---- the end --------------------------------------------------------------------

    def finish(self) -> dict[str, Any] | None:
        """Derives the best architecture; returns the result, where there is a book."""
        self._agree()
        self._say(f"scoring the last {self._config.derive.n} candidates ...")
        self._announce()
        scored = derive(self._built, self._state, between=self._agree)
        if scored[0]["reward"] is None:
            distributed.end_together()
            raise SearchFailed(
                f"the score of each of the {len(scored)} candidates is not finite: "
                "training has diverged; search in another workdir with a "
                "smaller config.evaluator.learning_rate or clip_norm"
            )
        kept = kept_choices(self._built.space.spec, self._state)
        return None if self._book is None else self._book.result(scored, kept)

    def _announce(self) -> None:
        """Tells the loop all candidates, where it scores them side by side."""
        built, state = self._built, self._state
        if built.loop.announce is not None:
            found = final_candidates(built, state)
            built.loop.announce(state, [decisions for decisions, _ in found])


def _position(state: SearchState) -> Position:
    return int(state.round), int(state.tick)
