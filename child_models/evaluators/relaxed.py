"""Relaxed supernet: all live ops of an edge run, weighted, and tell their gradients.

DARTS, Liu et al. 2019 (https://arxiv.org/abs/1806.09055), algorithm 1.  A training step
moves the shared weights at the relaxed weights that are proposed; an evaluation returns
the gradient of the validation loss with respect to the relaxed weights.  Beside the
paper, validation images are not augmented.

Proposals without relaxed weights are taken as architectures of weight 1, so that random
search runs on the same supernet, one path at a time.

Shapes: B images a training step, S a scoring batch, n architectures, T decisions.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from child_models.curvature import dominant_eigenvalue, shifted
from child_models.evaluators.supernet import Scores, check_known, supernet
from child_models.hypergradient import HYPERGRADIENTS, architecture_gradient
from child_models.optimizer import cosine_restarts, nan_unless_finite, sgd
from child_models.skip_dropout import skip_dropout_factor
from child_models.types import Dataset, Space, Task
from controller.spec import DecisionSpec
from controller.types import Evaluator, Trial


def relaxed(
    space: Space,
    task: Task,
    dataset: Dataset,
    *,
    hypergradient: str = "first",
    batch_size: int = 64,
    reward_batch_size: int = 64,
    reward: str | Callable[[Scores], jax.Array] = "accuracy",
    learning_rate: float = 0.025,
    min_learning_rate: float = 0.001,
    restart_epochs: int = 50,
    restart_factor: int = 1,
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 3e-4,
    clip_norm: float | None = 5.0,
    unsampled: str = "decay",
    skip_dropout_rest: int | None = None,
    hessian_every: int = 0,
    hessian_iterations: int = 16,
    pad: int = 0,
    flip: bool = False,
    cutout: int = 0,
    mesh: Mesh | None = None,
) -> Evaluator:
    """Builds the evaluator of a differentiable search.

    Args:
      space: with the "relaxed" binding.
      task: loss and metric.
      dataset: shared weights learn from its train split, relaxed ones from validation.
      hypergradient: "first": at the shared weights as they are; "finite_difference" and
        "exact": after one step more of theirs on the train batch that comes next, see
        `child_models.hypergradient`.  The batch is read and not consumed.
      batch_size: B.
      reward_batch_size: S, images of one gradient.
      reward: name, or a function of the scores {"accuracy": mean metric, "loss"}; of
        the relaxed supernet, after the step more if there is one.
      learning_rate: peak of a cosine with restarts, by step (the authors' by epoch).
      min_learning_rate: its floor.
      restart_epochs: first period, in epochs of the train split.
      restart_factor: each period is this many times as long as the one before.
      momentum: of SGD.
      nesterov: whether SGD looks ahead; not in the paper.
      weight_decay: L2 coefficient.
      clip_norm: largest global norm of the gradient, or None.
      unsampled: "frozen" or "decay", what happens to weights a step gave no gradient.
      skip_dropout_rest: lets the space's dropout after skips decay within
        `restart_epochs`, see `skip_dropout_factor`, of which the first so many do not
        learn the architecture; None for a rate that stays.
      hessian_every: evaluations from one to the next in which the dominant eigenvalue
        of the validation loss's Hessian is measured, see `child_models.curvature`, on
        the images and at the shared weights of that evaluation; 0 for never.  A
        schedule's policy_steps make it the last of each round.  It changes nothing
        else.  Gates of 0 and 1 (ProxylessNAS) have no such curvature: it is 0.
      hessian_iterations: of power iteration, each a product with the Hessian.
      pad: pixels of pad-and-crop augmentation; 0 for none.
      flip: whether training images are mirrored at random.
      cutout: side of the square cut out of training images; 0 for none.
      mesh: devices with an axis "data" that every batch is split over; None for one.

    Returns:
      the Evaluator; its trials are all marked valid, whatever their reward.

    Raises:
      ValueError: on a space without the relaxed binding, an unknown name, or a batch
        larger than its split or not a multiple of the devices; on a number out of its
        range; on a decay of skip dropout in a space that has none.
    """
    if "relaxed" not in space.bindings:
        raise ValueError(
            "a relaxed supernet needs the binding 'relaxed'; the space has only "
            f"{', '.join(sorted(space.bindings))}"
        )
    check_known("hypergradient", hypergradient, HYPERGRADIENTS)
    for name, value, low in (
        ("hessian_every", hessian_every, 0),
        ("hessian_iterations", hessian_iterations, 1),
    ):
        if value < low:
            raise ValueError(f"evaluator.{name} is {value}; it must be {low} or more")
    period = max(1, restart_epochs * (len(dataset.train.labels) // batch_size))
    rate = cosine_restarts(learning_rate, min_learning_rate, period, restart_factor)
    optimizer = sgd(
        rate,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        clip_norm=clip_norm,
        unsampled=unsampled,
    )

    def bind_one(decisions):
        return space.bind(one_architecture(space.spec, decisions))

    net = supernet(
        space,
        task,
        dataset,
        optimizer,
        bind_one,
        batch_size=batch_size,
        reward_batch_size=reward_batch_size,
        reward=reward,
        pad=pad,
        flip=flip,
        cutout=cutout,
        mesh=mesh,
    )

    if skip_dropout_rest is not None:
        _check_skip_dropout(net.module, skip_dropout_rest, restart_epochs)

    def options(batches):
        """Of the search form in training, where the train batches stand."""
        if skip_dropout_rest is None:
            return {}
        factor = skip_dropout_factor(batches.epoch, restart_epochs, skip_dropout_rest)
        return {"skip_dropout": factor * net.module.skip_dropout}

    def train_loss_fn(keys, state, data):
        """The loss on the train batch that comes next, and the position after it."""
        augment_key, dropout_key = keys
        indices, position = net.train.next(state.train)
        images, labels = net.train_batch(net.place, augment_key, data["train"], indices)

        def loss(params, choices):
            rngs = {"dropout": dropout_key}
            logits = net.forward(params, choices, images, rngs, **options(position))
            return task.loss(logits, labels).mean(), task.metric(logits, labels).mean()

        return loss, position

    def trained(proposal):
        """The choices of a training step: of gates one path, in the memory of one."""
        relaxed = proposal.relaxed
        if relaxed is None:
            relaxed = one_architecture(space.spec, proposal.decisions[0])
        elif "path" in relaxed and "sampled" in space.bindings:
            return space.bind(relaxed["path"])
        return space.bind(_running(relaxed))

    def improve(key, state, data, propose):
        propose_key, *keys = jax.random.split(key, 3)
        proposal = propose(propose_key, 1)
        loss_fn, position = train_loss_fn(keys, state, data)
        (loss, accuracy), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, trained(proposal)
        )
        grads = net.place.copy(grads)
        metrics = {
            "loss": nan_unless_finite(loss, grads),
            "accuracy": accuracy,
            "decisions": proposal.decisions[0],
        }
        return net.step(state, grads, position), metrics

    def validation_loss_fn(dropout_key, state, data, indices, architecture):
        """``(params, weights) -> (loss, scores)`` on some validation images."""
        mean = jnp.full(reward_batch_size, 1 / reward_batch_size)
        _, batches = net.train.next(state.train)  # as of the step that comes next

        def validation_loss(params, weights):
            choices = space.bind(architecture | {"weights": weights})
            rngs = {"dropout": dropout_key}
            scores = net.measure(
                lambda x: net.forward(params, choices, x, rngs, **options(batches)),
                data,
                indices,
                mean,
            )
            return scores["loss"], scores

        return validation_loss

    def relaxed_gradient(keys, state, data, validation_loss, architecture):
        loss_fn, _ = train_loss_fn(keys, state, data)

        def train_loss(params, weights):
            return loss_fn(params, space.bind(architecture | {"weights": weights}))[0]

        trace = optax.tree.get(state.opt_state, "trace")
        scores, gradient = architecture_gradient(
            hypergradient,
            train_loss,
            validation_loss,
            state.params,
            architecture["weights"],
            rate(optax.tree.get(state.opt_state, "count")),
            jax.tree.map(
                lambda t, w: momentum * t + weight_decay * w, trace, state.params
            ),
        )
        gradient = net.place.copy(gradient)
        reward = nan_unless_finite(net.reward_of(scores), gradient)
        return reward[None], gradient

    def curvature(key, state, loss, weights):
        """The dominant eigenvalue where it is due, else NaN."""
        at = state.validation
        done = at.epoch * net.validation.per_epoch + at.position // reward_batch_size

        def measured():
            point = jax.tree.map(jnp.zeros_like, weights)
            value = dominant_eigenvalue(
                key,
                lambda shift: loss(state.params, shifted(weights, shift))[0],
                point,
                hessian_iterations,
            )
            return net.place.copy(value)

        due = done % hessian_every == 0
        return jax.lax.cond(due, measured, lambda: jnp.float32(jnp.nan))

    def evaluate_relaxed(key, state, data, indices, proposal):
        architecture = proposal.relaxed
        # The first three are the same whether there is a fourth or not.
        keys = jax.random.split(key, 4 if hessian_every else 3)
        loss = validation_loss_fn(keys[0], state, data, indices, architecture)
        rewards, gradient = relaxed_gradient(keys[1:3], state, data, loss, architecture)
        trial = Trial(proposal, rewards, jnp.ones(1, bool), gradient=gradient)
        if hessian_every:
            value = curvature(keys[3], state, loss, architecture["weights"])
            trial = trial._replace(curvature=value)
        return trial

    def evaluate(key, state, data, proposal):
        indices, position = net.validation.next(state.validation)
        state = state.replace(validation=position)
        if proposal.relaxed is not None:
            return state, evaluate_relaxed(key, state, data, indices, proposal)
        mean = jnp.full(reward_batch_size, 1 / reward_batch_size)
        rewards = jax.lax.map(
            lambda row: net.reward_of(
                net.measure(logits_of(state, row), data, indices, mean)
            ),
            proposal.decisions,
        )
        return state, Trial(proposal, rewards, jnp.ones(len(rewards), bool))

    def logits_of(state, decisions):
        return lambda images: net.forward(state.params, bind_one(decisions), images)

    def score(state, data, decisions):
        return net.score(logits_of(state, decisions), data)

    return Evaluator(net.data, net.init, improve, evaluate, score, gradients=True)


def _check_skip_dropout(module, rest, epochs):
    if not hasattr(module, "skip_dropout"):
        raise ValueError(
            f"evaluator.skip_dropout_rest is {rest}; the space has no skip_dropout"
        )
    if not 0 <= rest <= epochs:
        raise ValueError(
            f"evaluator.skip_dropout_rest is {rest}; it must be 0 to "
            f"restart_epochs={epochs}"
        )


def one_architecture(spec: DecisionSpec, decisions: jax.Array) -> dict[str, Any]:
    """The relaxed ``{"weights", "live"}`` of one architecture: only its ops run."""
    weights = spec.one_hot(decisions)
    return {"weights": weights, "live": jax.tree.map(lambda w: w > 0, weights)}


def _running(architecture):
    """Without branches of weight 0, whose own weights get no gradient from it."""
    weights, live = architecture["weights"], architecture["live"]
    if live is None:
        return architecture
    live = jax.tree.map(lambda w, alive: alive & (w != 0), weights, live)
    return {"weights": weights, "live": live}
