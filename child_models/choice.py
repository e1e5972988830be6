"""`choose`, the primitive on which every search space is written.

A choice is bound in one of three ways, told apart by its type:

  int                 the fixed child: only that branch exists
  int32[]             the sampled child of shared weights: only that branch runs
  Weighted            relaxed: the weighted sum of the live branches

`child_models.picking` chooses among arrays with the same three bindings.

Everything a branch reads is an operand of its conditional, see
`child_models.conditional`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from child_models.conditional import recomputed, switch
from child_models.ops.lowering import on_cpu
from child_models.packed import ChosenWeights
from controller.spec import DecisionSpec


class Weighted(NamedTuple):
    """The relaxed binding of one choice among n.

    A dead branch neither runs nor gets a gradient; a live one of weight 0 runs and
    gets its own.  Where all are live for good, None saves the conditionals.  Where the
    weights are gates, 1 on a path and else 0, the path says so: its branch alone is
    kept for the gradient, and the memory is that of one.
    """

    weight: jax.Array  # float[n]
    live: jax.Array | None  # bool[n]
    path: jax.Array | None = None  # int32[], the live branch of weight 1

    @property
    def share(self) -> jax.Array:
        """float[n]: the weights of the live branches, 0 of the others."""
        return jnp.where(self.mask, self.weight, 0)

    @property
    def mask(self) -> jax.Array:
        """bool[n]: which branches are live."""
        return jnp.ones(self.weight.shape, bool) if self.live is None else self.live


Choice = int | jax.Array | Weighted


def is_fixed(choice: Choice) -> bool:
    """Whether the choice is bound to one branch before tracing."""
    return isinstance(choice, int | np.integer)


# ---- choosing a branch --------------------------------------------------------------


class Choose(nn.Module):
    """Applies one of several branches, or their weighted sum.

    Attributes:
      branches: factories of modules, called with ``name=`` or ``parent=``.  A module
        is called with the operands; arrays that it needs are operands, the rest are
        its attributes, which are hashable.  All branches return one array of equal
        shape.
      remat: a branch is computed again for its gradient, where that costs less than
        saving what `keep` marks.
    """

    branches: Sequence[Callable[..., nn.Module]]
    remat: bool = False

    @nn.compact
    def __call__(
        self, choice: Choice, *operands: Any, chosen: ChosenWeights | None = None
    ) -> jax.Array:
        """Returns the chosen branch of the operands.

        Args:
          choice: int, int32[], or `Weighted` over the branches.
          *operands: what the branch's module is called with.
          chosen: the weights of a sampled branch, in place of parameters of its own.

        Raises:
          ValueError: if branches return different shapes.
        """
        if is_fixed(choice):
            return self.branches[choice](name=f"branch_{choice}")(*operands)

        modules = [make(parent=None) for make in self.branches]
        key = self.make_rng("dropout") if self.has_rng("dropout") else None
        inexact, others, rejoin = _partition(operands)
        if chosen is None:
            params = [self._params(i, m, operands) for i, m in enumerate(modules)]
        else:
            params = chosen
        stats = self._stats(modules, operands)
        keep_stats = stats is not None and self.is_mutable_collection("batch_stats")
        initializing = self.is_initializing()

        def run(i, differentiable, other):
            params, inexact = differentiable
            others, key, stats = other
            own = params[i] if chosen is None else params.branch(i)
            variables = {"params": own}
            if stats is not None:
                variables["batch_stats"] = stats[i]
            out, new = _apply(
                modules[i], on_cpu(), variables, rejoin(inexact, others), key
            )
            if not keep_stats:
                return out, None
            kept = [
                new.get("batch_stats", s) if j == i else s for j, s in enumerate(stats)
            ]
            return out, jax.lax.stop_gradient(kept)

        differentiable = (params, inexact)
        other = (others, key, stats)
        shapes = [
            jax.eval_shape(functools.partial(run, i), differentiable, other)[0]
            for i in range(len(modules))
        ]
        if len({s.shape for s in shapes}) > 1:
            raise ValueError(
                f"branches of {self.name} return {[s.shape for s in shapes]}"
            )
        dtype = jnp.result_type(*(s.dtype for s in shapes))

        if initializing:  # only shapes matter, and a conditional is slow to compile
            return jnp.zeros(shapes[0].shape, dtype)

        def branch(i, differentiable, other):
            out, stats = run(i, differentiable, other)
            return out.astype(dtype), stats

        branches = tuple(functools.partial(branch, i) for i in range(len(modules)))
        args = (branches, choice, differentiable, other)
        if not isinstance(choice, Weighted):
            out, new_stats = switch(branches, self.remat, choice, differentiable, other)
        elif choice.path is not None and stats is None:
            out, new_stats = self._gated_sum(*args, shapes[0].shape, dtype), None
        else:
            out, new_stats = self._weighted_sum(*args, shapes[0].shape, dtype)
        if keep_stats:
            for i, value in enumerate(new_stats):
                if value:
                    self.put_variable("batch_stats", f"branch_{i}", value)
        return out

    def _params(self, i, module, operands):
        name = f"branch_{i}"
        if not self.is_initializing():
            # Not by `param`, which would trace the initialiser to compare shapes.  A
            # lifted scan drops the empty trees of branches without weights.
            return self.get_variable("params", name, {})
        return self.param(name, _init(module, "params"), operands)

    def _stats(self, modules, operands):
        """Batch statistics of every branch, or None where the caller holds none."""
        initialise = self.is_initializing() and self.is_mutable_collection(
            "batch_stats"
        )
        names = [f"branch_{i}" for i in range(len(modules))]
        held = [name for name in names if self.has_variable("batch_stats", name)]
        if not initialise and not held:
            return None

        def value(name, module):
            if not initialise and name not in held:
                return {}
            init = functools.partial(
                _init(module, "batch_stats"), jax.random.key(0), operands
            )
            return self.variable("batch_stats", name, init).value

        return [value(n, m) for n, m in zip(names, modules, strict=True)]

    def _gated_sum(self, branches, choice, differentiable, other, shape, dtype):
        """Of the branches beside the path only the gates' own gradients are taken."""

        def dead(weight, other):
            return jnp.zeros(shape, dtype)

        out, _ = switch(branches, self.remat, choice.path, differentiable, other)
        total = choice.weight[choice.path].astype(dtype) * out
        for i, branch in enumerate(branches):

            def alive(weight, other, branch=branch):
                return weight.astype(dtype) * branch(*other)[0]

            runs = (choice.mask[i] & (choice.path != i)).astype(jnp.int32)
            rest = (jax.lax.stop_gradient(differentiable), other)
            total = total + switch((dead, alive), True, runs, choice.weight[i], rest)
        return total

    def _weighted_sum(self, branches, choice, differentiable, other, shape, dtype):
        stats = other[-1]

        def dead(differentiable, other):
            return jnp.zeros(shape, dtype), other[-1] if keep else None

        keep = stats is not None and self.is_mutable_collection("batch_stats")
        total = jnp.zeros(shape, dtype)
        for i, branch in enumerate(branches):

            def alive(differentiable, other, branch=branch):
                weight, rest = differentiable
                out, stats = branch(rest, other)
                return weight.astype(dtype) * out, stats

            operands = ((choice.weight[i], differentiable), other)
            if choice.live is None:
                out, new = recomputed(alive, self.remat)(*operands)
            else:
                is_live = choice.live[i].astype(jnp.int32)
                out, new = switch((dead, alive), self.remat, is_live, *operands)
            total = total + out
            if keep:
                stats = [new[j] if j == i else s for j, s in enumerate(stats)]
        return total, stats


def choose(
    choice: Choice,
    branches: Sequence[Callable[..., nn.Module]],
    *operands: Any,
    name: str | None = None,
    chosen: ChosenWeights | None = None,
    remat: bool = False,
) -> jax.Array:
    """Applies the chosen branch inside a compact module; see `Choose`.

    Args:
      choice: int, int32[], or `Weighted` over the branches.
      branches: factories of modules, called with ``name=`` or ``parent=``.
      *operands: what the branch's module is called with.
      name: of the scope that holds the branches' parameters.
      chosen: the weights of a sampled branch, where the caller has taken them out of
        that scope.
      remat: whether a branch is computed again for its gradient.

    Returns:
      The branch's output, or the weighted sum of the live ones.
    """
    module = Choose(tuple(branches), remat=remat, name=name)
    return module(choice, *operands, chosen=chosen)


@functools.partial(jax.jit, static_argnums=(0, 1), inline=True)
def _apply(module, lowering, variables, operands, key):
    """Under `jit`, equal branches on equal shapes are traced once."""
    del lowering  # a part of what the trace depends on
    rngs = {} if key is None else {"dropout": key}
    return module.apply(variables, *operands, rngs=rngs, mutable=["batch_stats"])


def _init(module, collection):
    """An initialiser for one collection of a detached module."""

    def init(key, operands):
        variables = module.init({"params": key, "dropout": key}, *operands)
        return variables.get(collection, {})

    return init


def _partition(operands):
    """Splits operands into inexact leaves, the others, and a function that rejoins."""
    leaves, treedef = jax.tree.flatten(operands)
    is_inexact = [jnp.issubdtype(jnp.result_type(x), jnp.inexact) for x in leaves]

    def rejoin(inexact, others):
        inexact, others = iter(inexact), iter(others)
        merged = [next(inexact) if flag else next(others) for flag in is_inexact]
        return jax.tree.unflatten(treedef, merged)

    pairs = list(zip(leaves, is_inexact, strict=True))
    return (
        [x for x, flag in pairs if flag],
        [x for x, flag in pairs if not flag],
        rejoin,
    )


# ---- binding ------------------------------------------------------------------------


def bind_all(spec: DecisionSpec, decisions: Any) -> tuple[Choice, ...]:
    """One bound choice a decision.

    Args:
      spec: of the space.
      decisions: T integers or NumPy int[T] for a fixed child, which are validated; JAX
        int32[T] for a sampled one; ``{"weights", "live"}``, each as `spec.relaxed`, for
        the relaxed binding.  A "live" of None means all, for good; a "path" int32[T]
        beside it the branches of gates that are 1.

    Returns:
      T choices: int, int32[], or `Weighted` over the decision's own choices.

    Raises:
      ValueError: if fixed decisions are illegal.
    """
    if isinstance(decisions, jax.Array):
        return tuple(decisions[t] for t in range(spec.length))
    if not isinstance(decisions, Mapping):
        return spec.validate(decisions)
    choices: list[Any] = [None] * spec.length
    weights, live = decisions["weights"], decisions["live"]
    path = decisions.get("path")
    for group, members in spec.groups.items():
        for row, t in enumerate(members):
            n = spec.num_choices[t]
            alive = None if live is None else live[group][row, :n]
            active = None if path is None else path[t]
            choices[t] = Weighted(weights[group][row, :n], alive, active)
    return tuple(choices)
