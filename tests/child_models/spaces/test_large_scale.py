"""The networks of graphs: shapes, sums, and exact counts."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.cost import count
from child_models.spaces.large_scale import fit, large_scale
from controller.graph import Graph, Layer
from controller.graph_mutations import MUTATIONS

SPACE = large_scale(classes=3)
NET = SPACE.module("final")
IMAGES = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


def conv(id, channels, activation="linear", **numbers):
    sizes = {"height": 3, "width": 3, "channels": channels, "activation": activation}
    return Layer(id, "conv", **sizes | numbers)


def bound(*layers, skips=()):
    """A graph as the space binds it."""
    return SPACE.bind(SPACE.spec.pack(Graph(0.1, layers, skips)))


def initial(choices):
    return NET.init(jax.random.key(1), choices, IMAGES, True)


def logits(choices, variables, train=False):
    return NET.apply(variables, choices, IMAGES, train)


def test_evolution_begins_with_a_linear_classifier_of_the_mean_colour():
    choices = SPACE.bind(SPACE.spec.pack(SPACE.spec.initial))
    variables = initial(choices)
    head = variables["params"]["classifier"]
    expected = IMAGES.mean((1, 2)) @ head["kernel"] + head["bias"][None]
    np.testing.assert_allclose(logits(choices, variables), expected, atol=1e-6)
    assert SPACE.learning_rate(SPACE.spec.pack(SPACE.spec.initial)) == 0.1


def test_a_vertex_is_the_activation_of_a_sum():
    layers = (conv(0, 4, stride=2), Layer(5, "identity", activation="bn_relu"))
    choices = bound(*layers, skips=((0, 2), (1, 2)))
    variables = initial(choices)
    stats = variables["batch_stats"]["layer_5_norm"]
    assert set(variables["params"]) == {"layer_0_conv", "layer_5_norm", "classifier"}
    first = nn.Conv(4, (3, 3), 2, 1, use_bias=False).apply(
        {"params": variables["params"]["layer_0_conv"]}, IMAGES
    )
    total = 2 * first + jnp.pad(IMAGES[:, ::2, ::2], ((0, 0),) * 3 + ((0, 1),))
    assert np.all(stats["mean"] == 0) and np.all(stats["var"] == 1)
    pooled = nn.relu(total / np.sqrt(1 + 1e-5)).mean((1, 2))
    expected = pooled @ variables["params"]["classifier"]["kernel"]
    np.testing.assert_allclose(logits(choices, variables), expected, atol=1e-5)


@pytest.mark.parametrize(
    "rows, size",
    [([0, 0, 1, 1], 2), ([0, 0, 0, 1], None), ([0, 2], 4), ([0, 1, 3], 5), ([0], 3)],
)
def test_sizes_are_fitted_by_nearest_neighbours(rows, size):
    if size is None:
        rows, size = [0, 0, 1, 1, 2], 3
    x = jnp.arange(size, dtype=jnp.float32).reshape(1, size, 1, 1)
    y = fit(x, (len(rows), 1, 1))
    np.testing.assert_array_equal(y[0, :, 0, 0], rows)
    np.testing.assert_array_equal(
        fit(x.swapaxes(1, 2), (1, len(rows), 1))[0, 0, :, 0], rows
    )


def test_channels_are_cut_or_filled_up_with_zeros():
    x = jnp.arange(12, dtype=jnp.float32).reshape(1, 2, 2, 3)
    np.testing.assert_array_equal(fit(x, (2, 2, 2)), x[..., :2])
    wide = fit(x, (2, 2, 5))
    np.testing.assert_array_equal(wide[..., :3], x)
    assert np.all(wide[..., 3:] == 0)


@pytest.mark.parametrize("stride", [8, 16, 1024])
def test_a_stride_beyond_the_image_leaves_one_pixel(stride):
    choices = bound(conv(0, 4, stride=stride))
    variables = initial(choices)
    kernel = variables["params"]["layer_0_conv"]["kernel"]
    convolution = nn.Conv(4, (3, 3), stride, 1, use_bias=False)
    window = convolution.apply({"params": {"kernel": kernel}}, IMAGES)
    assert window.shape == (2, 1, 1, 4)
    expected = window[:, 0, 0] @ variables["params"]["classifier"]["kernel"]
    np.testing.assert_allclose(logits(choices, variables), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layers, skips, params, macs",
    [
        # 3 colours: the classifier is 3 x 10 weights and 10 biases.
        ((), (), 40, 30),
        # 3x3x3x16 weights, 2x16 of the norm; at 32x32 / 2.
        (
            (conv(0, 16, "bn_relu", stride=2),),
            (),
            432 + 32 + 170,
            432 * 256 + 160,
        ),
        # 1x5x16x8 weights at 8x8, an identity with a norm; skips cost nothing.
        (
            (
                conv(0, 16, "bn_relu", stride=2),
                conv(1, 8, height=1, width=5, stride=2),
                Layer(2, "identity", activation="bn_relu"),
            ),
            ((0, 3), (1, 3)),
            432 + 32 + 640 + 16 + 90,
            432 * 256 + 640 * 64 + 80,
        ),
    ],
)
def test_counts_are_exact(layers, skips, params, macs):
    space = large_scale(classes=10)
    choices = space.bind(space.spec.pack(Graph(0.1, layers, skips)))
    cost = count(space.module("final"), choices, (32, 32, 3))
    assert (cost.params, cost.params_aux, cost.macs) == (params, 0, macs)


def test_graphs_at_the_end_of_chains_of_mutations_build():
    rng, depths = np.random.default_rng(0), []
    for _ in range(40):
        graph = SPACE.spec.initial
        for name in rng.choice(list(MUTATIONS), int(rng.integers(1, 40))).tolist():
            graph = MUTATIONS[name](rng, graph, 3) or graph
        choices = SPACE.bind(SPACE.spec.pack(graph))
        found = jax.eval_shape(
            lambda choices=choices: NET.init_with_output(
                jax.random.key(0), choices, IMAGES, True
            )[0]
        )
        assert found.shape == (2, 3)
        depths.append(len(graph.layers))
    assert max(depths) > 5


@pytest.mark.parametrize("seed", [0, 1])
def test_random_graphs_build_and_have_finite_gradients(seed):
    space = large_scale(classes=3, distance=10)
    choices = space.bind(space.spec.sample(jax.random.key(seed)))
    variables = jax.eval_shape(lambda: initial(choices))
    variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.1), variables)

    def loss(params):
        found = {**variables, "params": params}
        return jnp.sum(
            NET.apply(found, choices, IMAGES, True, mutable=["batch_stats"])[0]
        )

    fast = {"xla_backend_optimization_level": 0}
    grads = jax.jit(jax.grad(loss), compiler_options=fast)(variables["params"])
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all()


def test_what_trains_the_graph_is_no_part_of_the_network():
    graphs = [Graph(rate, (conv(0, 4),)) for rate in (0.1, 0.2)]
    first, second = (SPACE.bind(SPACE.spec.pack(graph)) for graph in graphs)
    assert first == second and hash(first) == hash(second)
    assert SPACE.bindings == {"fixed"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": 0}, "classes is 0; it must be at least 1"),
        ({"first_channels": 0}, "first_channels is 0; it must be at least 1"),
        ({"distance": -1}, "distance is -1; it must be at least 0"),
        ({"initial": "{}"}, "a graph has no 'learning_rate'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        large_scale(**{"classes": 3} | options)
    with pytest.raises(ValueError, match="'draft' must be one of: search, final"):
        SPACE.module("draft")
