"""What two methods of the differentiable family save, beside the relaxed supernet.

PC-DARTS (Xu et al. 2020, https://arxiv.org/abs/1907.05737) sends a quarter of the
channels through the ops; ProxylessNAS (Cai et al. 2019,
https://arxiv.org/abs/1812.00332) trains one path, and runs two for the gates' gradient.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from controller.strategies.differentiable.proxylessnas import proxylessnas
from launch.suites.children import Setting, Size, setting, shared_variables
from launch.suites.memory import MIB
from launch.suites.relaxed import STEPS, alphas, relaxed_steps
from launch.suites.timing import Options, Row, in_turn

DARTS = Size({"channels": 16, "cells": 8}, 16, 32)
MOBILE = Size(
    {"widths": (16, 24), "blocks": (8, 8), "strides": (1, 2), "stem": 16, "last": 64},
    32,
    32,
)


def differentiable(options: Options) -> Iterator[Row]:
    """Yields times and temporary memory of the weight step and of the alpha step.

    First of PC-DARTS with K = 4 beside DARTS, then of ProxylessNAS's gates beside the
    weighted sum of all ops.
    """
    darts = setting("darts", DARTS)
    yield from _compare(
        "PC-DARTS beside DARTS",
        _all_live(setting("darts", DARTS, partial_channels=4)),
        _all_live(darts),
        options.repeats,
    )
    mobile = setting("mobile", MOBILE)
    params = shared_variables(mobile)["params"]
    yield from _compare(
        "ProxylessNAS beside all ops",
        _gated(mobile, params),
        relaxed_steps(mobile, params),
        options.repeats,
    )


def _compare(title: str, ours: Any, reference: Any, repeats: int) -> Iterator[Row]:
    for step in ours:
        runs = {"ours": ours[step][0], "reference": reference[step][0]}
        times = {n: np.array(ms) / STEPS for n, ms in in_turn(runs, repeats).items()}
        found = [steps[step][1] for steps in (ours, reference)]
        note = "compiled in {:.0f} s, beside {:.0f} s".format(
            *(c.seconds for c in found)
        )
        yield Row.of(f"{title}: {step}", *times.values(), note=note)
        memory = [c.call.memory_analysis().temp_size_in_bytes / MIB for c in found]
        title_of = f"{title}: temporary memory of the {step}"
        yield Row.of(title_of, *([m] for m in memory), unit="MiB")


def _all_live(case: Setting) -> Any:
    """The steps of a method that prunes nothing."""
    logits, _ = alphas(case)
    params = shared_variables(case)["params"]
    return relaxed_steps(case, params, (logits, {"live": None}))


def _gated(case: Setting, params: Any) -> Any:
    """The steps of ProxylessNAS, on gates that were drawn once."""
    strategy = proxylessnas(case.space.spec)
    draw_key, key = jax.random.split(jax.random.key(3))
    state = strategy.init(draw_key)
    gates = strategy.propose(key, state, 1)[0].relaxed

    def binding(logits, gates):
        # Of the gates' value, and of the softmax's gradient: the paper's estimator.
        def gate(value, logits):
            share = jax.nn.softmax(logits)
            return value + share - jax.lax.stop_gradient(share)

        return gates | {"weights": jax.tree.map(gate, gates["weights"], logits)}

    return relaxed_steps(
        case, params, (state.params, gates), binding, lambda _, gates: gates["path"]
    )
