"""Search strategies by the name that a config gives."""

from collections.abc import Callable

from controller.strategies.genetic import genetic
from controller.strategies.large_scale_evolution import large_scale_evolution
from controller.strategies.local_search import local_search
from controller.strategies.ppo import ppo
from controller.strategies.progressive import progressive
from controller.strategies.random_search import random_search
from controller.strategies.regularized_evolution import regularized_evolution
from controller.strategies.reinforce import reinforce
from controller.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "genetic": genetic,
    "large_scale_evolution": large_scale_evolution,
    "local_search": local_search,
    "ppo": ppo,
    "progressive": progressive,
    "random_search": random_search,
    "regularized_evolution": regularized_evolution,
    "reinforce": reinforce,
}
