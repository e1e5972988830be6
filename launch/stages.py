"""A search in stages, each in a network of its own, as in P-DARTS.

A stage is a search like any other: it compiles once, and its workdir is ``stage_1``,
``stage_2``, ... in that of the search, which is itself the last stage's.  The ops that
one has left on each edge are all that the next one takes over.
"""

import itertools
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import ConfigDict

from controller.loop import SearchState
from controller.spec import DecisionSpec
from controller.strategies.differentiable.core import RelaxedState
from launch import distributed
from launch.command import UserError

Kept = dict[str, list[str]]  # names of choices by name of the decision


def search_stages(
    search: Callable[[ConfigDict, epath.Path], dict[str, Any]],
    config: ConfigDict,
    workdir: epath.Path,
) -> dict[str, Any]:
    """Runs all stages, or goes on with the one that is not finished.

    Args:
      search: of one stage.
      config: resolved; ``train.stages`` has the arguments of each stage's space.
      workdir: of the last stage; the others have folders in it.

    Returns:
      the result of the last stage.

    Raises:
      UserError: before the first, where a stage of the strategy ends in another round
        than its search.
    """
    _check_rounds(config)
    count, kept, result = len(config.train.stages), None, {}
    for stage in range(count):
        if distributed.is_main():
            print(f"== stage {stage + 1} of {count}", flush=True)
        is_last = stage == count - 1
        folder = workdir if is_last else _folder(workdir, stage)
        result = search(stage_config(config, stage, kept), folder)
        kept = result["diagnostics"]["kept"]
    return result


def latest_stage(workdir: epath.Path) -> epath.Path:
    """The folder of the stage that a search in stages is in; else the workdir itself.

    Args:
      workdir: of a search, with stages or without; the last stage's own.
    """
    latest = workdir
    if not (workdir / "config.json").exists():
        for stage in itertools.count():
            folder = _folder(workdir, stage)
            if not (folder / "config.json").exists():
                break
            latest = folder
    return latest


def _folder(workdir: epath.Path, stage: int) -> epath.Path:
    """The workdir of a stage, numbered from 0, but for the last one's."""
    return workdir / f"stage_{stage + 1}"


def _check_rounds(config: ConfigDict) -> None:
    if "stage_rounds" not in config.strategy:
        return
    rounds = config.train.rounds - config.schedule.warmup_rounds
    if rounds != config.strategy.stage_rounds:
        raise UserError(
            f"config.strategy.stage_rounds is {config.strategy.stage_rounds}; each of "
            f"train.stages learns in {rounds} rounds, train.rounds less "
            "schedule.warmup_rounds; both must be equal, for its ops are dropped after "
            "the last"
        )


def stage_config(config: ConfigDict, stage: int, kept: Kept | None) -> ConfigDict:
    """The config of one stage, as that of a search without stages.

    Args:
      config: of all.
      stage: its number, from 0.
      kept: what the stage before has left; None of the first.
    """
    changed = config.copy_and_resolve_references()
    changed.unlock()
    changed.space.update(config.train.stages[stage])
    changed.train.stages = ()
    if "stage" in changed.strategy:
        changed.strategy.stage = stage
        changed.strategy.kept = kept
    return changed.lock()


def kept_choices(spec: DecisionSpec, state: SearchState) -> Kept | None:
    """The choices that a relaxed strategy has left; None of another strategy."""
    if not isinstance(state.strategy, RelaxedState):
        return None
    kept = {}
    for group, members in spec.groups.items():
        for t, live in zip(members, state.strategy.live[group], strict=True):
            decision = spec.decisions[t]
            pairs = zip(decision.choices, live, strict=False)
            kept[decision.name] = [name for name, alive in pairs if alive]
    return kept
