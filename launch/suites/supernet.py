"""The price of a sampled child: shared weights beside the same child alone.

For random architectures of each space: one step of the sampled binding, which is
compiled once for all of them, beside the same architecture in the fixed binding, which
is compiled by itself, with an optimizer over its own weights only.  The child alone is
timed as a program of one step and as a loop of steps, and the faster one counts.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from child_models.cost import count
from launch.suites.children import (
    Setting,
    architectures,
    forward_backward,
    full_step,
    repeated,
    sampled_runs,
    setting,
    shared_variables,
)
from launch.suites.timing import (
    Options,
    Row,
    compile_program,
    in_turn,
    peak_flops,
)

STEPS = 4  # in one measured call


def supernet(options: Options) -> Iterator[Row]:
    """Yields for each space: forward + backward, the full step, the share of the peak.

    The first row is the peak, the rate of a float32 matrix product.
    """
    peak = peak_flops()
    yield Row("peak: matrix product in float32", peak / 1e9, unit="GFLOP/s")
    for name in options.spaces:
        yield from _space(setting(name), peak, options)


def _space(case: Setting, peak: float, options: Options) -> Iterator[Row]:
    drawn = architectures(case, options.n)
    shared = shared_variables(case)
    forms = [("steps", "loop")] * len(drawn)
    for title, program in (
        ("forward + backward", forward_backward(case)),
        ("full step", full_step(case)),
    ):
        run, once = sampled_runs(case, program, shared["params"], STEPS)
        times, compiling = [], []
        for i, decisions in enumerate(drawn):
            alone, seconds = _alone(case, program, shared, decisions, forms[i])
            taken = in_turn({"sampled": run(decisions), **alone}, options.repeats)
            medians = {form: np.median(ms) / STEPS for form, ms in taken.items()}
            ours = medians.pop("sampled")
            forms[i] = (min(medians, key=medians.get),)  # the full step takes this one
            times.append((ours, medians[forms[i][0]]))
            compiling.append(seconds)
        each = np.median(compiling)
        note = f"compiled once in {once:.0f} s; alone each in {each:.0f} s"
        yield Row.of(f"{case.name}: {title}", *np.transpose(times), note=note)
    work = [6 * _macs(case, d) * len(case.batch[0]) for d in drawn]
    rate = np.median(np.array(work) / (1e-3 * np.array(times)[:, 0]))
    note = "multiply-adds of the final form, three times as many as forward"
    yield Row(f"{case.name}: share of the peak", 100 * rate / peak, unit="%", note=note)


def _macs(case: Setting, decisions: np.ndarray) -> int:
    shape = case.batch[0].shape[1:]
    return count(case.space.module("final"), case.space.bind(decisions), shape).macs


def _alone(case, program, shared, decisions, forms):
    """Runs of STEPS steps of a fixed child in some forms; seconds of compiling one."""
    state = program.start(case.space.extract(shared, decisions)["params"])
    choices = case.space.bind(decisions)
    runs: dict[str, Callable[[], Any]] = {}
    if "steps" in forms:
        one = compile_program(
            lambda s, b: program.step(s, choices, b), state, case.batch
        )
        runs["steps"] = lambda call=one.call: _steps(call, state, case.batch)
    if "loop" in forms:
        loop = repeated(lambda s, _, b: program.step(s, choices, b), STEPS)
        one = compile_program(loop, state, (), case.batch)
        runs["loop"] = lambda call=one.call: call(state, (), case.batch)
    return runs, one.seconds


def _steps(call, state, batch):
    for _ in range(STEPS):
        loss, state = call(state, batch)
    return jax.block_until_ready(loss)
