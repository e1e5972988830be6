"""The objective of a search: the costs of its space, put between its parts."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from child_models.cost import count
from child_models.cost_model import cost_model
from child_models.latency import NANOSECONDS, read_latency
from child_models.types import Dataset, Space
from controller.objectives import Costs, Objective, judged_evaluator, limited
from controller.strategies.random_search import random_search
from controller.types import Evaluator, Strategy
from launch.command import UserError, user_errors
from launch.settings import as_json

SAMPLES = 12  # architectures among which the cheapest is sought, where costs are traced


class Judged(NamedTuple):
    """The parts of a search, with its objective between them.

    Attributes:
      objective: of the search.
      costs: of the space; None where the objective has no cost.
      strategy, evaluator: as they were, or wrapped.
      sample: of `make_loop`.
    """

    objective: Objective
    costs: Costs | None
    strategy: Strategy
    evaluator: Evaluator
    sample: Any = None


def judge(
    config: ConfigDict,
    space: Space,
    dataset: Dataset,
    strategy: Strategy,
    evaluator: Evaluator,
) -> Judged:
    """Applies ``config.objective``; without a cost all stays as it is.

    Args:
      config: resolved.
      space, dataset, strategy, evaluator: of the search.

    Raises:
      UserError: on an objective that this search cannot have.
    """
    objective = Objective(**config.objective.to_dict())
    if objective.cost is None:
        return Judged(objective, None, strategy, evaluator)
    with user_errors("config.objective"):
        costs, smallest = space_costs(objective, config, space, dataset)
        compiled = evaluator.execution.executor == "compiled" and strategy.traceable
        if compiled and costs.traced is None:
            raise UserError(
                f"config.objective.cost is {objective.cost!r}; in config.space.name="
                f"{config.space.name} with these arguments it is known on the host "
                "only; take config.evaluator.name=from_scratch with executor=local"
            )
        _check_reward(objective, config, strategy)
        sample = None
        if objective.limit is not None:
            _check_limit(objective, space, *smallest())
            strategy = limited(strategy, objective, costs)
            if compiled:
                sample = _sampler(limited(random_search(space.spec), objective, costs))
        if compiled:
            evaluator = judged_evaluator(evaluator, objective, costs)
    return Judged(objective, costs, strategy, evaluator, sample)


def space_costs(
    objective: Objective, config: ConfigDict, space: Space, dataset: Dataset
):
    """The costs of a space, and ``() -> (smallest, its decisions, how it was found)``.

    Raises:
      ValueError: on a latency table that is not of this space, size and device, or a
        space that has no latency.
    """
    image = dataset.train.images.shape[1:]
    if space.terms is None:
        return _traced_costs(objective, config, space, image)
    terms, scale = list(space.terms(image)), 1.0
    if objective.cost == "latency":
        table = read_latency(
            objective.table,
            space=space_key(config, dataset.classes),
            image=image,
            device=objective.device,
            terms=terms,
        )
        scale = 1 / NANOSECONDS
        model = cost_model(space.spec, terms, lambda unit: table[unit.name])
    else:
        model = cost_model(space.spec, terms, lambda u: getattr(u.cost, objective.cost))

    def smallest():
        least, decisions, exact = model.smallest()
        return least * scale, decisions, "" if exact else " found going downhill"

    costs = Costs(
        lambda decisions: model.count(decisions) * scale,
        lambda decisions: model.traced(decisions) * scale,
        lambda decisions, limit: model.within(decisions, limit / scale),
        lambda weights: model.expected(weights) * scale,
    )
    return costs, smallest


def _traced_costs(objective, config, space, image):
    if objective.cost == "latency":
        raise ValueError(
            f"cost is 'latency'; config.space.name={config.space.name} with these "
            "arguments is no sum over units"
        )
    module = space.module("final")

    @functools.lru_cache(maxsize=4096)
    def traced(decisions):
        return getattr(count(module, space.bind(decisions), image), objective.cost)

    def of(decisions):
        return traced(tuple(int(d) for d in decisions))

    def smallest():
        drawn = [
            np.asarray(space.spec.sample(jax.random.key(i))) for i in range(SAMPLES)
        ]
        cost, decisions = min((of(d), tuple(d.tolist())) for d in drawn)
        return cost, decisions, f" of {SAMPLES} random ones"

    return Costs(of), smallest


def space_key(config: ConfigDict, classes: int) -> dict[str, Any]:
    """Name and all arguments of a config's space."""
    return as_json(config.space) | {"classes": classes, "dtype": config.train.dtype}


def _check_limit(objective, space, least, decisions, how) -> None:
    if objective.limit < least:
        raise ValueError(
            f"limit is {objective.limit:g}; the smallest possible cost{how} is "
            f"{least:g}, of {space.spec.encode(decisions)}"
        )


def _check_reward(objective, config, strategy) -> None:
    reward = config.evaluator.get("reward")
    product = objective.name == "weighted_product" and not strategy.relaxed
    if product and reward == "negative_loss":
        raise ValueError(
            "name is 'weighted_product', which needs rewards of 0 or more; "
            f"config.evaluator.reward is {reward!r}"
        )


def _sampler(uniform: Strategy):
    def sample(key, n):
        first_key, key = jax.random.split(key)
        return uniform.propose(key, uniform.init(first_key), n)[0].decisions

    return sample
