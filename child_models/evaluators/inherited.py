"""Inherited weights: a child goes on from those of its parent wherever they fit.

Real et al. 2017, https://arxiv.org/abs/1703.01041, section 3.3: a weight keeps the
parent's value, batch statistics included, where its name and shape agree; all others
are drawn anew.  The momentum starts at 0, and the learning rate stays where it is.

Children are compiled one by one, each structure once: learning rate, weights and images
are arguments of its program.  Of three convolutions on digits that takes 7 s of a CPU
core, 3 s with `quick_compile`; the training of five epochs takes 0.3 and 0.6 s.

A trial depends on its decisions, on its parent's weights and on the key of its policy
step, and on nothing else.

Shapes: B images a training step, n architectures, T decisions.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from child_models.cost import count
from child_models.evaluators.from_scratch import child_recipe
from child_models.types import Dataset, Space, Task
from controller.types import Evaluator, Execution, Trial, execution, no_improvement

PROGRAMS = 64  # compiled ones that are kept
Variables = dict[str, Any]


@flax.struct.dataclass
class Heritage:
    """All that lasts from one trial to the next."""

    weights: dict[str, Variables]  # by the number of the trial that trained them
    trials: np.ndarray  # int32[], trials so far
    score_key: jax.Array  # key[], of the trainings of the final choice; constant


@dataclasses.dataclass(frozen=True)
class Structure:
    """What a program is compiled for; choices need not be hashable."""

    text: str  # of the choices, in full
    choices: Any = dataclasses.field(compare=False)


class Child(NamedTuple):
    """What became of one architecture.

    Attributes:
      accuracy: on the validation split; 0 where the child failed.
      variables: of its network; None where it failed.
      reason: why it failed, None where it did not.
    """

    accuracy: float
    variables: Variables | None
    reason: str | None


def inherited(
    space: Space,
    task: Task,
    dataset: Dataset,
    *,
    epochs: int = 10,
    train_limit: int | None = None,
    batch_size: int = 50,
    reward_batch_size: int = 64,
    learning_rate: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    clip_norm: float | None = 5.0,
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    max_macs: int | None = None,
    quick_compile: bool = False,
    executor: str = "auto",
    workers: int = 1,
    order: str = "submission",
    gpus: float = 0.0,
    mesh: Mesh | None = None,
) -> Evaluator:
    """Builds the evaluator of a search in which children go on from their parents.

    The reward is the accuracy on the whole validation split after the training, with
    running statistics where the search form keeps them.  A child fails where its loss
    is not finite, its network too large, or anything is raised while it is compiled and
    run, such as for want of memory: its trial is not valid, and says why.

    The score for the final choice comes from a training from scratch, of equal length
    and with one key for all candidates.

    Args:
      space: with the "fixed" binding.
      task: loss and metric.
      dataset: children learn from its train split, rewards come from validation.
      epochs: passes over the images that are trained on, of each child.
      train_limit: how many images of the train split those are, the first; None for
        all.
      batch_size: B.
      reward_batch_size: images of validation that are looked at together.
      learning_rate: of architectures that have none of their own.
      momentum: of Nesterov's SGD.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      max_macs: multiply-adds beyond which a network is not trained; None for no limit.
        A network beyond the machine's memory may end the process, not only the child.
      quick_compile: whether XLA optimises less, which halves the compilation and
        doubles the training of a small network on CPU.
      executor, workers, order, gpus: where children train, see `execution`; they are
        never compiled into the search.
      mesh: devices with an axis "data" that every batch is split over; None for one.

    Returns:
      the Evaluator, driven from the host; it improves nothing between trials.

    Raises:
      ValueError: on a space without the fixed binding, a number out of range, or a
        batch larger than its split or not a multiple of the devices.
    """
    where = _execution(executor, workers, order, gpus)
    if max_macs is not None and max_macs < 1:
        raise ValueError(f"max_macs is {max_macs}; it must be 1 or more")
    if not learning_rate > 0:
        raise ValueError(f"learning_rate is {learning_rate}; it must be positive")
    training, data = child_recipe(
        space,
        task,
        dataset,
        ("validation",),
        epochs=epochs,
        train_limit=train_limit,
        batch_size=batch_size,
        reward_batch_size=reward_batch_size,
        learning_rate=1.0,  # the program multiplies it by the architecture's
        min_learning_rate=1.0,
        momentum=momentum,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        pad=pad,
        flip=flip,
        cutout=cutout,
        mesh=mesh,
    )
    module = space.module("search")
    image = dataset.train.images.shape[1:]
    options = {"xla_backend_optimization_level": 0} if quick_compile else None

    @functools.lru_cache(maxsize=PROGRAMS)
    def program(structure: Structure) -> tuple[Variables, Callable[..., Any]]:
        """Shapes of the variables, and the training of one structure."""
        choices = structure.choices

        def fresh(key, data):
            return training.init(key, data["train"], choices)

        def run(key, data, given, taken, rate):
            state = fresh(key, data)
            own = {"params": state.params, "batch_stats": state.batch_stats}
            state = state.replace(**jax.tree.map(jnp.where, taken, given, own))
            state, _ = training.run(state, data["train"], choices, training.steps, rate)
            scores = training.measure(state.variables, data["validation"], choices)
            valid = ~state.failed & jnp.isfinite(scores["loss"])
            return scores["accuracy"], valid, state.variables

        shapes = jax.eval_shape(fresh, jax.random.key(0), data).variables
        return shapes, jax.jit(run, compiler_options=options)

    def child(key, data, decisions, parent) -> Child:
        choices = space.bind(decisions)
        if max_macs is not None:
            macs = count(module, choices, image).macs
            if macs > max_macs:
                return Child(
                    0.0, None, f"{macs:,} multiply-adds; max_macs={max_macs:,}"
                )
        shapes, run = program(Structure(repr(choices), choices))
        given, taken = inheritance(shapes, parent)
        rate = learning_rate
        if space.learning_rate is not None:
            rate = space.learning_rate(decisions)
        found = run(key, data, given, taken, jnp.float32(rate))
        accuracy, valid, variables = jax.device_get(found)
        if not valid:
            return Child(0.0, None, "its loss is not finite")
        return Child(float(accuracy), variables, None)

    def attempt(key, data, decisions, parent) -> Child:
        try:
            return child(key, data, decisions, parent)
        except Exception as error:  # whatever an odd network makes a compiler raise
            text = " ".join(str(error).split())[:200]
            return Child(0.0, None, f"{type(error).__name__}: {text}")

    def evaluate(key, state, data, proposal):
        decisions, parents = np.asarray(proposal.decisions), proposal.parent
        children = []
        for i, row in enumerate(decisions):
            parent = None if parents is None else state.weights.get(str(parents[i]))
            children.append(attempt(key, data, row, parent))
            state = adopt(state, None if parents is None else children[i].variables)
        return state, Trial(
            proposal,
            reward=np.array([c.accuracy for c in children], np.float32),
            valid=np.array([c.reason is None for c in children]),
            reason=np.array([c.reason for c in children], object),
        )

    def score(state, data, decisions):
        found = attempt(state.score_key, data, np.asarray(decisions), None)
        return jnp.float32(found.accuracy if found.reason is None else jnp.nan)

    def keep(state, trials):
        names = {str(trial) for trial in np.asarray(trials)}
        kept = {name: w for name, w in state.weights.items() if name in names}
        return state.replace(weights=kept)

    return Evaluator(
        data,
        lambda key, data: Heritage({}, np.int32(0), key),
        no_improvement,
        evaluate,
        score,
        execution=where,
        keep=keep,
        left=left,
        adopt=adopt,
    )


def _execution(executor: str, workers: int, order: str, gpus: float) -> Execution:
    """`execution` of children that are compiled one by one."""
    if executor == "compiled":
        raise ValueError(
            "executor is 'compiled'; children that inherit weights are compiled one by "
            "one, by 'local' or 'ray'"
        )
    return execution("local" if executor == "auto" else executor, workers, order, gpus)


def left(state: Heritage) -> Variables | None:
    """The weights of the last trial; None where it left none."""
    return state.weights.get(str(state.trials - 1))


def adopt(state: Heritage, weights: Variables | None) -> Heritage:
    """The state after one more trial, which left such weights."""
    new = {} if weights is None else {str(state.trials): weights}
    return state.replace(weights=state.weights | new, trials=np.int32(state.trials + 1))


def inheritance(
    shapes: Variables, parent: Variables | None
) -> tuple[Variables, Variables]:
    """What a child takes from its parent.

    Args:
      shapes: of the child's variables.
      parent: the parent's variables, None for none.

    Returns:
      arrays of those shapes, zeros where the parent has none of that name and shape;
      and bool[] of each, whether it has.
    """
    paths = jax.tree_util.tree_flatten_with_path(parent)[0]
    found = dict(paths)

    def fits(path, like):
        return path in found and found[path].shape == like.shape

    def values(path, like):
        return found[path] if fits(path, like) else np.zeros(like.shape, like.dtype)

    with_path = jax.tree_util.tree_map_with_path
    return with_path(values, shapes), with_path(fits, shapes)
