"""The conditional with a VJP of its own, beside `lax.switch`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.conditional import switch
from child_models.ops.kept import keep
from child_models.picking import add_at, pick, read

TOLERANCE = 3e-6  # of the largest entry


def _dense(differentiable, other):
    params, x = differentiable
    return keep(x @ params["kernel"]) * other, None


def _deep(differentiable, other):
    """Four kept values, inside a scan and beside it."""
    params, x = differentiable

    def layer(x, _):
        return jnp.tanh(keep(x @ params["kernel"])), None

    x, _ = jax.lax.scan(layer, x, length=3)
    return jnp.sin(keep(x @ params["kernel"])) + other, None


def _scaled(differentiable, other):
    params, x = differentiable
    return params["scale"][None] * x, None


def _bent(times, differentiable, other):
    """Keeps so many times the channels of x."""
    params, x = differentiable
    y = keep(jnp.concatenate([x @ params["kernel"]] * times, axis=-1))
    return jnp.tanh(y)[:, -4:] * other, None


_narrow, _wide = partial(_bent, 1), partial(_bent, 3)
BRANCHES = (_dense, _deep, _scaled, _wide, _narrow)


@pytest.fixture(scope="module")
def operands():
    keys = jax.random.split(jax.random.key(0), 3)
    params = {
        "kernel": jax.random.normal(keys[0], (4, 4)),
        "scale": jax.random.normal(keys[1], (4,)),
    }
    return (params, jax.random.normal(keys[2], (2, 4))), jnp.float32(3)


def _value(run, index, differentiable, other):
    return jnp.sum(run(index, differentiable, other)[0] ** 2)


def _plain(index, differentiable, other):
    return jax.lax.switch(index, BRANCHES, differentiable, other)


def _assert_equal(ours, theirs):
    def check(a, b):
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE * np.abs(b).max())

    jax.tree.map(check, ours, theirs)


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize("index", range(len(BRANCHES)))
def test_gradients_equal_those_of_lax_switch(operands, index, remat):
    ours = partial(_value, partial(switch, BRANCHES, remat))
    theirs = partial(_value, _plain)

    def both(value):
        return jax.jit(jax.value_and_grad(value, argnums=1))(index, *operands)

    _assert_equal(both(ours), both(theirs))


@pytest.mark.parametrize("remat", [False, True])
def test_second_derivatives_equal_those_of_lax_switch(operands, remat):
    def bend(run, index, differentiable, other):
        """The gradient's directional derivative along itself, forward over reverse."""
        gradient = jax.grad(partial(_value, run), argnums=1)
        along = gradient(index, differentiable, other)
        turned = jax.jvp(
            lambda d: gradient(index, d, other), (differentiable,), (along,)
        )
        return turned[1]

    for index in range(len(BRANCHES)):
        ours, theirs = (
            jax.jit(partial(bend, run))(index, *operands)
            for run in (partial(switch, BRANCHES, remat), _plain)
        )
        _assert_equal(ours, theirs)


def _saved(branches, remat, operands):
    """Shapes of what the gradient holds beside the operands."""

    def residuals(index, differentiable, other):
        run = partial(switch, branches, remat, index)
        return jax.vjp(lambda d: run(d, other)[0], differentiable)[1]

    leaves = jax.tree.leaves(jax.eval_shape(residuals, jnp.int32(0), *operands))
    given = [x.shape for x in jax.tree.leaves((jnp.int32(0), operands))]
    shapes = [x.shape for x in leaves]
    for shape in given:
        shapes.remove(shape)
    return shapes


def test_branches_share_the_slots_of_the_largest(operands):
    alone = {b: sorted(_saved((b,), False, operands)) for b in BRANCHES}
    assert alone[_scaled] == []  # its residuals are its operands
    assert len(alone[_dense]) < len(alone[_deep])
    together = sorted(_saved((_dense, _deep, _scaled), False, operands))
    assert together == alone[_deep]
    assert sorted(_saved((_deep, _deep, _dense), False, operands)) == alone[_deep]


def test_branches_share_slots_that_differ_in_channels(operands):
    assert _saved((_narrow,), False, operands) == [(2, 4)]
    assert _saved((_wide,), False, operands) == [(2, 12)]
    assert _saved((_narrow, _wide), False, operands) == [(2, 12)]
    assert _saved((_wide, _narrow), False, operands) == [(2, 12)]


def test_remat_saves_nothing_but_the_operands(operands):
    assert _saved(BRANCHES, True, operands) == []


# ---- arrays that a loop carries -----------------------------------------------------


def _walk(take, put, stacked):
    """Reads two of the arrays, one of them twice, and adds what comes of them."""
    for source, target in ((0, 2), (1, 2), (0, 1)):
        x, stacked = take(jnp.int32(source), stacked)
        stacked = put(stacked, jnp.int32(target), jnp.tanh(x) * x)
    return jnp.sum(jnp.sin(stacked) * stacked)


OURS = partial(_walk, read, add_at)
PLAIN = partial(
    _walk,
    lambda i, stacked: (pick(i, stacked), stacked),
    lambda stacked, i, x: stacked.at[i].add(x),
)


@pytest.mark.parametrize(
    "derivative",
    [
        jax.grad,
        lambda f: jax.grad(lambda s: jnp.sum(jax.grad(f)(s) ** 2)),
    ],
    ids=["first", "second"],
)
def test_read_and_add_at_have_the_gradients_of_pick_and_scatter(derivative):
    stacked = jax.random.normal(jax.random.key(1), (3, 2, 4))
    ours, plain = (jax.jit(derivative(f))(stacked) for f in (OURS, PLAIN))
    _assert_equal(ours, plain)


def test_gradients_of_reads_are_added_up_in_place():
    """No scatter of zeros as large as all arrays, as `pick` has one for each read."""
    text = str(jax.make_jaxpr(jax.grad(OURS))(jnp.ones((3, 2, 4))))
    assert "scatter" not in text
