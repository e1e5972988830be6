"""What spaces, tasks and data sets look like to the rest of the project."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from child_models.cost_terms import Term
from controller.spec import Spec


class Space(NamedTuple):
    """A search space: decisions, and the networks they stand for.

    Attributes:
      spec: what strategies see.
      module: ``(form) -> nn.Module`` with form "search" or "final", called as
        ``module(choices, x, train, drop_path)`` and returning logits ``[B, classes]``.
        With ``train`` the statistics of the batch are used, and running statistics are
        updated where the collection "batch_stats" is mutable; without it the running
        ones are used.  Stochastic parts act where a "dropout" key is given.
        ``drop_path`` (float, may be traced) is the probability of dropping a path.
        A final form with an auxiliary head sows its logits, in training, as
        ("auxiliary", "logits"); its parameters are the subtree "auxiliary_head".
      bind: turns int32[T] (NumPy: a fixed child; JAX: the sampled binding) or relaxed
        ``{"weights", "live"}`` into the choices that `choose` gets.
      extract: ``(variables, decisions) -> variables`` of the fixed search-form child.
      bindings: those of "fixed", "sampled", "relaxed" that the space supports.
      running_statistics: whether the search form keeps them; where it does not, it
        uses the statistics of the batch in any case.
      learning_rate: ``(decisions) -> float``, the rate that an architecture asks to be
        trained with; None where rates are no part of it.
      terms: ``((H, W, C)) -> [Term]``: of which units the final form consists, outside
        training; None where it is no sum over conditions on decisions.
    """

    spec: Spec
    module: Callable[[str], nn.Module]
    bind: Callable[[Any], Any]
    extract: Callable[[Any, Any], Any]
    bindings: frozenset[str] = frozenset({"fixed", "sampled", "relaxed"})
    running_statistics: bool = True
    learning_rate: Callable[[Any], float] | None = None
    terms: Callable[[Sequence[int]], list[Term]] | None = None


def check_sampled(what: str, space: Space) -> None:
    """Refuses a space of which no program can serve all architectures.

    Args:
      what: needs the sampled binding, in words.
      space: that is to have it.

    Raises:
      ValueError: if it has not, with the bindings that it has.
    """
    if "sampled" not in space.bindings:
        raise ValueError(
            f"{what} needs the binding 'sampled'; the space has only "
            f"{', '.join(sorted(space.bindings)) or 'tables'}"
        )


class Task(NamedTuple):
    """What a child learns.

    Attributes:
      loss: ``(logits, labels) -> float32[B]``.
      metric: ``(logits, labels) -> float32[B]``, higher is better; its mean counts.
    """

    loss: Callable[[jax.Array, jax.Array], jax.Array]
    metric: Callable[[jax.Array, jax.Array], jax.Array]


class Split(NamedTuple):
    """Images uint8[N, H, W, C] and labels int32[N], on the host."""

    images: np.ndarray
    labels: np.ndarray


class Dataset(NamedTuple):
    """A data set with its validation split carved from train.

    Attributes:
      name: as the user gave it.
      train, validation, test: the splits; no search touches test.
      classes: number of classes.
      mean, std: float32[C] of the training images scaled to [0, 1].
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    mean: np.ndarray
    std: np.ndarray


class Published(NamedTuple):
    """An architecture of a paper, with the sizes it was published with.

    Attributes:
      space: name of its search space.
      arguments: of the space's factory; a config may override them.
      image: (H, W, C) of the images it was published for.
      decisions: int[T] in that space.
    """

    space: str
    arguments: Mapping[str, Any]
    image: tuple[int, int, int]
    decisions: tuple[int, ...]
