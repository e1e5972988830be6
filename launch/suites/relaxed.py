"""The price of the relaxed supernet: all ops of an edge, weighted.

A weight step trains the shared weights at fixed architecture weights, an alpha step the
logits of the architecture weights, as DARTS does to first order (Liu et al. 2019,
https://arxiv.org/abs/1806.09055).
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from launch.suites.children import (
    Setting,
    architectures,
    full_step,
    repeated,
    sampled_runs,
    setting,
    shared_variables,
)
from launch.suites.loop import SPACE
from launch.suites.timing import Compiled, Options, Row, compile_program, in_turn

STEPS = 2  # in one measured call


def relaxed(options: Options) -> Iterator[Row]:
    """Yields the weight step and the alpha step, in sampled steps of the same space."""
    case = setting(SPACE)
    params = shared_variables(case)["params"]
    steps = relaxed_steps(case, params)
    runs = {name: run for name, (run, _) in steps.items()}
    sampled, _ = sampled_runs(case, full_step(case), params, STEPS)
    drawn = [sampled(decisions) for decisions in architectures(case, options.n)]
    runs["sampled"] = lambda: [run() for run in drawn]
    times = {
        n: np.array(ms) / STEPS for n, ms in in_turn(runs, options.repeats).items()
    }
    reference = times.pop("sampled") / len(drawn)
    for name, ours in times.items():
        note = f"beside a sampled step; compiled in {steps[name][1].seconds:.0f} s"
        yield Row.of(f"{case.name}: {name}", ours, reference, note=note)


def alphas(case: Setting) -> tuple[Any, Any]:
    """Logits of the relaxed weights, all zero, and live ops, which are all; by group.

    Both are arguments of a program: it is the same for every number of live ops.
    """
    shapes = case.space.spec.relaxed
    logits = {group: jnp.zeros(shape) for group, shape in shapes.items()}
    return logits, {"live": jax.tree.map(lambda a: jnp.ones(a.shape, bool), logits)}


def weights_of(logits: Any, rest: Any) -> Any:
    """The relaxed binding at the softmax of some logits.

    Args:
      logits: by group.
      rest: {"live"}, by group or None.
    """
    return {"weights": jax.tree.map(jax.nn.softmax, logits), **rest}


def relaxed_steps(
    case: Setting,
    params: Any,
    relaxed: tuple[Any, Any] | None = None,
    binding: Callable[[Any, Any], Any] = weights_of,
    trained: Callable[[Any, Any], Any] | None = None,
) -> dict[str, tuple[Any, Compiled]]:
    """Runs of STEPS steps each, and their programs.

    Args:
      case: the space and its batch.
      params: shared weights.
      relaxed: logits, and the rest of what ``binding`` takes; of `alphas` if None.
      binding: makes the relaxed binding of them.
      trained: the same for the weight step; as ``binding`` if None.
    """
    trained = trained or binding
    (logits, rest), bind = relaxed or alphas(case), case.space.bind
    adam = optax.adam(3e-4, b1=0.5)
    weight = full_step(case)

    def weight_step(state, relaxed, batch):
        return weight.step(state, bind(trained(*relaxed)), batch)

    def alpha_step(state, fixed, batch):
        (logits, opt_state), (params, rest) = state, fixed

        def loss_of(logits):
            return case.loss(params, bind(binding(logits, rest)), batch)

        loss, grads = jax.value_and_grad(loss_of)(logits)
        updates, opt_state = adam.update(grads, opt_state)
        return loss, (optax.apply_updates(logits, updates), opt_state)

    programs = {
        "relaxed weight step": (weight_step, weight.start(params), (logits, rest)),
        "alpha step": (alpha_step, (logits, adam.init(logits)), (params, rest)),
    }
    found = {}
    for name, (step, *arguments) in programs.items():
        arguments = (*arguments, case.batch)
        compiled = compile_program(repeated(step, STEPS), *arguments)
        found[name] = (lambda c=compiled, a=arguments: c.call(*a), compiled)
    return found
