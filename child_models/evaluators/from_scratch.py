"""Training from scratch: the final form of one fixed architecture, then its test.

The recipe is that of DARTS (Liu et al. 2019, https://arxiv.org/abs/1806.09055, appendix
A.2): Nesterov's SGD with a cosine rate, cutout, an auxiliary head, and drop-path that
grows linearly from 0.  Every random draw comes from ``fold_in(key, step)``, so that a
training that was stopped goes on bit for bit.

Shapes: B images a step, N images a split.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from child_models.data.augment import augmentation
from child_models.data.batches import Batches, BatchState
from child_models.data.preprocess import preprocess
from child_models.optimizer import (
    cosine_restarts,
    nan_unless_finite,
    nesterov_sgd,
)
from child_models.types import Dataset, Space, Split, Task


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


class FromScratch(NamedTuple):
    """The training of one network.

    Attributes:
      data: {"train", "test"}: `Split`s, on the device.
      steps: in all epochs together.
      steps_per_epoch: batches in an epoch.
      init: ``(key, data) -> TrainState``.
      run: ``(state, data, count) -> (state, {"loss", "accuracy"})``: at most count
        steps, a traced int32[], and the means over them; stops at the end of training,
        and before a step whose loss or gradient is not finite.  To be compiled with
        the state donated.
      test: ``(variables, data) -> float32[]``, the mean metric over the test split,
        with running statistics.
    """

    data: dict[str, Split]
    steps: int
    steps_per_epoch: int
    init: Callable[[jax.Array, Any], TrainState]
    run: Callable[..., tuple[TrainState, dict[str, jax.Array]]]
    test: Callable[[Any, Any], jax.Array]


def from_scratch(
    space: Space,
    task: Task,
    dataset: Dataset,
    decisions: Any,
    *,
    epochs: int,
    batch_size: int = 96,
    learning_rate: float = 0.025,
    min_learning_rate: float = 0.0,
    restart_epochs: int = 0,
    restart_factor: int = 2,
    momentum: float = 0.9,
    weight_decay: float = 3e-4,
    clip_norm: float | None = 5.0,
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    drop_path: float = 0.0,
    auxiliary_weight: float = 0.4,
) -> FromScratch:
    """Builds the training of an architecture's final form on train + validation.

    Args:
      space: of the sizes that the network is to have.
      task: loss and metric.
      dataset: test is read by `test` only.
      decisions: T integers.
      epochs: passes over train and validation together.
      batch_size: B.
      learning_rate: peak of a cosine.
      min_learning_rate: its floor.
      restart_epochs: first period of a cosine with restarts; 0 for one cosine.
      restart_factor: each period is this many times as long as the one before.
      momentum: of Nesterov's SGD.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      drop_path: probability of dropping a path, reached linearly at the last step.
      auxiliary_weight: of the auxiliary head's loss, where the final form has one.

    Returns:
      the functions of the training; nothing is compiled.

    Raises:
      ValueError: on illegal decisions, or a batch larger than the images.
    """
    module, choices = space.module("final"), space.bind(np.asarray(decisions))
    everything = Split(
        np.concatenate([dataset.train.images, dataset.validation.images]),
        np.concatenate([dataset.train.labels, dataset.validation.labels]),
    )
    data = jax.tree.map(jnp.asarray, {"train": everything, "test": dataset.test})
    batches = Batches(len(everything.labels), batch_size, "train + validation")
    steps = epochs * batches.per_epoch
    period = restart_epochs * batches.per_epoch or steps
    factor = restart_factor if restart_epochs else 1
    optimizer = nesterov_sgd(
        cosine_restarts(learning_rate, min_learning_rate, period, factor),
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
    )
    scale = preprocess(dataset)
    augment = augmentation(pad=pad, flip=flip, cutout=cutout)

    def init(key, data):
        weights_key, data_key, run_key = jax.random.split(key, 3)
        images = jnp.zeros((2, *data["train"].images.shape[1:]))
        variables = module.init(weights_key, choices, images, True)
        return TrainState(
            key=run_key,
            step=jnp.int32(0),
            failed=jnp.array(False),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
            position=batches.init(data_key),
        )

    def loss_of(params, batch_stats, images, labels, dropout_key, drop):
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

    def one_step(state, data):
        """The next state, and {"loss", "accuracy"} of the batch that led to it."""
        augment_key, dropout_key = jax.random.split(
            jax.random.fold_in(state.key, state.step)
        )
        indices, position = batches.next(state.position)
        images = augment(augment_key, scale(data["train"].images[indices]))
        labels = data["train"].labels[indices]
        # A drop-path of zero is static, so that it costs nothing.
        drop = drop_path * state.step / max(steps - 1, 1) if drop_path else 0.0
        (loss, (batch_stats, accuracy)), grads = jax.value_and_grad(
            loss_of, has_aux=True
        )(state.params, state.batch_stats, images, labels, dropout_key, drop)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        new = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            position=position,
        )
        return new, {"loss": nan_unless_finite(loss, grads), "accuracy": accuracy}

    def run(state, data, count):
        begin, end = state.step, jnp.minimum(state.step + count, steps)

        def unfinished(carry):
            return (carry[0].step < end) & ~carry[0].failed

        def body(carry):
            state, sums = carry
            new, metrics = one_step(state, data)
            good = jnp.isfinite(metrics["loss"])
            new = jax.tree.map(lambda a, b: _where(good, a, b), new, state)
            sums = jax.tree.map(lambda s, m: s + jnp.where(good, m, 0), sums, metrics)
            return new.replace(failed=~good), sums

        zero = {"loss": jnp.float32(0), "accuracy": jnp.float32(0)}
        state, sums = jax.lax.while_loop(unfinished, body, (state, zero))
        done = jnp.maximum(state.step - begin, 1)
        return state, jax.tree.map(lambda s: s / done, sums)

    def test(variables, data):
        split, total = data["test"], len(dataset.test.labels)
        size = min(batch_size, total)

        def body(step, total_metric):
            # The last batch is filled up from the start of the split, without weight.
            index = step * size + jnp.arange(size)
            images = scale(split.images[index % total])
            logits = module.apply(variables, choices, images, False)
            metric = task.metric(logits, split.labels[index % total])
            return total_metric + jnp.sum(jnp.where(index < total, metric, 0))

        sums = jax.lax.fori_loop(0, -(-total // size), body, jnp.float32(0))
        return sums / total

    return FromScratch(data, steps, batches.per_epoch, init, run, test)


def _where(condition, a, b):
    """`jnp.where`, of typed keys too."""
    return jax.lax.select(jnp.broadcast_to(condition, a.shape), a, b)
