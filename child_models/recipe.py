"""The recipe by which one network is trained and measured.

It is that of DARTS (Liu et al. 2019, https://arxiv.org/abs/1806.09055, appendix A.2):
SGD with a cosine rate, cutout, an auxiliary head, and drop-path that grows linearly
from 0, there by epoch.  Every random draw comes from ``fold_in(key, step)``, so that a
training that was stopped goes on bit for bit.

The network's choices are an argument: fixed ones make a program for one architecture,
sampled ones a program for all of a space.

Shapes: B images a step, N images a split.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from child_models.data.augment import augmentation
from child_models.data.batches import Batches, BatchState, sum_over_split
from child_models.data.preprocess import preprocess
from child_models.optimizer import cosine_restarts, nan_unless_finite, sgd
from child_models.placement import Placement, placement
from child_models.types import Dataset, Task

GROWTHS = ("step", "epoch")  # of the probability of dropping a path


@flax.struct.dataclass
class TrainState:
    """All that training changes."""

    key: jax.Array  # key[], never consumed; every step folds its number in
    step: jax.Array  # int32[], steps done
    failed: jax.Array  # bool[], whether the loss of step `step` was not finite
    params: Any
    batch_stats: Any
    opt_state: Any
    position: BatchState

    @property
    def variables(self) -> dict[str, Any]:
        """What the network is applied to."""
        return {"params": self.params, "batch_stats": self.batch_stats}


class Recipe(NamedTuple):
    """The training of one network, to be compiled.

    Attributes:
      steps: in all epochs together.
      steps_per_epoch: batches in an epoch.
      init: ``(key, split, choices) -> TrainState``.
      run: ``(state, split, choices, count, rate=None) -> (state, {"loss",
        "accuracy"})``: at most count steps, int or int32[], and the means over them;
        stops at the end of training, and before a step whose loss or gradient is not
        finite.  A rate, float32[], multiplies the learning rate of every step.
      measure: ``(variables, split, choices) -> {"loss", "accuracy"}``, float32[] each:
        means over a whole split.  With running statistics, where the network keeps
        them; else with those of each batch, the last one filled up from the start.
    """

    steps: int
    steps_per_epoch: int
    init: Callable[..., TrainState]
    run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    measure: Callable[..., dict[str, jax.Array]]


def recipe(
    module: nn.Module,
    task: Task,
    dataset: Dataset,
    batches: Batches,
    *,
    epochs: int,
    learning_rate: float = 0.025,
    min_learning_rate: float = 0.0,
    restart_epochs: int = 0,
    restart_factor: int = 2,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 3e-4,
    clip_norm: float | None = 5.0,
    unsampled: str = "decay",
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    drop_path: float = 0.0,
    drop_path_by: str = "step",
    auxiliary_weight: float = 0.4,
    measure_batch: int = 96,
    place: Placement | None = None,
) -> Recipe:
    """Builds the training of a network.

    Args:
      module: of a space, as `Space.module` returns it.
      task: loss and metric.
      dataset: whose mean and standard deviation normalise images.
      batches: of the split that is trained on.
      epochs: passes over that split.
      learning_rate: peak of a cosine.
      min_learning_rate: its floor.
      restart_epochs: first period of a cosine with restarts; 0 for one cosine.
      restart_factor: each period is this many times as long as the one before.
      momentum: of SGD.
      nesterov: whether SGD looks ahead.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      unsampled: "decay" or "frozen", what happens to weights without a gradient.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      drop_path: probability of dropping a path, to which it grows linearly from 0.
      drop_path_by: "step": it is reached at the last step, as in NASNet; "epoch": that
        of an epoch, from 0, is ``drop_path * epoch / epochs``, as in DARTS.
      auxiliary_weight: of the auxiliary head's loss, where the network has one.
      measure_batch: images that `Recipe.measure` takes at once, at most.
      place: splits batches over devices; None for one device.

    Raises:
      ValueError: on a number out of range, or an unknown name.
    """
    if drop_path_by not in GROWTHS:
        raise ValueError(
            f"drop_path_by is {drop_path_by!r}; known: {', '.join(GROWTHS)}"
        )
    steps = epochs * batches.per_epoch
    period = restart_epochs * batches.per_epoch or steps
    factor = restart_factor if restart_epochs else 1
    optimizer = sgd(
        cosine_restarts(learning_rate, min_learning_rate, period, factor),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        unsampled=unsampled,
    )
    scale = preprocess(dataset)
    augment = augmentation(pad=pad, flip=flip, cutout=cutout)
    place = placement(None) if place is None else place

    def init(key, split, choices):
        weights_key, data_key, run_key = jax.random.split(key, 3)
        images = jnp.zeros((2, *split.images.shape[1:]))
        variables = module.init(weights_key, choices, images, True)
        state = TrainState(
            key=run_key,
            step=jnp.int32(0),
            failed=jnp.array(False),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
            position=batches.init(data_key),
        )
        return place.copy(state)

    def loss_of(params, batch_stats, choices, images, labels, dropout_key, drop):
        logits, new = module.apply(
            {"params": params, "batch_stats": batch_stats},
            choices,
            images,
            True,
            drop,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats", "auxiliary"],
        )
        loss = task.loss(logits, labels).mean()
        for auxiliary in jax.tree.leaves(new.get("auxiliary", {})):
            loss += auxiliary_weight * task.loss(auxiliary, labels).mean()
        accuracy = task.metric(logits, labels).mean()
        return loss, (new.get("batch_stats", {}), accuracy)

    def grown(step):
        if drop_path_by == "epoch":
            return step // batches.per_epoch / epochs
        return step / max(steps - 1, 1)

    def one_step(state, split, choices, rate):
        """The next state, and {"loss", "accuracy"} of the batch that led to it."""
        augment_key, dropout_key = jax.random.split(
            jax.random.fold_in(state.key, state.step)
        )
        indices, position = batches.next(state.position)
        indices = place.split(indices)
        images = place.split(augment(augment_key, scale(split.images[indices])))
        labels = split.labels[indices]
        # A drop-path of zero is static, so that it costs nothing.
        drop = drop_path * grown(state.step) if drop_path else 0.0
        gradient = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (batch_stats, accuracy)), grads = gradient(
            state.params, state.batch_stats, choices, images, labels, dropout_key, drop
        )
        grads = place.copy(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        if rate is not None:
            updates = jax.tree.map(lambda update: rate * update, updates)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            position=position,
        )
        return new, {"loss": nan_unless_finite(loss, grads), "accuracy": accuracy}

    def run(state, split, choices, count, rate=None):
        begin, end = state.step, jnp.minimum(state.step + count, steps)

        def unfinished(carry):
            return (carry[0].step < end) & ~carry[0].failed

        def body(carry):
            state, sums = carry
            new, metrics = one_step(state, split, choices, rate)
            good = jnp.isfinite(metrics["loss"])
            new = jax.tree.map(lambda a, b: _where(good, a, b), new, state)
            sums = jax.tree.map(lambda s, m: s + jnp.where(good, m, 0), sums, metrics)
            return new.replace(failed=~good), sums

        zero = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
        state, sums = jax.lax.while_loop(unfinished, body, (state, zero))
        done = jnp.maximum(state.step - begin, 1)
        return state, jax.tree.map(lambda s: s / done, sums)

    def measure(variables, split, choices):
        total = len(split.labels)

        def sums(indices, weight):
            indices = place.split(indices)
            images = place.split(scale(split.images[indices]))
            logits = module.apply(variables, choices, images, False)
            labels = split.labels[indices]
            return {
                "loss": jnp.sum(task.loss(logits, labels) * weight),
                "accuracy": jnp.sum(task.metric(logits, labels) * weight),
            }

        added = sum_over_split(total, min(measure_batch, total), sums)
        return jax.tree.map(lambda s: s / total, added)

    return Recipe(steps, batches.per_epoch, init, run, measure)


def _where(condition, a, b):
    """`jnp.where`, of typed keys too."""
    return jax.lax.select(jnp.broadcast_to(condition, a.shape), a, b)
