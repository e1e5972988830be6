"""What every registered space promises; a new one is one row of `SIZES`."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.spaces import PUBLISHED, SPACES

SIZES = {
    "amoeba_cell": {
        "blocks": 2,
        "ops": ("identity", "dil_sep_conv_3x3"),  # few compile sooner
        "cells": 2,
        "channels": 4,
    },
    "darts": {
        "nodes": 2,
        "ops": ("none", "skip_connect", "avg_pool_3x3", "dil_conv_3x3"),
        "cells": 3,
        "channels": 4,
    },
    "enas_macro": {"layers": 3, "channels": 4},
    "enas_micro": {"nodes": 2, "layers": 3, "channels": 4},
    "genetic_cnn": {"nodes": (2, 3), "channels": (4, 4), "kernel": 3, "hidden": 4},
    "mobile": {
        "ops": ("k3e3", "k5e2"),
        "widths": (4, 6),
        "blocks": (3, 1),
        "strides": (1, 2),
        "stem": 4,
        "stem_strides": 1,
        "first": 4,
        "last": 8,
    },
    "nas_rl_cnn": {
        "layers": 2,
        "fewest": 1,
        "layer_step": 1,
        "heights": (1, 3),
        "widths": (1, 3),
        "filters": (2, 4),
    },
    "nasbench201": {"cells": 2, "channels": 4},
    "nasnet": {"blocks": 2, "cells": 2, "channels": 4},
    "pnas_cell": {
        "blocks": 2,
        "fewer": True,
        "ops": ("identity", "sep_conv_3x3"),
        "cells": 2,
        "channels": 4,
    },
}
CLASSES, IMAGE = 3, (8, 8, 3)
GROUPS = (
    "op",
    "input",
    "skip",
    "combiner",
    "blocks",
    "height",
    "width",
    "filters",
    "normal",
    "reduce",
)
NUM_FIXED = 2  # architectures whose fixed children are compiled
NUM_DRAWS = 4
SLOW_TO_COMPILE = (
    "amoeba_cell",
    "darts",
    "enas_micro",
    "mobile",
    "nasbench201",
    "nasnet",
    "pnas_cell",
)
# Compilation is most of the time here: code as XLA first writes it is fast enough.
COMPILER = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


BY_PRICE = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW_TO_COMPILE))
    for name in sorted(SIZES)
]


def default_remat(name):
    """None for a space that cannot rematerialise."""
    known = inspect.signature(SPACES[name]).parameters
    return known["remat"].default if "remat" in known else None


WITH_REMAT = [name for name in sorted(SIZES) if default_remat(name) is not None]


def jit(function):
    return jax.jit(function, compiler_options=COMPILER)


UNBOUNDED = {"large_scale"}  # no decisions, no sampled binding: test_large_scale.py
TABLES_ONLY = {"nasbench101"}


def test_every_space_is_under_this_contract():
    assert set(SIZES) | UNBOUNDED | TABLES_ONLY == set(SPACES)


def random_variables(shapes):
    """Variables that no initialiser favours: batch norm scales and shifts, too."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        if path[0].key == "batch_stats":
            return jnp.full(leaf.shape, float(path[-1].key == "var"), leaf.dtype)
        scale = path[-1].key == "scale"
        values = (1.0 if scale else 0.0) + 0.3 * rng.standard_normal(leaf.shape)
        return jnp.asarray(values, leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Case:
    """A space at a tiny size, shared variables, and functions compiled once."""

    def __init__(self, name):
        self.name = name
        self.space = space = SPACES[name](classes=CLASSES, **SIZES[name])
        self.net = space.module("search")
        self.x = jax.random.normal(jax.random.key(1), (2, *IMAGE))
        keys = jax.random.split(jax.random.key(2), NUM_DRAWS)
        self.draws = np.asarray(jit(jax.vmap(space.spec.sample))(keys))
        self.init_jaxpr, shapes = jax.make_jaxpr(self.init, return_shape=True)(
            jax.random.key(0), jnp.asarray(self.draws[0])
        )
        self.variables = random_variables(shapes)
        self.traces = 0  # of the sampled binding
        self.sampled = jit(self.gradients)
        self.relaxed = jit(self.relaxed_logits)

    def init(self, key, decisions):
        return self.net.init(key, self.space.bind(decisions), self.x, True)

    def logits(self, variables, choices):
        """Under the statistics of the batch."""
        return self.net.apply(variables, choices, self.x, True)

    def loss(self, params, decisions):
        logits = self.logits(
            {**self.variables, "params": params}, self.space.bind(decisions)
        )
        return jnp.sum(jnp.sin(logits)), logits

    def gradients(self, params, decisions):
        """((loss, logits), gradient by params), of the sampled binding."""
        self.traces += 1
        return jax.value_and_grad(self.loss, has_aux=True)(params, decisions)

    def relaxed_logits(self, params, weights, live):
        return self.loss(params, {"weights": weights, "live": live})[1]


@pytest.fixture(scope="module", params=sorted(SIZES))
def case(request):
    return Case(request.param)


def assert_close(actual, expected):
    """To 1e-5 of the largest absolute logit."""
    np.testing.assert_allclose(
        actual, expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


# ---- one definition, three bindings -------------------------------------------------


@pytest.mark.parametrize("draw", range(NUM_FIXED))
def test_the_fixed_child_returns_the_supernets_logits(case, draw):
    decisions = case.draws[draw]
    (_, shared), _ = case.sampled(case.variables["params"], jnp.asarray(decisions))
    child = case.space.extract(case.variables, decisions)
    choices = case.space.bind(decisions)
    assert_close(jit(lambda v: case.logits(v, choices))(child), shared)


@pytest.mark.parametrize("draw", range(NUM_DRAWS))
def test_the_relaxed_net_at_one_hot_weights_does_too(case, draw):
    decisions = jnp.asarray(case.draws[draw])
    (_, expected), _ = case.sampled(case.variables["params"], decisions)
    weights = case.space.spec.one_hot(decisions)
    for live in (
        jax.tree.map(lambda w: jnp.ones_like(w, bool), weights),
        jax.tree.map(lambda w: w > 0, weights),
    ):
        logits = case.relaxed(case.variables["params"], weights, live)
        assert_close(logits, expected)


def test_architectures_share_a_compilation_but_not_their_logits(case):
    params = case.variables["params"]
    logits = [case.sampled(params, jnp.asarray(d))[0][1] for d in case.draws]
    assert case.traces == 1
    distinct = np.unique(case.draws, axis=0)
    assert len(np.unique(np.asarray(logits), axis=0)) == len(distinct)


def kept_for_the_gradient(name, remat):
    """Bytes that the gradient of the sampled binding keeps, weights among them."""
    space = SPACES[name](classes=CLASSES, **SIZES[name], remat=remat)
    net, x = space.module("search"), jnp.zeros((2, *IMAGE))

    def pullback(params, decisions):
        def logits(params):
            return net.apply({"params": params}, space.bind(decisions), x, True)

        return jax.vjp(logits, params)[1]

    key, decisions = jax.random.key(0), jnp.zeros(space.spec.length, jnp.int32)
    init = jax.eval_shape(lambda d: net.init(key, space.bind(d), x, True), decisions)
    kept = jax.eval_shape(pullback, init["params"], decisions)
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(kept))


@pytest.mark.parametrize("name", WITH_REMAT)
def test_rematerialisation_keeps_less(name):
    assert kept_for_the_gradient(name, True) < kept_for_the_gradient(name, False)


@pytest.mark.parametrize("name", [p for p in BY_PRICE if p.values[0] in WITH_REMAT])
def test_rematerialisation_changes_no_gradient(name):
    case = Case(name)
    space = SPACES[name](classes=CLASSES, **SIZES[name], remat=not default_remat(name))
    decisions, params = jnp.asarray(case.draws[0]), case.variables["params"]
    _, expected = case.sampled(params, decisions)
    case.space, case.net = space, space.module("search")
    _, found = jit(case.gradients)(params, decisions)
    for one, two in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-4)


# ---- what learns --------------------------------------------------------------------


def test_unsampled_parameters_get_a_gradient_of_exactly_zero(case):
    """Rows that `extract` does not take, found by extracting the rows' own numbers."""
    params = case.variables["params"]
    decisions = case.draws[0]
    leaves, treedef = jax.tree.flatten(params)
    offsets = np.cumsum([0, *(leaf.size for leaf in leaves)])
    numbers = [
        np.arange(low, high).reshape(leaf.shape)
        for low, high, leaf in zip(offsets, offsets[1:], leaves, strict=False)
    ]
    numbered = {**case.variables, "params": jax.tree.unflatten(treedef, numbers)}
    child = case.space.extract(numbered, decisions)["params"]
    taken = np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(child)])
    unsampled = np.ones(offsets[-1], bool)
    unsampled[taken] = False

    _, grads = case.sampled(params, jnp.asarray(decisions))
    flat = np.concatenate([np.ravel(g) for g in jax.tree.leaves(grads)])
    assert unsampled.any()
    assert np.all(flat[unsampled] == 0)
    assert np.isfinite(flat).all()
    assert np.any(flat[taken] != 0)


@pytest.mark.parametrize("name", BY_PRICE)
def test_relaxed_weights_get_finite_gradients(name):
    case = Case(name)
    weights = jax.tree.map(
        lambda w: 0.5 * w + 0.1, case.space.spec.one_hot(case.draws[0])
    )
    live = jax.tree.map(lambda w: jnp.ones_like(w, bool), weights)

    @jit
    def gradient(params, weights):
        def loss(weights):
            return case.loss(params, {"weights": weights, "live": live})[0]

        return jax.grad(loss)(weights)

    for group, grads in gradient(case.variables["params"], weights).items():
        assert np.isfinite(grads).all(), group
        assert np.any(grads != 0), group


def test_no_two_leaves_of_the_initial_variables_share_a_buffer(case):
    """Donation would free it twice; a compiled `init` shares what is computed once."""
    outputs = case.init_jaxpr.jaxpr.outvars
    assert len(set(map(id, outputs))) == len(outputs)


# ---- the final form -----------------------------------------------------------------


def test_every_draw_builds_in_its_final_form(case):
    final = case.space.module("final")
    images = jax.ShapeDtypeStruct((2, *IMAGE), jnp.float32)
    for decisions in case.draws:
        choices = case.space.bind(decisions)
        logits, _ = jax.eval_shape(
            lambda x, choices=choices: final.init_with_output(
                jax.random.key(0), choices, x, True
            ),
            images,
        )
        assert logits.shape == (2, CLASSES)
        assert logits.dtype == jnp.float32


@pytest.mark.parametrize("name", BY_PRICE)
def test_the_final_form_learns_and_predicts(name):
    case = Case(name)
    final, choices = case.space.module("final"), case.space.bind(case.draws[0])
    init = jax.eval_shape(
        lambda k: final.init(k, choices, case.x, True), jax.random.key(0)
    )
    variables = random_variables(init)

    @jit
    def step(variables, key):
        def loss(params):
            logits, new = final.apply(
                {**variables, "params": params},
                choices,
                case.x,
                True,
                0.1,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return jnp.sum(jnp.sin(logits)), new

        grads, new = jax.grad(loss, has_aux=True)(variables["params"])
        return grads, final.apply({**variables, **new}, choices, case.x, False)

    grads, logits = step(variables, jax.random.key(1))
    assert jax.tree.structure(grads) == jax.tree.structure(variables["params"])
    for leaf in (*jax.tree.leaves(grads), logits):
        assert np.isfinite(leaf).all()


# ---- the spec -----------------------------------------------------------------------


def test_encodings_round_trip_and_draws_and_mutants_are_legal(case):
    spec = case.space.spec
    keys = jax.random.split(jax.random.key(5), NUM_DRAWS)
    mutants = np.asarray(jit(jax.vmap(spec.mutate))(keys, case.draws))
    for decisions in (*case.draws, *mutants):
        assert spec.decode(spec.encode(decisions)) == spec.validate(decisions)
    changed = (mutants != case.draws).sum(axis=1)
    assert np.all((changed == 1) | ((changed == 2) & bool(spec.exchanges)))


def test_decisions_are_described_for_policies(case):
    for decision in case.space.spec.decisions:
        assert (decision.node < 0) == (decision.group == "blocks")
        assert decision.group in GROUPS
        assert bool(decision.targets) == (decision.group in ("input", "skip"))
        assert all(target < decision.node for target in decision.targets)


def test_mistakes_are_named(case):
    space = case.space
    with pytest.raises(ValueError, match="'draft'.* must be one of:? search, final"):
        space.module("draft")
    illegal = case.draws[0].copy()
    illegal[0] = 99
    with pytest.raises(ValueError, match="decision 0 .* is 99; legal: "):
        space.bind(illegal)
    with pytest.raises(ValueError):
        space.spec.decode("no architecture")


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_architectures_lie_in_their_space(name):
    published = PUBLISHED[name]
    space = SPACES[published.space](**published.arguments)
    assert space.spec.validate(published.decisions) == published.decisions
