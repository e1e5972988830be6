"""From scratch: every architecture gets weights of its own and a short training.

The reward of NAS-RL (Zoph & Le 2017, https://arxiv.org/abs/1611.01578) and of all
multi-trial search since: the accuracy on the validation split.  Unlike there, children
are trained in the search form by the sampled binding, so that one program serves all
architectures of a space: compiling one by itself takes longer than training it briefly.

A trial depends on its decisions and on the key of its policy step, and on nothing else.
All children of a policy step share that key (initial weights, order of images,
augmentation), so that they are compared on equal terms, in whatever order they stand.

Shapes: B images a training step, n architectures, T decisions.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from child_models.data.batches import Batches
from child_models.placement import placement
from child_models.recipe import Recipe, recipe
from child_models.types import Dataset, Space, Split, Task, check_sampled
from controller.types import Evaluator, Trial, execution, no_improvement


class Trainings(NamedTuple):
    """The training of any one architecture, to be compiled.

    Attributes:
      data: what it reads: the images of "train", and of the splits that are measured.
      run: ``(key, data, decisions int32[T]) -> ({split: float32[]}, bool[])``: accuracy
        on each whole split that is measured, and whether all losses were finite.
    """

    data: Any
    run: Callable[..., tuple[dict[str, jax.Array], jax.Array]]


@flax.struct.dataclass
class ScratchState:
    """All that lasts from one trial to the next."""

    score_key: jax.Array  # key[], of the trainings of the final choice; constant


def from_scratch(
    space: Space,
    task: Task,
    dataset: Dataset,
    *,
    epochs: int = 10,
    train_limit: int | None = None,
    batch_size: int = 64,
    reward_batch_size: int = 64,
    reward_epochs: int = 1,
    reward_power: float = 1.0,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    clip_norm: float | None = 5.0,
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    executor: str = "auto",
    workers: int = 1,
    order: str = "submission",
    gpus: float = 0.0,
    mesh: Mesh | None = None,
) -> Evaluator:
    """Builds the evaluator of a search in which children share nothing.

    The reward is the accuracy on the whole validation split, or a power of it (then the
    trial's value is the accuracy), with running statistics where the search form keeps
    them (they remember some ten steps, so that a training should have a few tens), else
    with those of each batch.  A child whose loss is not finite stops there: its trial
    is not valid, and its reward 0.

    The score for the final choice comes from another training of equal length.  Its key
    is the same for all candidates and none of the search's, so that the luck which made
    an architecture a candidate does not count again.

    Args:
      space: with the "sampled" binding.
      task: loss and metric.
      dataset: children learn from its train split, rewards come from validation.
      epochs: passes over the images that are trained on.
      train_limit: how many images of the train split those are, the first; None for
        all.
      batch_size: B.
      reward_batch_size: images of validation that are looked at together.
      reward_epochs: last epochs whose best accuracy counts; 5 in NAS-RL.
      reward_power: exponent of that accuracy in the reward; 3 in NAS-RL.
      learning_rate: peak of a cosine that ends at 0.
      momentum: of Nesterov's SGD.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      executor, workers, order, gpus: where children train, see `execution`.
      mesh: devices with an axis "data" that every batch is split over; None for one.

    Returns:
      the Evaluator; it improves nothing between trials, so that its schedules have no
      child steps.

    Raises:
      ValueError: on a space without the sampled binding, a number out of range, or a
        batch larger than its split or not a multiple of the devices.
    """
    where = execution(executor, workers, order, gpus)
    training = trainings(
        space,
        task,
        dataset,
        ("validation",),
        epochs=epochs,
        best_of=reward_epochs,
        train_limit=train_limit,
        batch_size=batch_size,
        reward_batch_size=reward_batch_size,
        learning_rate=learning_rate,
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        pad=pad,
        flip=flip,
        cutout=cutout,
        mesh=mesh,
    )

    if not 1 <= reward_epochs <= epochs:
        raise ValueError(
            f"reward_epochs is {reward_epochs}; it must be 1 to epochs={epochs}"
        )
    if not reward_power > 0:
        raise ValueError(f"reward_power is {reward_power}; it must be positive")

    def trial(key, data, decisions):
        accuracy, valid = training.run(key, data, decisions)
        return accuracy["validation"], valid

    def reward(accuracy):
        return accuracy if reward_power == 1 else accuracy**reward_power

    def evaluate(key, state, data, proposal):
        accuracy, valid = jax.lax.map(
            lambda decisions: trial(key, data, decisions), proposal.decisions
        )
        accuracy = jnp.where(valid, accuracy, 0)
        value = None if reward_power == 1 else jnp.where(valid, accuracy, jnp.nan)
        return state, Trial(proposal, reward(accuracy), valid, value=value)

    def score(state, data, decisions):
        accuracy, valid = trial(state.score_key, data, decisions)
        return jnp.where(valid, reward(accuracy), jnp.nan)

    return Evaluator(
        training.data,
        lambda key, data: ScratchState(key),
        no_improvement,
        evaluate,
        score,
        execution=where,
        score_key=lambda state: state.score_key,
    )


def trainings(
    space: Space,
    task: Task,
    dataset: Dataset,
    measured: Sequence[str],
    *,
    best_of: int = 1,
    **options: Any,
) -> Trainings:
    """Builds the trainings of `from_scratch`; a trial of it is one of them.

    Args:
      space, task, dataset: as of `from_scratch`.
      measured: splits of the data set to measure, in this order.
      best_of: last epochs whose best accuracies those of `Trainings.run` are.
      **options: the others of `from_scratch`, which are those of `child_recipe`.

    Raises:
      ValueError: as `from_scratch` does.
    """
    check_sampled("training many children in one program", space)
    training, data = child_recipe(
        space, task, dataset, measured, unsampled="frozen", **options
    )

    def run(key, data, decisions):
        choices = space.bind(decisions)
        state = training.init(key, data["train"], choices)

        def part(state, count):
            state, _ = training.run(state, data["train"], choices, count)
            scores = {
                name: training.measure(state.variables, data[name], choices)
                for name in measured
            }
            valid = ~state.failed
            for score in scores.values():
                valid &= jnp.isfinite(score["loss"])
            return state, ({n: score["accuracy"] for n, score in scores.items()}, valid)

        if best_of == 1:
            return part(state, training.steps)[1]
        each = training.steps_per_epoch
        counts = jnp.full(best_of, each).at[0].add(training.steps - best_of * each)
        _, (accuracies, valid) = jax.lax.scan(part, state, counts)
        return jax.tree.map(jnp.max, accuracies), valid.all()

    return Trainings(data, run)


def child_recipe(
    space: Space,
    task: Task,
    dataset: Dataset,
    measured: Sequence[str],
    *,
    epochs: int,
    train_limit: int | None,
    batch_size: int,
    reward_batch_size: int,
    mesh: Mesh | None = None,
    **options: Any,
) -> tuple[Recipe, dict[str, Split]]:
    """The training of a child in the search form, and what it reads, on the devices.

    Args:
      space, task, dataset, measured: as of `trainings`.
      epochs, train_limit, batch_size, reward_batch_size, mesh: as of `from_scratch`.
      **options: the others of `recipe`.

    Raises:
      ValueError: on a number out of range, or a batch larger than its split or not a
        multiple of the devices.
    """
    if epochs < 1:
        raise ValueError(f"epochs is {epochs}; it must be 1 or more")
    splits = {name: getattr(dataset, name) for name in measured}
    train = first_images(dataset.train, train_limit)
    batches = Batches(len(train.labels), batch_size)
    for name, split in splits.items():
        Batches(len(split.labels), reward_batch_size, split=name)
    place = placement(mesh)
    place.check("batch_size", batch_size)
    place.check("reward_batch_size", reward_batch_size)
    training = recipe(
        space.module("search"),
        task,
        dataset,
        batches,
        epochs=epochs,
        measure_batch=reward_batch_size,
        place=place,
        **options,
    )
    return training, place.put({"train": train} | splits)


def first_images(split: Split, limit: int | None) -> Split:
    """The first images of the train split, all without a limit.

    Raises:
      ValueError: if it has not so many.
    """
    total = len(split.labels)
    if limit is not None and not 1 <= limit <= total:
        raise ValueError(
            f"train_limit is {limit}; it must be 1 to {total}, the images of the train "
            "split, or none"
        )
    return Split(split.images[:limit], split.labels[:limit])
