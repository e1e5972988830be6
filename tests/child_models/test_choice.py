"""`choose` and its relatives: one definition under its three bindings."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.choice import Weighted, bind_all, choose
from child_models.conditional import switch
from child_models.ops.layers import ReLUConvBN
from child_models.ops.normalization import BatchNorm
from child_models.picking import pick
from child_models.shared_params import extract, indexed_param
from controller.spec import Decision, DecisionSpec

WIDTH, BRANCHES, INPUTS = 4, 3, 2
IMAGE = (2, 2, WIDTH)
CELLS = 2
TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


class Branch(nn.Module):
    """`depth` layers, of which the first has weights of its own for each input."""

    depth: int
    dropout: float = 0.0
    dtype: type = jnp.float32

    @nn.compact
    def __call__(self, x, source):
        for i in range(self.depth):
            shape, init = (WIDTH, WIDTH), nn.initializers.lecun_normal()
            kernel = indexed_param(self, f"kernel_{i}", init, shape, source, INPUTS)
            y = jnp.tanh(x.astype(self.dtype)) @ kernel.astype(self.dtype)
            y = BatchNorm(True, dtype=self.dtype)(y)
            active = self.has_rng("dropout")
            x = nn.Dropout(self.dropout, deterministic=not active)(y)
        return x


class Cell(nn.Module):
    """A residual choice of op on a choice of input; `fixed` is (op, input)."""

    fixed: tuple[int, int] | None
    options: dict

    @nn.compact
    def __call__(self, x, choices):
        op, source = choices if self.fixed is None else self.fixed
        branches = [partial(Branch, depth, **self.options) for depth in range(BRANCHES)]
        y = choose(op, branches, pick(source, [x, 2 * x]), source, name="edge")
        return x + y.astype(x.dtype), None


class Net(nn.Module):
    """Cells in a row: a loop, one scan, or one scan over a cell under remat."""

    form: str = "scan"
    options: dict = nn.FrozenDict()
    cells: int = CELLS

    @nn.compact
    def __call__(self, choices, x, train=True):
        fixed = choices if all(isinstance(c, int) for c in choices) else None
        operand = choices if fixed is None else None
        cell = nn.remat(Cell) if self.form == "remat" else Cell
        if self.form == "loop":
            for i in range(CELLS):
                x, _ = cell(fixed, self.options, name=f"cell_{i}")(x, operand)
            return x
        scanned = nn.scan(
            cell,
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=self.cells,
        )
        return scanned(fixed, self.options, name="cells")(x, operand)[0]


def one_hot(choices):
    """The relaxed binding that stands for fixed choices; all is live."""
    return tuple(
        Weighted(jax.nn.one_hot(c, n), jnp.ones(n, bool))
        for c, n in zip(choices, (BRANCHES, INPUTS), strict=True)
    )


def sampled(*choices):
    return tuple(jnp.int32(c) for c in choices)


def tree_max(tree):
    return max((float(jnp.abs(a).max()) for a in jax.tree.leaves(tree)), default=0.0)


class Case:
    """A net, its variables and its compiled functions."""

    def __init__(self, form):
        self.net = net = Net(form, cells=1 if form == "loop" else CELLS)
        self.x = x = jax.random.normal(jax.random.key(1), (4, *IMAGE))
        init = jax.jit(net.init)
        self.variables = init(jax.random.key(0), sampled(0, 0), x)
        self.params = self.variables["params"]
        self.stats = self.variables["batch_stats"]

        def loss(params, choices):
            variables = {"params": params, "batch_stats": self.stats}
            y, new = net.apply(variables, choices, x, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), (y, new["batch_stats"])

        self.traces = 0

        def counted(params, choices):
            self.traces += 1
            return loss(params, choices)

        self.loss = loss
        self.run = jax.jit(jax.value_and_grad(counted, has_aux=True))


@pytest.fixture(scope="module")
def cases():
    return {form: Case(form) for form in ("loop", "scan", "remat")}


@pytest.fixture(params=["loop", "scan", "remat"])
def case(cases, request):
    return cases[request.param]


@pytest.fixture
def scanned(cases):
    return cases["scan"]


@pytest.fixture
def single(cases):
    """One cell."""
    return cases["loop"]


# ---- the three bindings -------------------------------------------------------------


@pytest.mark.parametrize("choices", [(0, 0), (2, 1)])
def test_bindings_agree(case, choices):
    child = extract(case.net, choices, case.variables, IMAGE)
    expected, new = case.net.apply(child, choices, case.x, mutable=["batch_stats"])
    for binding in (sampled(*choices), one_hot(choices)):
        (_, (y, _)), _ = case.run(case.params, binding)
        np.testing.assert_allclose(y, expected, **TOLERANCE)
    (_, (_, stats)), _ = case.run(case.params, sampled(*choices))
    variables = {"params": case.params, "batch_stats": stats}
    after = extract(case.net, choices, variables, IMAGE)
    jax.tree.map(
        partial(np.testing.assert_allclose, **TOLERANCE),
        dict(after.get("batch_stats", {})),
        dict(new.get("batch_stats", {})),
    )


def test_gradients_of_the_bindings_agree(case):
    choices = (2, 1)
    _, from_sampled = case.run(case.params, sampled(*choices))
    _, from_relaxed = case.run(case.params, one_hot(choices))
    jax.tree.map(
        partial(np.testing.assert_allclose, **TOLERANCE), from_sampled, from_relaxed
    )
    # The fixed child is differentiated by JAX.
    child = extract(case.net, choices, case.variables, IMAGE)

    def loss(params):
        variables = {**child, "params": params}
        return jnp.sum(jnp.sin(case.net.apply(variables, choices, case.x)))

    shared = {"params": from_sampled, "batch_stats": case.stats}
    cut = extract(case.net, choices, shared, IMAGE)["params"]
    grads = jax.jit(jax.grad(loss))(child["params"])
    jax.tree.map(partial(np.testing.assert_allclose, **TOLERANCE), cut, grads)


def test_a_live_of_none_is_all_live_without_conditionals(scanned):
    weights = (jnp.array([0.2, 0.5, 0.3]), jnp.array([0.6, 0.4]))
    masked = tuple(Weighted(w, jnp.ones(w.shape, bool)) for w in weights)
    unmasked = tuple(Weighted(w, None) for w in weights)
    expected = scanned.run(scanned.params, masked)
    found = scanned.run(scanned.params, unmasked)
    jax.tree.map(partial(np.testing.assert_allclose, **TOLERANCE), found, expected)
    jaxpr = str(jax.make_jaxpr(scanned.loss)(scanned.params, unmasked))
    assert " cond[" not in jaxpr


def test_one_compilation_for_all_decisions(scanned):
    for op in range(BRANCHES):
        for source in range(INPUTS):
            scanned.run(scanned.params, sampled(op, source))
    before = scanned.traces
    scanned.run(scanned.params, sampled(1, 0))
    assert scanned.traces == before


# ---- what runs, what learns ---------------------------------------------------------


def edge_of(case, tree):
    return tree["cells" if "cells" in tree else "cell_0"]["edge"]


def test_what_was_not_sampled_gets_a_gradient_of_exactly_zero(case):
    _, grads = case.run(case.params, sampled(2, 1))
    edge = edge_of(case, grads)
    assert tree_max(edge["branch_1"]) == 0
    sizes = np.abs(edge["branch_2"]["kernel_0"]).sum((-2, -1))  # [..., INPUTS]
    assert np.all(sizes[..., 0] == 0)
    assert np.all(sizes[..., 1] > 0)


def test_only_the_sampled_branch_updates_its_batch_statistics(case):
    (_, (_, stats)), _ = case.run(case.params, sampled(1, 0))
    before, after = edge_of(case, case.stats), edge_of(case, stats)
    assert jax.tree.structure(case.stats) == jax.tree.structure(stats)
    jax.tree.map(np.testing.assert_array_equal, before["branch_2"], after["branch_2"])
    moved = jax.tree.map(lambda a, b: a - b, before["branch_1"], after["branch_1"])
    assert tree_max(moved) > 1e-3


def test_dead_branches_neither_run_nor_learn(single):
    op = Weighted(jnp.array([0.0, 0.3, 0.7]), jnp.array([True, True, False]))
    _, source = one_hot((0, 1))
    poison = jax.tree_util.tree_map_with_path(
        lambda path, a: a * jnp.nan if "branch_2" in str(path) else a, single.params
    )

    def loss(weight, params):
        return single.loss(params, (Weighted(weight, op.live), source))[0]

    value, (by_weight, by_params) = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
        op.weight, poison
    )
    assert np.isfinite(value)
    assert by_weight[2] == 0
    assert tree_max(edge_of(single, by_params)["branch_2"]) == 0
    # Branch 0 is live: its weight of 0 has a gradient, the sum of output x cotangent.
    assert abs(by_weight[0]) > 1e-3
    # Branch 1, alone with a weight above 0, learns.
    assert tree_max(edge_of(single, by_params)["branch_1"]) > 1e-3


def test_no_gradient_reaches_a_live_branch_of_weight_zero_but_its_weight_learns():
    class Scale(nn.Module):
        factor: float

        @nn.compact
        def __call__(self, x):
            return self.factor * x * self.param("w", nn.initializers.ones, ())

    class Mix(nn.Module):
        @nn.compact
        def __call__(self, choice, x):
            branches = [partial(Scale, f) for f in (2.0, 3.0, 5.0)]
            return choose(choice, branches, x, name="mix")

    x, live = jnp.arange(1.0, 4.0), jnp.array([True, True, False])
    variables = Mix().init(jax.random.key(0), jnp.int32(0), x)

    def total(weight, variables):
        return Mix().apply(variables, Weighted(weight, live), x).sum()

    weight = jnp.array([0.0, 0.5, 9.0])
    by_weight, by_params = jax.grad(total, argnums=(0, 1))(weight, variables)
    np.testing.assert_allclose(by_weight, [12.0, 18.0, 0.0])  # factor x sum of x
    learnt = [by_params["params"]["mix"][f"branch_{i}"]["w"] for i in range(3)]
    np.testing.assert_allclose(learnt, [0.0, 9.0, 0.0])


def test_a_step_costs_less_with_each_branch_that_dies():
    ran = []  # a branch a run

    class Told(nn.Module):
        number: int

        @nn.compact
        def __call__(self, x):
            jax.debug.callback(lambda: ran.append(self.number))
            return x * self.param("w", nn.initializers.ones, ())

    class Mix(nn.Module):
        @nn.compact
        def __call__(self, choice, x):
            return choose(choice, [partial(Told, i) for i in range(3)], x, name="mix")

    x, weight = jnp.ones(2), jnp.full(3, 1 / 3)
    variables = Mix().init(jax.random.key(0), jnp.int32(0), x)

    @jax.jit
    @jax.grad
    def step(variables, live):
        return Mix().apply(variables, Weighted(weight, live), x).sum()

    costs = []
    for live in ([0, 1, 2], [0, 2], [2]):
        ran.clear()
        jax.block_until_ready(
            step(variables, jnp.zeros(3, bool).at[jnp.array(live)].set(True))
        )
        jax.effects_barrier()
        assert sorted(set(ran)) == live
        costs.append(len(ran))
    assert costs == [3 * costs[2], 2 * costs[2], costs[2]]


def test_gates_with_their_path_cost_the_memory_of_one_branch():
    class Deep(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(4):
                x = ReLUConvBN(8, True, name=f"layer_{i}")(x)
            return x

    class Mix(nn.Module):
        @nn.compact
        def __call__(self, choice, x):
            return choose(choice, [Deep] * 6, x, name="mix")

    x = jax.random.normal(jax.random.key(1), (16, 8, 8, 8))
    params = jax.jit(Mix().init)(jax.random.key(0), jnp.int32(0), x)["params"]
    gates = Weighted(jax.nn.one_hot(3, 6), jnp.arange(6) > 1)

    def loss(weight, params, choice):
        if isinstance(choice, Weighted):
            choice = choice._replace(weight=weight)
        return jnp.sum(jnp.sin(Mix().apply({"params": params}, choice, x)))

    step, found = jax.jit(jax.grad(loss, argnums=(0, 1))), []
    for choice in (gates, gates._replace(path=jnp.int32(3))):
        program = step.lower(gates.weight, params, choice).compile()
        temporary = program.memory_analysis().temp_size_in_bytes
        found.append((temporary, program(gates.weight, params, choice)))
    (masked, expected), (one, grads) = found
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        *(expected, grads),
    )
    assert np.all(np.abs(grads[0][2:]) > 1e-3) and not np.any(grads[0][:2])
    alone = jax.jit(jax.grad(lambda params: loss(None, params, 3)))
    alone = alone.lower(params).compile().memory_analysis().temp_size_in_bytes
    assert one < 1.3 * alone and one < 0.5 * masked


# ---- dropout, precision -------------------------------------------------------------


def test_dropout_inside_branches_repeats_in_the_backward_pass():
    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = x * self.param("w", nn.initializers.ones, ())
            return nn.Dropout(0.5, deterministic=not self.has_rng("dropout"))(y)

    class Net(nn.Module):
        @nn.compact
        def __call__(self, choice, x):
            return choose(choice, [Dropped, Dropped], x, name="edge")

    x = jax.random.normal(jax.random.key(0), (64,))
    variables = Net().init(jax.random.key(0), jnp.int32(0), x)

    @jax.jit
    def run(variables, choice, key):
        def total(variables):
            y = Net().apply(variables, choice, x, rngs={"dropout": key})
            return y.sum(), y

        return jax.value_and_grad(total, has_aux=True)(variables)

    (total, y), grads = run(variables, jnp.int32(1), jax.random.key(3))
    assert 10 < int(jnp.sum(y == 0)) < 54
    # y is linear in w = 1: the gradient is sum(y) only under the same mask.
    gradient = grads["params"]["edge"]["branch_1"]["w"]
    np.testing.assert_allclose(gradient, total, rtol=1e-5)
    (other, _), _ = run(variables, jnp.int32(1), jax.random.key(4))
    assert other != total
    np.testing.assert_array_equal(Net().apply(variables, jnp.int32(1), x), x)


def test_dropout_differs_between_scanned_cells_and_is_repeatable():
    net = Net("remat", nn.FrozenDict({"dropout": 0.5}))
    x = jax.random.normal(jax.random.key(1), (4, *IMAGE))
    choices = sampled(1, 0)
    variables = jax.jit(net.init)(jax.random.key(0), choices, x)
    variables = {"params": variables["params"]}
    run = jax.jit(lambda key: net.apply(variables, choices, x, rngs={"dropout": key}))
    first, again, other = (run(jax.random.key(k)) for k in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max()) > 1e-3


def test_bfloat16_inside_branches_keeps_float32_parameters():
    net = Net("loop", nn.FrozenDict({"dtype": jnp.bfloat16}), cells=1)
    x = jax.random.normal(jax.random.key(1), (4, *IMAGE), jnp.bfloat16)
    choices = sampled(2, 1)
    variables = jax.jit(net.init)(jax.random.key(0), choices, x)

    @jax.jit
    def run(params, choices):
        def loss(params):
            y = net.apply({"params": params}, choices, x)
            return jnp.sum(y.astype(jnp.float32)), y

        return jax.grad(loss, has_aux=True)(params)

    grads, y = run(variables["params"], choices)
    assert y.dtype == jnp.bfloat16
    assert {a.dtype for a in jax.tree.leaves((variables, grads))} == {
        jnp.dtype("float32")
    }
    child = extract(net, (2, 1), variables, IMAGE)
    expected = net.apply(child, (2, 1), x)
    np.testing.assert_allclose(y.astype(float), expected.astype(float), atol=0.1)


# ---- derivatives of derivatives -----------------------------------------------------


def test_grad_of_grad_and_jvp_of_grad_equal_those_of_the_fixed_child(single):
    choices = (1, 1)
    child = extract(single.net, choices, single.variables, IMAGE)

    def fixed_loss(params):
        variables = {**child, "params": params}
        return jnp.sum(jnp.sin(single.net.apply(variables, choices, single.x)))

    def shared_loss(params):
        return single.loss(params, sampled(*choices))[0]

    def second_order(loss):
        def both(params, tangent):
            gradient = jax.grad(loss)
            _, forward = jax.jvp(gradient, (params,), (tangent,))

            def product(params):
                pairs = zip(
                    jax.tree.leaves(gradient(params)),
                    jax.tree.leaves(tangent),
                    strict=True,
                )
                return sum(jnp.vdot(g, t) for g, t in pairs)

            return forward, jax.grad(product)(params)

        return jax.jit(both)

    def cut(params):
        variables = {"params": params, "batch_stats": single.stats}
        return extract(single.net, choices, variables, IMAGE)["params"]

    tangent = jax.tree.map(lambda a: jnp.cos(7 * a), single.params)
    forward, reverse = second_order(shared_loss)(single.params, tangent)
    expected, _ = second_order(fixed_loss)(child["params"], cut(tangent))
    close = partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3)
    jax.tree.map(close, forward, reverse)
    jax.tree.map(close, cut(forward), expected)


def test_gradient_of_a_relaxed_gradient_is_finite_and_symmetric(single):
    live = jnp.ones(BRANCHES, bool)
    _, source = one_hot((0, 0))
    weight = jnp.array([0.2, 0.3, 0.5])

    def loss(weight):
        return single.loss(single.params, (Weighted(weight, live), source))[0]

    hessian = np.asarray(jax.jit(jax.jacrev(jax.grad(loss)))(weight))
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-3, atol=1e-3)
    assert np.abs(hessian).max() > 1e-2


# ---- the price ----------------------------------------------------------------------


def test_a_sampled_step_holds_one_path():
    """Temporary memory of a gradient: own VJP against JAX's VJP of lax.switch."""
    widths, layers = (
        range(64, 257, 64),
        3,
    )  # no two branches have residuals of one shape

    def branch(i, weights, _):
        x, kernels = weights
        for down, up in kernels[i]:
            x = jnp.tanh(x @ down) @ up
        return x

    branches = tuple(partial(branch, i) for i in range(len(widths)))
    x = jax.ShapeDtypeStruct((512, 8), jnp.float32)
    kernels = [
        [[jax.ShapeDtypeStruct(s, jnp.float32) for s in ((8, w), (w, 8))]] * layers
        for w in widths
    ]

    def temporary(apply):
        def loss(weights, index):
            return jnp.sum(apply(index, weights) ** 2)

        index = jax.ShapeDtypeStruct((), jnp.int32)
        compiled = jax.jit(jax.grad(loss)).lower((x, kernels), index).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    own = temporary(lambda i, w: switch(branches, False, i, w, None))
    by_jax = temporary(lambda i, w: jax.lax.switch(i, branches, w, None))
    widest = temporary(lambda i, w: branch(len(widths) - 1, w, None))
    assert own < 1.5 * widest
    assert own < by_jax / 2


def test_branches_of_unequal_shape_are_refused():
    class Wide(nn.Module):
        factor: int

        @nn.compact
        def __call__(self, x):
            return jnp.concatenate([x] * self.factor)

    class Bad(nn.Module):
        @nn.compact
        def __call__(self, choice, x):
            return choose(choice, [partial(Wide, 1), partial(Wide, 2)], x, name="edge")

    with pytest.raises(ValueError, match=r"edge return \[\(3,\), \(6,\)\]"):
        Bad().init(jax.random.key(0), jnp.int32(0), jnp.ones(3))


# ---- choosing among arrays ----------------------------------------------------------


def test_pick_by_hand():
    arrays = [jnp.array([1.0, 2.0]), jnp.array([10.0, 20.0])]
    np.testing.assert_array_equal(pick(1, arrays), [10, 20])
    np.testing.assert_array_equal(pick(jnp.int32(1), arrays), [10, 20])
    np.testing.assert_array_equal(pick(jnp.int32(0), jnp.stack(arrays)), [1, 2])
    weight, all_live = jnp.array([0.5, 2.0]), jnp.array([True, True])
    np.testing.assert_allclose(pick(Weighted(weight, all_live), arrays), [20.5, 41])
    one_live = jnp.array([True, False])
    np.testing.assert_allclose(pick(Weighted(weight, one_live), arrays), [0.5, 1])


def test_each_slice_of_an_indexed_parameter_has_a_key_of_its_own(scanned):
    kernels = scanned.params["cells"]["edge"]["branch_1"]["kernel_0"]
    assert kernels.shape == (CELLS, INPUTS, WIDTH, WIDTH)
    flat = np.asarray(kernels).reshape(CELLS * INPUTS, -1)
    assert len(np.unique(flat, axis=0)) == CELLS * INPUTS


def test_bind_all_gives_each_decision_its_own_choices():
    spec = DecisionSpec(
        (
            Decision("a", ("x", "y"), "op"),
            Decision("b", ("0", "1", "2"), "input"),
            Decision("c", ("x", "y", "z"), "op"),
        )
    )
    assert bind_all(spec, np.array([1, 2, 0])) == (1, 2, 0)
    bound = bind_all(spec, jnp.array([1, 2, 0]))
    assert [int(b) for b in bound] == [1, 2, 0]
    weights = spec.one_hot(jnp.array([1, 2, 0]))
    live = jax.tree.map(lambda a: a > 0, weights)
    unmasked = bind_all(spec, {"weights": weights, "live": None})
    assert [b.live for b in unmasked] == [None] * len(unmasked)
    relaxed = bind_all(spec, {"weights": weights, "live": live})
    assert [b.weight.tolist() for b in relaxed] == [[0, 1], [0, 0, 1], [1, 0, 0]]
    assert [b.live.tolist() for b in relaxed][0] == [False, True]
    with pytest.raises(ValueError, match="decision 1 'b' is 3"):
        bind_all(spec, np.array([1, 3, 0]))
