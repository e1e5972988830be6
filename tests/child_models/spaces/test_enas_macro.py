"""ENAS macro: sizes, arcs, one path of shared weights, parameter counts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.spaces.enas_macro import enas_macro
from child_models.spaces.enas_macro_search import OPS

LAYERS, CHANNELS, CLASSES = 3, 4, 3
ARC = np.array([1, 4, 0, 1, 0, 1])  # sep3; avg; sep3 and the outputs of layer 1
ARC_TEXT = "1 4 0 1 0 1"


@pytest.fixture(scope="module")
def shared():
    """Space, shared variables, images, and a compiled loss with its gradient."""
    space = enas_macro(classes=CLASSES, layers=LAYERS, channels=CHANNELS)
    net = space.module("search")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = initial(net, space.bind(jnp.asarray(ARC)), x)

    def loss(params, decisions):
        logits = net.apply({"params": params}, space.bind(decisions), x)
        return jnp.sum(logits**2), logits

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return space, variables, x, run


def initial(module, *inputs):
    """Variables of a module's own shapes; NumPy draws them, which compiles nothing."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs))
    draw = np.random.default_rng(0)

    def leaf(path, shape):
        if path[0].key == "batch_stats":
            return jnp.ones(shape.shape)
        return jnp.asarray(draw.normal(size=shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def test_sizes():
    assert enas_macro(classes=10).spec.size() == 6**12 * 2**66
    assert f"{enas_macro(classes=10, layers=12).spec.size():.3e}" == "1.606e+29"
    assert enas_macro(classes=10, layers=3).spec.length == 3 + 3


def test_decisions_say_what_they_build_and_read():
    spec = enas_macro(classes=10, layers=4).spec
    names = [d.name for d in spec.decisions]
    assert names[:4] == ["layer/0/op", "layer/1/op", "layer/1/skip_0", "layer/2/op"]
    skip = spec.decisions[names.index("layer/3/skip_1")]
    assert skip.choices == ("no", "yes") and skip.group == "skip"
    assert skip.node == 3 and skip.targets == (1, 1)
    assert spec.decisions[0].choices == OPS and spec.decisions[0].group == "op"


def test_arc_round_trip():
    spec = enas_macro(classes=10, layers=3).spec
    assert spec.encode(ARC) == ARC_TEXT
    for text in (ARC_TEXT, "1\n4 0\n1 0 1", "[1, 4, 0, 1, 0, 1]", "1 | 4 0 | 1 0 1"):
        assert spec.decode(text) == tuple(ARC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 4 0", "3 numbers; this space has 6"),
        ("1 4 0 1 0 yes", "found 'y'"),
        ("6 4 0 1 0 1", r"layer/0/op' is 6; legal: 0 \(conv_3x3\)"),
        ("1 4 2 1 0 1", r"layer/1/skip_0' is 2; legal: 0 \(no\), 1 \(yes\)"),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        enas_macro(classes=10, layers=3).spec.decode(text)


@pytest.mark.parametrize(
    "arguments", [{"layers": 2}, {"channels": 0}, {"classes": 0}, {"dropout": -0.1}]
)
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*must be"):
        enas_macro(**{"classes": 10, **arguments})


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'derived' must be one of: search, final"):
        enas_macro(classes=10).module("derived")


def test_only_the_sampled_path_gets_gradient(shared):
    _, variables, _, run = shared
    grads = run(variables["params"], jnp.asarray(ARC))[1]
    chosen = (1, 4, 1)  # the ops of ARC's layers
    for number, op in enumerate(OPS):
        for name, leaf in grads[op].items():
            for layer in range(LAYERS):
                assert np.any(leaf[layer]) == (chosen[layer] == number), (name, layer)


def test_skips_of_other_layers_get_no_gradient(shared):
    _, variables, _, run = shared
    # With no skip, layer 0's second reduction is computed but reaches nothing.
    for bit in (0, 1):
        arc = jnp.asarray(ARC).at[4].set(bit)
        grads = run(variables["params"], arc)[1]["reduce_2"]
        for leaf in jax.tree.leaves(grads):
            assert np.any(leaf[0]) == bool(bit)
            assert np.any(leaf[1])


def test_arcs_that_share_a_layer_read_the_same_array(shared):
    space, variables, _, _ = shared
    bank = variables["params"]["sep_conv_3x3"]["pointwise"]
    other = np.array([1, 5, 1, 2, 0, 0])
    for arc, rows in ((ARC, [0, 2]), (other, [0])):
        child = space.extract(variables, arc)["params"]
        assert "conv_3x3" not in child
        np.testing.assert_array_equal(
            child["sep_conv_3x3"]["pointwise"], bank[np.array(rows)]
        )


def test_extracted_child_returns_the_logits(shared):
    space, variables, x, run = shared
    net, choices = space.module("search"), space.bind(ARC)
    child = space.extract(variables, ARC)
    fixed = jax.jit(lambda child: net.apply(child, choices, x))(child)
    logits = run(variables["params"], jnp.asarray(ARC))[0][1]
    np.testing.assert_allclose(fixed, logits, atol=1e-5 * np.abs(logits).max())


def test_parameters_of_a_final_network():
    """Three layers, of 2, 4 and 8 channels; every term by hand."""
    space = enas_macro(classes=CLASSES, layers=3, channels=2)
    stem = 3 * 3 * 3 * 2 + 2 * 2
    layer_0 = (2 * 2 + 4) + (9 * 2 + 2 * 2 + 4)  # 1x1; separable convolution
    reduce_1 = 2 * 4 + 8
    layer_1 = (4 * 4 + 8) + (4 * 4 + 8)  # 1x1; pool; join, nothing skipped
    reduce_2 = 2 * (4 * 8 + 16)
    layer_2 = (
        (8 * 8 + 16) + (9 * 8 + 8 * 8 + 16) + (2 * 8 * 8 + 16)
    )  # joins layer 1, too
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    net, choices = space.module("final"), space.bind(ARC)
    params = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), choices, x, True), images
    )["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == (
        stem + layer_0 + reduce_1 + layer_1 + reduce_2 + layer_2 + 8 * CLASSES
    )


def test_final_network_runs_and_keeps_statistics():
    space = enas_macro(classes=CLASSES, layers=3, channels=2)
    net, choices = space.module("final"), space.bind(np.array([0, 5, 1, 2, 1, 0]))
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = initial(net, choices, x, True)

    @jax.jit
    def both(variables):
        train, updates = net.apply(variables, choices, x, True, mutable=["batch_stats"])
        return train, net.apply(variables, choices, x, False), updates["batch_stats"]

    train, scored, stats = both(variables)
    assert train.shape == scored.shape == (2, CLASSES)
    assert np.any(train != scored)
    for old, new in zip(
        *(jax.tree.leaves(t) for t in (variables["batch_stats"], stats)), strict=True
    ):
        assert np.any(old != new)


def test_final_network_refuses_sampled_decisions():
    space = enas_macro(classes=CLASSES, layers=3)
    with pytest.raises(ValueError, match="fixed decisions only"):
        space.module("final").init(
            *(jax.random.key(0), space.bind(jnp.asarray(ARC)), jnp.zeros((1, 8, 8, 3)))
        )
