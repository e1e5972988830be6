"""Children of the search spaces, as the suites train them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from child_models.optimizer import sgd
from child_models.spaces import SPACES
from child_models.tasks.classification import classification
from child_models.types import Space
from launch.suites.timing import compile_program

CLASSES = 10


class Size(NamedTuple):
    """Arguments of a space, images of a step and their side."""

    arguments: dict[str, Any]
    batch: int
    side: int


# What a CPU trains in a fraction of a second a step.
SIZES = {
    "nasbench201": Size({"channels": 16, "cells": 1}, 64, 32),
    "enas_micro": Size({"nodes": 5, "channels": 20, "layers": 2}, 32, 16),
    "enas_macro": Size({"layers": 6, "channels": 24}, 32, 16),
    "nasnet": Size({"blocks": 5, "channels": 12, "cells": 2}, 32, 16),
}


class Setting(NamedTuple):
    """A space and what its children are trained on.

    Attributes:
      name: of the space.
      space: built.
      batch: images and labels of a step.
      loss: ``(params, choices, batch) -> float32[]``.
    """

    name: str
    space: Space
    batch: tuple[jax.Array, jax.Array]
    loss: Callable[..., jax.Array]


class Program(NamedTuple):
    """What is timed.

    Attributes:
      start: ``(params) -> state``.
      step: ``(state, choices, batch) -> (loss, state)``.
    """

    start: Callable[[Any], Any]
    step: Callable[..., tuple[jax.Array, Any]]


def setting(name: str, size: Size | None = None, **options: Any) -> Setting:
    """A space with random images.

    Args:
      name: of the space.
      size: that of the name in `SIZES` if None.
      **options: arguments of the space beyond those, such as dtype.
    """
    size = SIZES[name] if size is None else size
    space = SPACES[name](classes=CLASSES, **(size.arguments | options))
    module, task = space.module("search"), classification(classes=CLASSES)
    image_key, label_key = jax.random.split(jax.random.key(0))
    images = jax.random.normal(image_key, (size.batch, size.side, size.side, 3))
    labels = jax.random.randint(label_key, (size.batch,), 0, CLASSES)

    def loss(params, choices, batch):
        images, labels = batch
        logits = module.apply({"params": params}, choices, images, True)
        return task.loss(logits, labels).mean()

    return Setting(name, space, (images, labels), loss)


def shared_variables(case: Setting) -> Any:
    """Shared weights, initialised."""
    decisions = case.space.spec.sample(jax.random.key(0))
    module, choices = case.space.module("search"), case.space.bind(decisions)
    init = jax.jit(lambda key, x: module.init(key, choices, x, True))
    return init(jax.random.key(1), case.batch[0][:2])


def architectures(case: Setting, n: int) -> np.ndarray:
    """int32[n, T], drawn uniformly with fixed keys."""
    keys = jax.random.split(jax.random.key(2), n)
    return np.asarray(jax.vmap(case.space.spec.sample)(keys))


def forward_backward(case: Setting) -> Program:
    """Loss and gradient; the gradient is the part of the state that changes."""

    def step(state, choices, batch):
        loss, grads = jax.value_and_grad(case.loss)(state[0], choices, batch)
        return loss, (state[0], grads)

    return Program(lambda params: (params, jax.tree.map(jnp.zeros_like, params)), step)


def full_step(case: Setting) -> Program:
    """Loss, gradient and update, with the optimizer of a search."""
    optimizer = sgd(0.025, weight_decay=1e-4, clip_norm=5.0, unsampled="frozen")

    def step(state, choices, batch):
        params, opt_state = state
        loss, grads = jax.value_and_grad(case.loss)(params, choices, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return loss, (optax.apply_updates(params, updates), opt_state)

    return Program(lambda params: (params, optimizer.init(params)), step)


def repeated(step: Callable[..., tuple], n: int) -> Callable[..., tuple]:
    """n steps in one loop, as a search runs them: ``(state, choices, batch)``.

    The images depend on the loss before, so that no step can leave the loop.
    """

    def body(choices, labels, _, carry):
        _, state, images = carry
        loss, state = step(state, choices, (images, labels))
        return loss, state, images + 0 * loss

    def run(state, choices, batch):
        images, labels = batch
        start = (jnp.float32(0), state, images)
        one = functools.partial(body, choices, labels)
        loss, state, _ = jax.lax.fori_loop(0, n, one, start)
        return loss, state

    return run


def sampled_runs(
    case: Setting, program: Program, params: Any, steps: int
) -> tuple[Callable[[np.ndarray], Callable[[], Any]], float]:
    """The sampled binding of a program, compiled once.

    Returns:
      ``(decisions[T]) -> run`` of so many steps, and the seconds of compiling.
    """
    state = program.start(params)
    loop = repeated(lambda s, d, b: program.step(s, case.space.bind(d), b), steps)
    any_decisions = jnp.zeros(case.space.spec.length, jnp.int32)
    call, seconds = compile_program(loop, state, any_decisions, case.batch)

    def run_of(decisions: np.ndarray) -> Callable[[], Any]:
        choices = jnp.asarray(decisions)
        return lambda: call(state, choices, case.batch)

    return run_of, seconds
