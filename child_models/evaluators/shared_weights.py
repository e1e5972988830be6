"""Shared weights: one supernet is trained on sampled architectures and scores them.

ENAS, Pham et al. 2018 (https://arxiv.org/abs/1802.03268), section 2.2; SPOS, Guo et al.
2020, for recalibrated statistics.  A loss or gradient that is not finite makes the
reported loss NaN.

Shapes: B images a training step, S a scoring batch, n architectures, T decisions.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from child_models.evaluators.supernet import Scores, check_known, supernet
from child_models.ops.normalization import MOMENTUM
from child_models.optimizer import cosine_restarts, nan_unless_finite, sgd
from child_models.per_device import Gradient, per_device
from child_models.placement import placement
from child_models.several import several
from child_models.types import Dataset, Space, Task, check_sampled
from controller.types import Evaluator, Trial

BATCH_NORMS = ("batch", "recalibrated")
REWARD_BATCHES = ("shared", "fresh")
PER_DEVICE = "per_device"


def shared_weights(
    space: Space,
    task: Task,
    dataset: Dataset,
    *,
    batch_size: int = 64,
    reward_batch_size: int = 64,
    reward: str | Callable[[Scores], jax.Array] = "accuracy",
    reward_batch: str = "shared",
    batch_norm: str = "batch",
    calibration_batches: int = 4,
    learning_rate: float = 0.05,
    min_learning_rate: float = 0.0005,
    restart_epochs: int = 10,
    restart_factor: int = 2,
    momentum: float = 0.9,
    nesterov: bool = True,
    weight_decay: float = 1e-4,
    clip_norm: float | None = 5.0,
    unsampled: str = "frozen",
    architectures_per_step: int | str = 1,
    likelihood_temperature: float | None = None,
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    mesh: Mesh | None = None,
) -> Evaluator:
    """Builds the evaluator of a shared-weight search.

    Args:
      space: with the "sampled" binding.
      task: loss and metric.
      dataset: weights learn from its train split, rewards come from validation.
      batch_size: B.
      reward_batch_size: S, images that one reward is measured on.
      reward: name, or a function of the scores {"accuracy": mean metric, "loss"}.
      reward_batch: "shared": all proposals of a policy step see one batch; "fresh":
        each sees its own.
      batch_norm: "batch": statistics of the batch, in scoring too; "recalibrated":
        running statistics gathered for each scored architecture.
      calibration_batches: training batches that recalibration averages over.
      learning_rate: peak of a cosine with restarts.
      min_learning_rate: its floor.
      restart_epochs: first period, in epochs of the train split.
      restart_factor: each period is this many times as long as the one before.
      momentum: of SGD.
      nesterov: whether SGD looks ahead.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      unsampled: "frozen" or "decay", what happens to weights a step did not sample.
      architectures_per_step: a number: a training step trains so many on its batch,
        one after another, with statistics of all of it; "per_device": each device
        trains one of its own on its part of the batch, with statistics of that part.
        Gradients are averaged.
      likelihood_temperature: where a step trains several, their gradients have weights
        softmax(-loss / temperature), as in PARSEC; None for equal ones.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      mesh: devices with an axis "data" that every batch is split over; None for one.

    Returns:
      the Evaluator; its trials are all marked valid, whatever their reward.

    Raises:
      ValueError: on a space without the sampled binding, an unknown name, or a batch
        larger than its split or not a multiple of the devices.
    """
    check_sampled("training shared weights", space)
    check_known("reward_batch", reward_batch, REWARD_BATCHES)
    check_known("batch_norm", batch_norm, BATCH_NORMS)
    _check_several(architectures_per_step, likelihood_temperature)
    if calibration_batches < 1:
        raise ValueError(
            f"evaluator.calibration_batches is {calibration_batches}; "
            "it must be 1 or more"
        )
    if batch_norm == "recalibrated" and not space.running_statistics:
        raise ValueError(
            "evaluator.batch_norm='recalibrated' needs running statistics, which the "
            "search form of this space does not keep; take 'batch'"
        )
    period = max(1, restart_epochs * (len(dataset.train.labels) // batch_size))
    optimizer = sgd(
        cosine_restarts(learning_rate, min_learning_rate, period, restart_factor),
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        unsampled=unsampled,
    )
    net = supernet(
        space,
        task,
        dataset,
        optimizer,
        space.bind,
        batch_size=batch_size,
        reward_batch_size=reward_batch_size,
        reward=reward,
        pad=pad,
        flip=flip,
        cutout=cutout,
        mesh=mesh,
    )

    def gradient(place, keys, params, split, indices, decisions):
        augment_key, dropout_key = keys
        images, labels = net.train_batch(place, augment_key, split, indices)

        def loss_fn(params):
            rngs = {"dropout": dropout_key}
            logits = net.forward(params, space.bind(decisions[0]), images, rngs)
            return task.loss(logits, labels).mean(), logits

        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        grads = place.copy(grads)
        metrics = {
            "loss": nan_unless_finite(loss, grads),
            "accuracy": task.metric(logits, labels).mean(),
        }
        return Gradient(grads, metrics, decisions[0])

    architectures, gradients = architectures_per_step, partial(gradient, net.place)
    if architectures == PER_DEVICE:
        architectures = net.place.devices
        if architectures > 1:  # a device's part of the batch is not split further
            gradients = per_device(mesh, partial(gradient, placement(None)))
    elif architectures > 1:
        gradients = several(gradients, likelihood_temperature)

    def improve(key, state, data, propose):
        propose_key, *keys = jax.random.split(key, 3)
        decisions = propose(propose_key, architectures).decisions
        indices, position = net.train.next(state.train)
        grads, metrics, decisions = gradients(
            keys, state.params, data["train"], indices, decisions
        )
        return net.step(state, grads, position), metrics | {"decisions": decisions}

    def logits_of(params, data, decisions, images):
        choices = space.bind(decisions)
        if batch_norm == "batch":
            return net.forward(params, choices, images)
        stats = _recalibrate(net.module, choices, params, _calibration(data["train"]))
        variables = {"params": params, "batch_stats": stats}
        return net.module.apply(variables, choices, images, False)

    def _calibration(split):
        count = min(calibration_batches, len(split.labels) // batch_size)
        images = split.images[: count * batch_size]
        return net.scale(images).reshape(count, batch_size, *images.shape[1:])

    def evaluate(key, state, data, proposal):
        del key  # scoring draws nothing
        shared, after_shared = net.validation.next(state.validation)

        def one(position, decisions):
            if reward_batch == "shared":
                indices = shared
            else:
                indices, position = net.validation.next(position)
            mean = jnp.full(reward_batch_size, 1 / reward_batch_size)
            logits = partial(logits_of, state.params, data, decisions)
            return position, net.reward_of(net.measure(logits, data, indices, mean))

        position, rewards = jax.lax.scan(one, state.validation, proposal.decisions)
        position = after_shared if reward_batch == "shared" else position
        valid = jnp.ones(len(rewards), bool)
        return state.replace(validation=position), Trial(proposal, rewards, valid)

    def score(state, data, decisions):
        return net.score(partial(logits_of, state.params, data, decisions), data)

    return Evaluator(net.data, net.init, improve, evaluate, score)


def _check_several(architectures, temperature):
    if architectures != PER_DEVICE and (
        not isinstance(architectures, int) or architectures < 1
    ):
        raise ValueError(
            f"evaluator.architectures_per_step is {architectures!r}; it must be 1 or "
            f"more, or {PER_DEVICE!r}"
        )
    if temperature is None:
        return
    if not temperature > 0:
        raise ValueError(
            f"evaluator.likelihood_temperature is {temperature}; it must be positive, "
            "or none"
        )
    if architectures in (1, PER_DEVICE):
        raise ValueError(
            f"evaluator.likelihood_temperature is {temperature}; "
            f"architectures_per_step={architectures!r} leaves nothing to weigh"
        )


def _recalibrate(module, choices, params, batches):
    """Batch statistics averaged over batches [k, B, H, W, C].

    From running statistics of zero one update gives (1 - momentum) times those of the
    batch, so the average needs no other access to them.
    """
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), choices, batches[0], True)
    )["batch_stats"]
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

    def add(sums, images):
        _, new = module.apply(
            {"params": params, "batch_stats": zeros},
            choices,
            images,
            True,
            mutable=["batch_stats"],
        )
        return jax.tree.map(jnp.add, sums, new["batch_stats"]), None

    sums, _ = jax.lax.scan(add, zeros, batches)
    return jax.tree.map(lambda s: s / (len(batches) * (1 - MOMENTUM)), sums)
