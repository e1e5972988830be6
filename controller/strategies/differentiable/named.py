"""Arrays that say something of every choice of a spec, by its name.

"Like the spec" is a dict of arrays by group, ``[rows, choices]`` as `spec.relaxed`; a
row is a decision (an edge), and a column beyond its own choices is no choice.
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from controller.spec import Decision, DecisionSpec

SKIPS = ("skip_connect", "identity")
ABSENT = ("none", "zero")  # names of choices that leave an edge out

ByGroup = dict[str, jax.Array]  # like the spec


def by_choice(
    spec: DecisionSpec, value: Callable[[Decision, str], float], dtype: type
) -> ByGroup:
    """Like the spec: ``value(decision, name)`` of each choice, 0 in columns beyond."""
    tables = {group: np.zeros(shape, dtype) for group, shape in spec.relaxed.items()}
    for group, members in spec.groups.items():
        for row, t in enumerate(members):
            decision = spec.decisions[t]
            values = [value(decision, name) for name in decision.choices]
            tables[group][row, : len(values)] = values
    return jax.tree.map(jnp.asarray, tables)


def own_choices(spec: DecisionSpec) -> ByGroup:
    """bool, like the spec: the columns that are a choice of their row."""
    return by_choice(spec, lambda decision, name: True, bool)


def choice_of_absence(spec: DecisionSpec) -> int | None:
    """The choice that leaves an edge out, where the rule says how many are left out.

    What is derived takes it by the rule alone, whatever its weight.
    """
    return getattr(spec.rule, "none", None)


def named_choices(spec: DecisionSpec, names: Sequence[str]) -> ByGroup:
    """bool, like the spec: whether a choice has one of the names."""
    return by_choice(spec, lambda decision, name: name in names, bool)


def named_live(spec: DecisionSpec, kept: Mapping[str, Sequence[str]]) -> ByGroup:
    """bool, like the spec: the choices that are named, by name of the decision.

    Raises:
      ValueError: on a decision without choices, or a name that is not there.
    """
    for decision in spec.decisions:
        names = kept.get(decision.name, ())
        if not names or not set(names) <= set(decision.choices):
            raise ValueError(
                f"kept of {decision.name!r} is {', '.join(names) or 'nothing'}; known: "
                f"{', '.join(decision.choices)}"
            )
    if unknown := kept.keys() - {decision.name for decision in spec.decisions}:
        raise ValueError(f"kept names {min(unknown)!r}, which is no decision")
    return by_choice(spec, lambda decision, name: name in kept[decision.name], bool)


def cost_table(spec: DecisionSpec, cost: Mapping[str, float]) -> ByGroup:
    """Costs by name of the choice as an array like the spec, 0 where not named.

    Raises:
      ValueError: on a name that no decision has, or a cost that is negative.
    """
    known = {name for decision in spec.decisions for name in decision.choices}
    for name, value in cost.items():
        if name not in known:
            raise ValueError(f"cost names {name!r}; known: {', '.join(sorted(known))}")
        if not value >= 0:
            raise ValueError(f"cost of {name!r} is {value}; it must be 0 or more")
    return by_choice(spec, lambda decision, name: cost.get(name, 0.0), np.float32)


def count_named(
    spec: DecisionSpec, decisions: jax.Array, names: Sequence[str]
) -> jax.Array:
    """int32[]: how many decisions of int32[T] took a choice of one of the names."""
    taken, named = spec.one_hot(decisions), named_choices(spec, names)
    return sum(jnp.sum((taken[g] > 0) & named[g], dtype=jnp.int32) for g in named)
