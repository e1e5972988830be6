"""The seam between proposing and evaluating: what the two halves exchange.

Strategies handle integers, logits and rewards; evaluators handle tensors.  They meet
in `Proposal` and `Trial`.  Both sides are NamedTuples of pure functions, closed over
their hyper-parameters, and keep all that changes in a pytree of their own.

Shapes: n architectures, T decisions, K objectives beside the reward.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Key = jax.Array
Metrics = dict[str, jax.Array]  # scalars, by name


class Proposal(NamedTuple):
    """Architectures that a strategy asks to be trained or scored."""

    decisions: jax.Array  # int32[n, T]; graphs are filled up with -1
    log_prob: jax.Array  # float32[n], of the policy that proposed; 0 where none
    # {"weights": like spec.relaxed, "live": the same, bool; None for all, for good};
    # and "path": int32[T], the active op of each decision, where weights are gates: of
    # each row one is 1 and the others 0
    relaxed: Any = None
    parent: jax.Array | None = None  # int32[n]: trial to inherit weights from, or -1;
    # trials are numbered from 0 in the order in which the strategy learns of them


class Trial(NamedTuple):
    """What proposed architectures earned."""

    proposal: Proposal
    reward: jax.Array  # float32[n], higher is better
    valid: jax.Array  # bool[n]; strategies ignore the others
    cost: jax.Array | None = None  # float32[n, K]
    gradient: Any = None  # d loss / d relaxed weights
    # float32[]: dominant eigenvalue of the loss's Hessian in the logits of relaxed
    # weights; NaN where it was not measured
    curvature: jax.Array | None = None
    value: jax.Array | None = None  # float32[n], to be reported; NaN where unknown
    reason: Any = None  # object[n], why each is not valid; not of compiled evaluators


class Strategy(NamedTuple):
    """Proposes architectures and learns from what they earn.

    Attributes:
      init: ``(key) -> state``.
      propose: ``(key, state, n) -> (Proposal, state)``; the key is consumed.
      update: ``(key, state, trial) -> (state, metrics)``.
      best: ``(key, state, n) -> int32[n, T]``, candidates for the final choice.
      traceable: whether the functions run under `jit` and `vmap`; where not, searches
        are driven from the host, one seed after the other.
      alive: ``(state) -> int32[...]``, the trials whose weights may still be inherited;
        None where no proposal has a parent.
      relaxed: whether it proposes relaxed weights, one set at a time, and learns from
        the gradient of the loss with respect to them.
      queues: whether what it proposes next waits for the trials of what it proposed.
    """

    init: Callable[[Key], Any]
    propose: Callable[[Key, Any, int], tuple[Proposal, Any]]
    update: Callable[[Key, Any, Trial], tuple[Any, Metrics]]
    best: Callable[[Key, Any, int], jax.Array]
    traceable: bool = True
    alive: Callable[[Any], jax.Array] | None = None
    relaxed: bool = False
    queues: bool = False


class Execution(NamedTuple):
    """Where trials run that depend on their key and decisions alone.

    Attributes:
      executor: "compiled" into the search, or driven from the host: "local", in its
        process, or "ray".
      workers: W, trials that are under way at once.
      order: in which their results are taken, "submission" or "completion".
      gpus: that each of Ray's workers has.
    """

    executor: str = "compiled"
    workers: int = 1
    order: str = "submission"
    gpus: float = 0.0


EXECUTORS = ("auto", "compiled", "local", "ray")
ORDERS = ("submission", "completion")


def execution(
    executor: str = "auto",
    workers: int = 1,
    order: str = "submission",
    gpus: float = 0.0,
) -> Execution:
    """Checks an execution.

    "auto" is "local": its one program serves trials and scores, and a child that the
    machine refuses is a trial that is not valid.  Several processes search together by
    "compiled" only, so that it is that one for them.

    Raises:
      ValueError: on an unknown name or a number out of its range.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"executor is {executor!r}; known: {', '.join(EXECUTORS)}")
    if order not in ORDERS:
        raise ValueError(f"order is {order!r}; known: {', '.join(ORDERS)}")
    if workers < 1:
        raise ValueError(f"workers is {workers}; it must be 1 or more")
    if gpus < 0:
        raise ValueError(f"gpus is {gpus}; it must be 0 or more")
    if gpus and executor != "ray":
        raise ValueError(f"gpus is {gpus}; that needs the executor 'ray'")
    can_compile = (workers, order) == (1, "submission")
    if executor == "compiled" and not can_compile:
        raise ValueError(
            f"workers is {workers} and order {order!r}; the executor 'compiled' has 1 "
            "worker and the order 'submission'"
        )
    if executor == "auto":
        several = jax.process_count() > 1
        executor = "compiled" if several and can_compile else "local"
    return Execution(executor, workers, order, gpus)


class Evaluator(NamedTuple):
    """Trains shared weights, if it has any, and scores architectures.

    `data` is what it reads and never changes (images, tables).  It is handed to every
    function, so that a compiled program takes it as an argument and not as a constant.

    Attributes:
      data: pytree of arrays.
      init: ``(key, data) -> state``: weights, optimiser, data position.
      improve: ``(key, state, data, propose) -> (state, metrics)``: one training step on
        ``propose(key, n) -> Proposal``; metrics hold at least "loss", and "decisions"
        int32[T] of an architecture that was trained; of one that failed where the loss
        is not finite.  `no_improvement` where nothing is shared between trials.
      evaluate: ``(key, state, data, proposal) -> (state, Trial)``.
      score: ``(state, data, decisions[T]) -> float32[]``, on the whole validation
        split, for the final choice.
      invalid: why a trial is not valid, in words, for the records.
      execution: where its trials run.
      keep: ``(state, trials) -> state``, forgets the weights of all other trials; None
        for an evaluator of weights that no child inherits.  One that has it is not
        traceable, has `left` and `adopt` too, and needs of the weights those of the
        parents only.
      left: ``(state) -> Any``, the weights that the last trial left; None for none.
      adopt: ``(state, weights) -> state`` after one more trial, which left them where
        it ran.
      gradients: whether trials of relaxed proposals hold d loss / d relaxed weights.
      score_key: ``(state) -> key``: `score` is the reward of a trial of `evaluate` with
        this key, NaN where it is not valid, so that one program serves both; None where
        it is something else.
    """

    data: Any
    init: Callable[[Key, Any], Any]
    improve: Callable[..., tuple[Any, Metrics]]
    evaluate: Callable[[Key, Any, Any, Proposal], tuple[Any, Trial]]
    score: Callable[[Any, Any, jax.Array], jax.Array]
    invalid: str = "its loss is not finite"
    execution: Execution = Execution()
    keep: Callable[[Any, Any], Any] | None = None
    left: Callable[[Any], Any] | None = None
    adopt: Callable[[Any, Any], Any] | None = None
    gradients: bool = False
    score_key: Callable[[Any], Key] | None = None


def no_improvement(
    key: Key, state: Any, data: Any, propose: Callable[[Key, int], Proposal]
) -> tuple[Any, Metrics]:
    """`Evaluator.improve` of one that trains nothing between trials: the identity.

    `make_loop` refuses schedules that would call it.
    """
    del data
    return state, {"loss": jnp.float32(0), "decisions": propose(key, 1).decisions[0]}


def check_gradients(strategy: Strategy, evaluator: Evaluator) -> None:
    """Refuses a relaxed strategy beside an evaluator that only gives rewards.

    Raises:
      ValueError: with what each of them needs and gives.
    """
    if strategy.relaxed and not evaluator.gradients:
        raise ValueError(
            "this strategy learns from gradients of relaxed weights; this evaluator "
            "gives rewards only; take the evaluator 'relaxed'"
        )
