"""Turns a config into the objects of a search.

Every section of a config holds the keyword arguments of a factory; its ``name``, where
there is a choice, picks the factory.  `resolve` checks the keys against the signatures
and fills in the defaults, so that a run's ``config.json`` holds every argument.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from child_models.data import load
from child_models.evaluators.from_scratch import from_scratch
from child_models.evaluators.inherited import inherited
from child_models.evaluators.relaxed import relaxed
from child_models.evaluators.shared_weights import shared_weights
from child_models.evaluators.tabular import tabular
from child_models.placement import AXIS, Placement, placement
from child_models.spaces import SPACES
from child_models.tasks.classification import classification
from child_models.types import Dataset, Space, Task
from controller.execution import Executor, Runner, in_process, runner
from controller.host_loop import make_host_loop
from controller.loop import Loop, Schedule, make_loop, schedule
from controller.objectives import Costs, Objective, judged_executor
from controller.policies.lstm import lstm_policy
from controller.strategies import STRATEGIES, check_able
from controller.types import Evaluator, Execution, Strategy
from launch.command import UserError, user_errors
from launch.objective import judge
from launch.on_ray import on_ray
from launch.prepare import prepare_jax
from launch.settings import (
    Baseline,
    Derive,
    Retrain,
    Train,
    check,
    check_known,
    check_section,
    fill,
    to_dict,
)

EVALUATORS = {
    "from_scratch": from_scratch,
    "inherited": inherited,
    "relaxed": relaxed,
    "shared_weights": shared_weights,
    "tabular": tabular,
}
TASKS = {"classification": classification}

_NAMED = {
    "space": SPACES,
    "strategy": STRATEGIES,
    "evaluator": EVALUATORS,
    "task": TASKS,
}
_PLAIN = {
    "data": load,
    "schedule": schedule,
    "objective": Objective,
    "derive": Derive,
    "train": Train,
    "retrain": Retrain,
    "baseline": Baseline,
}
# Arguments that come from other sections.
_GIVEN = {
    "space": {"classes", "dtype"},
    "strategy": {"spec", "steps_per_round"},
    "evaluator": {"space", "task", "dataset", "mesh"},
    "task": {"classes"},
    "schedule": {"rounds"},
}
SECTIONS = (*_NAMED, *_PLAIN)


def factory_of(section: str, name: str | None = None) -> Callable[..., Any]:
    """The factory whose arguments a section holds; "policy" is one of a strategy.

    Args:
      section: one of `SECTIONS`, or "policy".
      name: of the factory, where there is a choice.
    """
    if section == "policy":
        return lstm_policy
    return _PLAIN[section] if section in _PLAIN else _NAMED[section][name]


# ---- checking -----------------------------------------------------------------------


def resolve(config: Mapping[str, Any]) -> ConfigDict:
    """Checks the keys and types of a config and fills in the factories' defaults.

    Args:
      config: sections as in `SECTIONS`.

    Returns:
      a new, locked config; resolving it again changes nothing.

    Raises:
      UserError: on an unknown section, name or key, listing the known ones, on a
        missing key, and on a value of another type.
    """
    given = to_dict(config)
    check_section("config", given)
    check_known("config", given, SECTIONS)
    resolved = {
        section: _resolve_section(section, given.get(section, {}))
        for section in SECTIONS
    }
    _check_spaces(resolved)
    return ConfigDict(resolved).lock()


def _check_spaces(resolved: Mapping[str, Any]) -> None:
    """Other places hold arguments of the space too; told before the search."""
    factory = SPACES[resolved["space"]["name"]]
    others = {"config.retrain.space": resolved["retrain"]["space"] or {}}
    stages = resolved["train"]["stages"]
    if not isinstance(stages, list | tuple):
        raise UserError(
            f"config.train.stages is {stages!r}; it must be a list of the arguments of "
            "each stage's space"
        )
    for i, changes in enumerate(stages):
        others[f"config.train.stages[{i}]"] = changes
    for where, changes in others.items():
        check(where, factory, changes, _GIVEN["space"])


def _resolve_section(section: str, options: dict[str, Any]) -> dict[str, Any]:
    where = f"config.{section}"
    check_section(where, options)
    if section in _PLAIN:
        filled = fill(where, _PLAIN[section], options, _GIVEN.get(section, set()))
        if dataclasses.is_dataclass(_PLAIN[section]):
            with user_errors(where):
                _PLAIN[section](**filled)
        return filled
    return resolve_named(where, options, _NAMED[section], _GIVEN[section])


def resolve_named(
    where: str,
    options: Mapping[str, Any],
    registry: Mapping[str, Callable[..., Any]],
    given: set[str],
) -> dict[str, Any]:
    """Checks a section whose ``name`` picks the factory, and fills in defaults.

    Args:
      where: names the section in messages.
      options: the section.
      registry: factories by name.
      given: parameters of the factories that are not the user's.

    Raises:
      UserError: on an unknown or missing name or key, or a value of another type.
    """
    known = ", ".join(sorted(registry))
    if "name" not in options:
        raise UserError(f"{where}.name is missing; known: {known}")
    name = options["name"]
    if name not in registry:
        raise UserError(f"{where}.name is {name!r}; known: {known}")
    rest = {key: value for key, value in options.items() if key != "name"}
    filled = fill(where, registry[name], rest, given)
    if "policy" in filled:
        policy = filled["policy"] or {}
        filled["policy"] = fill(f"{where}.policy", lstm_policy, policy, {"spec"})
    return {"name": name} | filled


# ---- building -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Search:
    """The objects of a search, and the config that they are built from.

    `compiled` names the functions of `loop` that this process has compiled; `place`
    brings a state to the devices that the evaluator uses; `costs` is None where the
    objective has no cost.
    """

    config: ConfigDict
    dataset: Dataset
    space: Space
    task: Task
    strategy: Strategy
    evaluator: Evaluator
    schedule: Schedule
    loop: Loop
    compiled: set[str] = dataclasses.field(default_factory=set, compare=False)
    place: Placement = placement(None)
    objective: Objective = Objective()
    costs: Costs | None = None


def build_mesh(count: int) -> Mesh | None:
    """The devices that a batch is split over; None for one.

    Args:
      count: how many; 0 for all there are, those of other processes included.

    Raises:
      UserError: if there are not so many, or a process would be left without.
    """
    devices = jax.devices()
    if count > len(devices):
        raise UserError(
            f"config.train.devices is {count}; JAX finds {len(devices)} of kind "
            f"{devices[0].device_kind}"
        )
    if jax.process_count() > 1 and count not in (0, len(devices)):
        raise UserError(
            f"config.train.devices is {count}; {jax.process_count()} processes use all "
            f"of their {len(devices)} devices; leave it at 0"
        )
    devices = devices[: count or None]
    return Mesh(np.array(devices), (AXIS,)) if len(devices) > 1 else None


def build_dataset(config: ConfigDict) -> Dataset:
    """Loads the data set that ``config.data`` names."""
    with user_errors("config.data"):
        return load(**config.data.to_dict())


def build_space(config: ConfigDict, classes: int) -> Space:
    """Builds the space of ``config.space`` for a number of classes."""
    return _call(config, "space", classes=classes, dtype=config.train.dtype)


def build_task(config: ConfigDict, classes: int) -> Task:
    """Builds the task of ``config.task`` for a number of classes."""
    return _call(config, "task", classes=classes)


def build(config: Mapping[str, Any], dataset: Dataset | None = None) -> Search:
    """Builds all objects of a search; compiles nothing.

    Args:
      config: resolved or not.
      dataset: of ``config.data``, where it is loaded already.

    Returns:
      the objects.  They do not depend on ``config.train.seed``.

    Raises:
      UserError: on anything that the user can put right.
    """
    from launch.final import check_retraining  # which builds spaces by this module

    config = resolve(config)
    train = Train(**config.train.to_dict())
    if dataset is None:
        dataset = build_dataset(config)
        check_retraining(config, dataset)
    space = build_space(config, dataset.classes)
    task = build_task(config, dataset.classes)
    with user_errors(f"config.strategy.name, of config.space.name={config.space.name}"):
        check_able(config.strategy.name, space.spec)
    strategy = _build_strategy(config, space)
    elsewhere = config.evaluator.get("executor") == "ray"  # on devices of its own
    mesh = None if elsewhere else build_mesh(train.devices)
    evaluator = _call(
        config,
        "evaluator",
        space=space,
        task=task,
        dataset=dataset,
        mesh=mesh,
    )
    objective, costs, strategy, evaluator, sample = judge(
        config, space, dataset, strategy, evaluator
    )
    with user_errors("config.schedule"):
        phases = schedule(rounds=train.rounds, **config.schedule.to_dict())
    with user_errors("config"):
        ticks = {"max_ticks": train.steps_per_call} if train.steps_per_call else {}
        parts = (space.spec, strategy, evaluator, phases)
        if evaluator.execution.executor == "compiled":
            loop = make_loop(*parts, **ticks, sample=sample)
        else:
            executor = build_executor(config, dataset, evaluator)
            if costs is not None:
                executor = judged_executor(executor, objective, costs)
            loop = make_host_loop(*parts, executor, **ticks)
    objects = (dataset, space, task, strategy, evaluator, phases, loop)
    place = placement(mesh)
    return Search(config, *objects, place=place, objective=objective, costs=costs)


def build_executor(
    config: ConfigDict, dataset: Dataset, evaluator: Evaluator
) -> Executor:
    """What runs the trials of a search that the host drives.

    Raises:
      UserError: on several processes, or without Ray where Ray is to run them.
    """
    executor = evaluator.execution.executor
    if jax.process_count() > 1:
        raise UserError(
            f"config.evaluator.executor is {executor!r}; {jax.process_count()} "
            "processes search together by 'compiled' only"
        )
    if executor == "local":
        return in_process(runner(evaluator))
    return on_ray(functools.partial(_runner, config.to_dict(), dataset), evaluator)


def _runner(config: Mapping[str, Any], dataset: Dataset) -> Runner:
    """The trials of a config, in a process of Ray's."""
    here = {**config["evaluator"], **Execution("local")._asdict()}
    config = resolve({**config, "evaluator": here, "objective": {}})
    prepare_jax(config)
    return runner(build(config, dataset).evaluator)


def _build_strategy(config: ConfigDict, space: Space) -> Strategy:
    given: dict[str, Any] = {"spec": space.spec}
    factory = STRATEGIES[config.strategy.name]
    if "steps_per_round" in inspect.signature(factory).parameters:
        given["steps_per_round"] = max(1, config.schedule.policy_steps)
    return _call(config, "strategy", **given)


def _call(config: ConfigDict, section: str, **given: Any) -> Any:
    options = config[section].to_dict()
    factory = _NAMED[section][options.pop("name")]
    with user_errors(f"config.{section}"):
        return factory(**given, **options)
