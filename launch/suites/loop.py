"""The search loop itself on random images, as the suites run it."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from child_models.evaluators.shared_weights import shared_weights
from child_models.tasks.classification import classification
from child_models.types import Dataset, Split
from controller.loop import Log, make_loop, schedule
from controller.strategies.reinforce import reinforce
from launch.suites.children import CLASSES, SIZES, setting

SPACE = "nasbench201"


def search(
    ticks: int, *, policy_steps: int = 0, mesh: Mesh | None = None
) -> Callable[[], Log]:
    """A shared-weight search, of which every call does the next ticks.

    Args:
      ticks: child steps of a round, and ticks of a call.
      policy_steps: of a round, after those.
      mesh: that a batch is split over.
    """
    size = SIZES[SPACE]
    space = setting(SPACE).space
    evaluator = shared_weights(
        space,
        classification(classes=CLASSES),
        _random_images(4 * size.batch, size.side),
        batch_size=size.batch,
        reward_batch_size=size.batch,
        learning_rate=0.025,
        weight_decay=5e-4,
        clip_norm=5.0,
        mesh=mesh,
    )
    strategy = reinforce(space.spec, learning_rate=1e-3, baseline_decay=0.99)
    phases = schedule(rounds=1, child_steps=ticks, policy_steps=policy_steps)
    loop = make_loop(space.spec, strategy, evaluator, phases, max_ticks=ticks)
    state = loop.init(jax.random.key(0))

    def run() -> Log:
        nonlocal state
        state, log = loop.run(state, ticks)
        return log

    return run


def _random_images(n: int, side: int) -> Dataset:
    generator = np.random.default_rng(0)

    def split(count):
        images = generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
        labels = generator.integers(0, CLASSES, count, dtype=np.int32)
        return Split(images, labels)

    mean, std = np.full(3, 0.5, np.float32), np.full(3, 0.3, np.float32)
    train, validation, test = split(n), split(n), split(n)
    return Dataset("random", train, validation, test, CLASSES, mean, std)
