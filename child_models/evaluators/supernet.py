"""What evaluators that train one supernet have in common.

Weights learn from augmented batches of the train split; scores are taken on validation
images as they are.  A score whose loss is not finite is NaN, so that it is not taken
for that of a bad architecture.

Shapes: B images a training step, S a scoring batch, T decisions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from child_models.data.augment import augmentation
from child_models.data.batches import Batches, BatchState, sum_over_split
from child_models.data.preprocess import preprocess
from child_models.placement import Placement, placement
from child_models.types import Dataset, Space, Split, Task

Scores = dict[str, jax.Array]
REWARDS: dict[str, Callable[[Scores], jax.Array]] = {
    "accuracy": lambda scores: scores["accuracy"],
    "negative_loss": lambda scores: -scores["loss"],
}


@flax.struct.dataclass
class SharedState:
    """What training shared weights changes."""

    params: Any
    opt_state: Any
    train: BatchState  # position in the training split
    validation: BatchState  # position in the validation split


class Supernet(NamedTuple):
    """A supernet, its optimiser and the batches that it learns from and is scored on.

    Attributes:
      module: the search form.
      optimizer: of its weights.
      train, validation: batches of the two splits.
      data: {"train", "validation"}: the splits, on the devices.
      place: how batches are split over devices.
      scale: uint8 images to normalised ones.
      init: ``(key, data) -> SharedState``.
      forward: ``(params, choices, images, rngs, **options) -> logits``, with the
        statistics of the batch; options of the search form.
      train_batch: ``(place, key, split, indices[B]) -> (images, labels)``, augmented.
      measure: ``(logits_of, data, indices[S], weight[S]) -> Scores``: weighted sums
        over a validation batch, with ``logits_of(images)``.
      score: ``(logits_of, data) -> float32[]``: reward on the whole validation split.
      reward_of: ``(Scores) -> float32[]``.
    """

    module: nn.Module
    optimizer: optax.GradientTransformation
    train: Batches
    validation: Batches
    data: dict[str, Split]
    place: Placement
    scale: Callable[[jax.Array], jax.Array]
    init: Callable[[jax.Array, Any], SharedState]
    forward: Callable[..., jax.Array]
    train_batch: Callable[..., tuple[jax.Array, jax.Array]]
    measure: Callable[..., Scores]
    score: Callable[..., jax.Array]
    reward_of: Callable[[Scores], jax.Array]

    def step(self, state: SharedState, grads: Any, position: BatchState) -> SharedState:
        """The state after one step of the optimiser on a batch."""
        steps, opt_state = self.optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, steps)
        return state.replace(params=params, opt_state=opt_state, train=position)


def supernet(
    space: Space,
    task: Task,
    dataset: Dataset,
    optimizer: optax.GradientTransformation,
    bind: Callable[[jax.Array], Any],
    *,
    batch_size: int,
    reward_batch_size: int,
    reward: str | Callable[[Scores], jax.Array],
    pad: int,
    flip: bool,
    cutout: int,
    mesh: Mesh | None,
) -> Supernet:
    """Builds a supernet.

    Args:
      space: whose search form is trained.
      task: loss and metric.
      dataset: weights learn from its train split, rewards come from validation.
      optimizer: of the weights.
      bind: decisions int32[T] to the choices with which weights are initialised.
      batch_size: B.
      reward_batch_size: S.
      reward: name, or a function of the scores {"accuracy": mean metric, "loss"}.
      pad, flip, cutout: as of `augmentation`.
      mesh: devices with an axis "data" that every batch is split over; None for one.

    Raises:
      ValueError: on an unknown reward, or a batch larger than its split or not a
        multiple of the devices.
    """
    if not callable(reward):
        check_known("reward", reward, REWARDS)
        reward = REWARDS[reward]
    train = Batches(len(dataset.train.labels), batch_size)
    total = len(dataset.validation.labels)
    validation = Batches(total, reward_batch_size, split="validation")
    place = placement(mesh)
    place.check("batch_size", batch_size)
    place.check("reward_batch_size", reward_batch_size)
    module, scale = space.module("search"), preprocess(dataset)
    augment = augmentation(pad=pad, flip=flip, cutout=cutout)

    def init(key, data):
        weights_key, sample_key, train_key, validation_key = jax.random.split(key, 4)
        choices = bind(space.spec.sample(sample_key))
        x = jnp.zeros((2, *data["train"].images.shape[1:]))
        params = module.init(weights_key, choices, x, True)["params"]
        state = SharedState(
            params,
            optimizer.init(params),
            train.init(train_key),
            validation.init(validation_key),
        )
        return place.copy(state)

    def forward(params, choices, images, rngs=None, **options):
        variables = {"params": params}
        return module.apply(variables, choices, images, True, rngs=rngs, **options)

    def train_batch(place, key, split, indices):
        indices = place.split(indices)
        images = place.split(augment(key, scale(split.images[indices])))
        return images, split.labels[indices]

    def measure(logits_of, data, indices, weight):
        split, indices = data["validation"], place.split(indices)
        logits = logits_of(place.split(scale(split.images[indices])))
        labels = split.labels[indices]
        loss = jnp.sum(task.loss(logits, labels) * weight)
        return {"accuracy": jnp.sum(task.metric(logits, labels) * weight), "loss": loss}

    def reward_of(scores):
        return jnp.where(jnp.isfinite(scores["loss"]), reward(scores), jnp.nan)

    def score(logits_of, data):
        measured = partial(measure, logits_of, data)
        sums = sum_over_split(total, reward_batch_size, measured)
        return reward_of(jax.tree.map(lambda s: s / total, sums))

    return Supernet(
        module,
        optimizer,
        train,
        validation,
        place.put({"train": dataset.train, "validation": dataset.validation}),
        place,
        scale,
        init,
        forward,
        train_batch,
        measure,
        score,
        reward_of,
    )


def check_known(name: str, value: Any, known: Any) -> None:
    """Raises ValueError on an evaluator's argument that is none of the known ones."""
    if value not in known:
        raise ValueError(
            f"evaluator.{name} is {value!r}; known: {', '.join(map(str, known))}"
        )
