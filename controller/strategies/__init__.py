"""Search strategies by the name that a config gives."""

from collections.abc import Callable

from controller.strategies.genetic import genetic
from controller.strategies.ppo import ppo
from controller.strategies.random_search import random_search
from controller.strategies.reinforce import reinforce
from controller.types import Strategy

STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "genetic": genetic,
    "ppo": ppo,
    "random_search": random_search,
    "reinforce": reinforce,
}
