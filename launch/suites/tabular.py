"""Whole searches on a table: hundreds of seeds in one program.

The table has the size of NAS-Bench-201's and random rewards, so that no file is needed;
what a search costs does not depend on them.
"""

import time
from collections.abc import Iterator

import jax
import numpy as np

from child_models.evaluators.tabular import lookup
from child_models.spaces.nasbench201 import SPEC
from child_models.tables import Table
from configs.compare_nasbench201 import get_config
from controller.budget import Budget, many_searches
from controller.strategies import STRATEGIES
from launch.suites.timing import Options, Row

SEEDS, EVALUATIONS = 500, 160


def tabular(options: Options) -> Iterator[Row]:
    """Yields for each strategy of `compare_nasbench201` the seconds of all searches."""
    decisions = np.array(list(SPEC.enumerate()))
    rewards = np.random.default_rng(0).uniform(0, 100, len(decisions))
    table = Table(decisions, {"random": rewards}, {}, {})
    evaluator = lookup(SPEC, table, "random")
    keys = jax.vmap(jax.random.key)(np.arange(SEEDS))
    budget = Budget(evaluations=EVALUATIONS)
    for name, arguments in get_config().strategies.to_dict().items():
        factory = STRATEGIES[arguments.pop("name")]
        search = many_searches(factory(SPEC, **arguments), evaluator)
        seconds = []
        for _ in range(1 + options.repeats):
            start = time.perf_counter()
            search(keys, budget)
            seconds.append(time.perf_counter() - start)
        first, *seconds = seconds
        run = float(np.median(seconds))
        rate = SEEDS * EVALUATIONS / run
        note = f"compiled in {first - run:.0f} s; {rate:,.0f} evaluations a second"
        title = f"{name}: {SEEDS} seeds of {EVALUATIONS} evaluations"
        yield Row(title, run, unit="s", note=note)
