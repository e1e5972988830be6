"""Temporary memory of compiled training steps; arguments are listed apart."""

import inspect
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from child_models.spaces import SPACES
from launch.suites.children import (
    Setting,
    architectures,
    full_step,
    setting,
    shared_variables,
)
from launch.suites.relaxed import alphas, weights_of
from launch.suites.timing import Options, Row, compile_program

MIB = 2**20


def memory(options: Options) -> Iterator[Row]:
    """Yields for each space a sampled step beside the largest of n children alone.

    Then, of the spaces that have them: the relaxed step beside the sampled one, whose
    number of live ops is no part of the program; bfloat16 beside float32, and with
    rematerialisation beside without, or the other way round where the space has it.
    """
    for name in options.spaces:
        case = setting(name)
        shared = shared_variables(case)
        drawn = architectures(case, options.n)
        sampled, arguments = temporary(case, shared["params"], jnp.asarray(drawn[0]))
        alone = [
            temporary(case, case.space.extract(shared, d)["params"], d) for d in drawn
        ]
        largest = max(alone)
        note = f"arguments {arguments / MIB:.1f} beside {largest[1] / MIB:.1f} MiB"
        yield _row(f"{name}: sampled step", sampled, largest[0], note)
        if "relaxed" in case.space.bindings:
            binding = weights_of(*alphas(case))
            relaxed, _ = temporary(case, shared["params"], binding)
            note = "beside the sampled step; the same for every number of live ops"
            yield _row(f"{name}: relaxed step", relaxed, sampled, note)
        known = inspect.signature(SPACES[name]).parameters
        for key in ("dtype", "remat"):
            if key in known:
                usual = known[key].default
                value = "bfloat16" if key == "dtype" else not usual
                case = setting(name, **{key: value})
                params = shared_variables(case)["params"]
                used, _ = temporary(case, params, jnp.asarray(drawn[0]))
                title = f"{name}: sampled step, {key}={value}"
                yield _row(title, used, sampled, f"beside {key}={usual}")


def _row(name: str, ours: int, reference: int, note: str) -> Row:
    return Row.of(name, [ours / MIB], [reference / MIB], unit="MiB", note=note)


def temporary(case: Setting, params: Any, decisions: Any) -> tuple[int, int]:
    """Temporary bytes of a full step, and bytes of its arguments.

    Args:
      case: the space and its batch.
      params: of the shared form, or of a fixed child.
      decisions: NumPy int[T] for the fixed binding, JAX int32[T] or relaxed weights.
    """
    program = full_step(case)
    state = program.start(params)
    fixed = isinstance(decisions, np.ndarray)

    def step(state, operand, batch):
        choices = case.space.bind(decisions if fixed else operand)
        return program.step(state, choices, batch)

    operand = () if fixed else decisions
    call = compile_program(step, state, operand, case.batch, donate=(0,)).call
    found = call.memory_analysis()
    return found.temp_size_in_bytes, found.argument_size_in_bytes
