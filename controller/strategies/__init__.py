"""Search strategies by the name that a config gives."""

from collections.abc import Callable
from typing import get_type_hints

from controller.spec import Spec
from controller.strategies.differentiable.asap import asap
from controller.strategies.differentiable.darts import darts
from controller.strategies.differentiable.p_darts import p_darts
from controller.strategies.differentiable.parsec import parsec
from controller.strategies.differentiable.pc_darts import pc_darts
from controller.strategies.differentiable.proxylessnas import proxylessnas
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
    "asap": asap,
    "darts": darts,
    "genetic": genetic,
    "large_scale_evolution": large_scale_evolution,
    "local_search": local_search,
    "p_darts": p_darts,
    "parsec": parsec,
    "pc_darts": pc_darts,
    "ppo": ppo,
    "progressive": progressive,
    "proxylessnas": proxylessnas,
    "random_search": random_search,
    "regularized_evolution": regularized_evolution,
    "reinforce": reinforce,
}


def check_able(name: str, spec: Spec) -> None:
    """Raises `ValueError` where a strategy takes decisions and the spec has graphs.

    Or the other way round; a factory's parameter `spec` says what it takes.
    """
    kinds = {known: get_type_hints(f)["spec"] for known, f in STRATEGIES.items()}
    if not isinstance(spec, kinds[name]):
        able = [known for known, kind in kinds.items() if isinstance(spec, kind)]
        raise ValueError(
            f"{name!r} cannot search this space; able are: {', '.join(able)}"
        )
