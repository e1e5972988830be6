"""Costs from decisions alone, beside the count of the network that they stand for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.cost_model import cost_model
from child_models.cost_terms import Term, counted, none_reads, term, unit
from child_models.ops.layers import Dense
from child_models.spaces import PUBLISHED, SPACES
from controller.spec import Decision, DecisionSpec

KINDS = ("params", "macs")
CASES = {
    "nasbench201": ("nasbench201", {"channels": 4, "cells": 2, "nodes": 3}),
    "mobile": (
        "mobile",
        {
            "widths": (6, 8),
            "blocks": (3, 1),
            "strides": (2, 1),
            "stem": 4,
            "first": 4,
            "last": 8,
        },
    ),
    "darts": ("darts", {"channels": 4, "cells": 2, "nodes": 2}),
    "darts pairs": ("darts", {"channels": 4, "cells": 2, "nodes": 2, "pairs": True}),
    "enas_macro": ("enas_macro", {"layers": 4, "channels": 4}),
    "enas_micro": ("enas_micro", {"nodes": 2, "channels": 4, "layers": 3}),
    "nasnet": ("nasnet", {"blocks": 2, "channels": 8, "cells": 2}),
    "nasnet imagenet": (
        "nasnet",
        {
            "blocks": 1,
            "channels": 8,
            "cells": 2,
            "stem": "imagenet",
            "ops": ("identity", "max_pool_3x3", "conv_1x1"),
            "normal_concat": (1, 2),
        },
    ),
    "pnas_cell": ("pnas_cell", {"blocks": 2, "channels": 8, "cells": 3}),
}
IMAGE = (11, 9, 3)  # odd, so that strides round


DARTS_OPS = ("none", "max_pool_3x3", "skip_connect", "sep_conv_3x3")


def models(space, image=IMAGE):
    """The cost model of each kind."""
    terms = list(space.terms(image))
    return {
        kind: cost_model(space.spec, terms, lambda u, kind=kind: getattr(u.cost, kind))
        for kind in KINDS
    }


def draws(spec, n):
    return [np.asarray(spec.sample(jax.random.key(i))) for i in range(n)]


@pytest.mark.parametrize("case", CASES)
def test_costs_are_those_of_the_network(case):
    name, arguments = CASES[case]
    space = SPACES[name](classes=3, **arguments)
    found = models(space)
    for decisions in draws(space.spec, 2):
        cost = count(space.module("final"), space.bind(decisions), IMAGE)
        assert {k: found[k].count(decisions) for k in KINDS} == {
            "params": cost.params,
            "macs": cost.macs,
        }


@pytest.mark.parametrize(
    "name, params",
    [
        ("DARTS_V2", 3_349_342),
        ("ProxylessNAS-mobile", 4_080_512),
        ("NASNet-A-mobile", 5_289_978),
    ],
)
def test_published_networks(name, params):
    published = PUBLISHED[name]
    space = SPACES[published.space](**published.arguments)
    terms = space.terms(published.image)
    model = cost_model(space.spec, terms, lambda each: each.cost.params)
    assert model.count(published.decisions) == params


def test_all_networks_of_nas_bench_201(data_file):
    table = np.load(data_file("nasbench201_table.npz"))
    space = SPACES["nasbench201"](classes=10)
    for kind, model in models(space, (32, 32, 3)).items():
        found = model.counts(table["ops"])
        np.testing.assert_array_equal(found, table[f"{kind}_cifar10"])


@pytest.fixture(scope="module", params=["nasbench201", "enas_micro"])
def small(request):
    """A space that can be enumerated, and its model of multiply-adds."""
    arguments = {
        "nasbench201": {"nodes": 3, "ops": ("none", "nor_conv_3x3"), "cells": 1},
        "enas_micro": {"nodes": 1, "layers": 3},  # widths 1 to 3, of 8 decisions
    }[request.param]
    space = SPACES[request.param](classes=3, channels=4, **arguments)
    return space.spec, models(space)["macs"]


def probabilities(spec, key):
    """Random ones, like `spec.relaxed`; those of a group's rows are not all as wide."""
    weights = {}
    for group, members in spec.groups.items():
        logits = jax.random.normal(key, spec.relaxed[group])
        own = np.arange(logits.shape[1])[None] < np.array(
            [[spec.num_choices[t]] for t in members]
        )
        weights[group] = jax.nn.softmax(jnp.where(own, logits, -jnp.inf), axis=-1)
    return weights


def test_the_expectation_is_the_sum_over_all_architectures(small):
    spec, model = small
    weights = probabilities(spec, jax.random.key(0))
    rows = {
        t: np.asarray(weights[group][row], np.float64)
        for group, members in spec.groups.items()
        for row, t in enumerate(members)
    }
    every = np.array(list(itertools.product(*map(range, spec.num_choices))))
    share = np.prod([rows[t][every[:, t]] for t in range(spec.length)], axis=0)
    total = float(share @ model.counts(every))
    assert float(jax.jit(model.expected)(weights)) == pytest.approx(total, rel=1e-5)


def test_the_gradient_of_the_expectation_is_that_of_differences(small):
    spec, model = small
    weights = probabilities(spec, jax.random.key(1))
    expected = jax.jit(lambda w: model.expected(w) / model.base)
    gradient = jax.grad(expected)(weights)
    direction = jax.tree.map(
        lambda w: jax.random.normal(jax.random.key(2), w.shape), weights
    )
    moved = [
        jax.tree.map(lambda w, d, s=sign: w + s * 0.01 * d, weights, direction)
        for sign in (1, -1)
    ]
    slope = (expected(moved[0]) - expected(moved[1])) / 0.02
    exact = sum(
        jnp.vdot(g, d)
        for g, d in zip(
            jax.tree.leaves(gradient), jax.tree.leaves(direction), strict=True
        )
    )
    assert float(slope) == pytest.approx(float(exact), rel=2e-3)


def test_one_hot_weights_cost_what_the_architecture_costs(small):
    spec, model = small
    decisions = draws(spec, 1)[0]
    expected = model.expected(spec.one_hot(decisions))
    assert float(expected) == pytest.approx(model.count(decisions), rel=1e-6)


def test_traced_costs_and_limits_are_exact(small):
    spec, model = small
    decisions = np.stack(draws(spec, 16))
    costs = model.counts(decisions)
    np.testing.assert_array_equal(jax.jit(model.traced)(decisions), costs)
    limit = int(np.median(costs))
    for bound in (limit, limit - 1, limit + 0.5):
        found = jax.jit(lambda d, b=bound: model.within(d, b))(decisions)
        np.testing.assert_array_equal(found, costs <= bound)


def test_large_costs_are_compared_to_the_last_unit():
    spec = DecisionSpec((Decision("a", ("x", "y")), Decision("b", ("x", "y"))))
    amounts = {3: 2**40, 5: 2**40 + 1, 7: 1}
    dense = {n: unit(Dense(n), (1,)) for n in amounts}
    terms = [
        term([(0, [0])], dense[3]),
        term([(0, [1])], dense[5]),
        term([(1, [1])], dense[7]),
    ]
    model = cost_model(spec, terms, lambda each: amounts[each.module.features])
    every = np.array(list(spec.enumerate()))
    found = model.within(jnp.asarray(every), 2**40)
    assert found.tolist() == [True, False, False, False]


def test_units_by_the_number_of_events_take_any_function_of_it():
    states = 3
    decisions = tuple(Decision(f"in{i}", tuple("abc")) for i in range(2))
    spec = DecisionSpec(decisions, None)
    price = {1: 5, 2: 11, 3: 100, 4: -7}
    dense = {m: unit(Dense(m + 1), (1,)) for m in range(states + 1)}
    terms = counted(states, lambda s: none_reads(spec, (0, 1), s), lambda m: [dense[m]])
    model = cost_model(spec, terms, lambda each: price[each.module.features])
    for row in spec.enumerate():
        unread = states - len(set(row))
        assert model.count(row) == price[unread + 1]


@pytest.mark.parametrize(
    "name, arguments",
    [
        ("nasbench201", {"cells": 1}),
        pytest.param(  # whose rule is slow to compile
            "darts", {"cells": 1, "nodes": 2, "ops": DARTS_OPS}, marks=pytest.mark.slow
        ),
    ],
)
def test_the_smallest_cost_is_known_where_decisions_add_up(name, arguments):
    space = SPACES[name](classes=3, channels=4, **arguments)
    model = models(space)["params"]
    cost, decisions, exact = model.smallest()
    assert exact and cost == model.count(decisions) == model.floor
    space.spec.validate(decisions)
    assert min(model.counts(np.stack(draws(space.spec, 50)))) >= cost


def test_equal_units_have_one_name_and_different_ones_have_others():
    space = SPACES["nasbench201"](classes=3, channels=4, cells=1)
    units = {each for t in space.terms((8, 8, 3)) for each, _ in t.units}
    assert len({each.name for each in units}) == len(units)
    assert all("\n" not in each.name for each in units)


def test_a_cell_of_a_searched_number_of_blocks_is_no_sum():
    assert SPACES["pnas_cell"](classes=3, blocks=2, fewer=True).terms is None


def test_sums_that_could_overflow_are_refused():
    spec = DecisionSpec((Decision("a", ("x", "y")),))
    terms = [Term((), ((unit(Dense(1), (1,)), 1),))]
    with pytest.raises(ValueError, match="add up to more than"):
        cost_model(spec, terms, lambda each: 2**50)
