"""ENAS micro: sizes, arcs, one path of shared weights, published counts."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.spaces.enas_micro import OPS, PUBLISHED, enas_micro, paper_size
from child_models.spaces.enas_micro_search import Stage, edge_rows
from child_models.spaces.enas_text import genotype, loose_ends

NODES, CHANNELS, CLASSES = 2, 4, 3
PUBLISHED_ARC = (
    "0 2 0 0 0 4 0 1 0 4 1 1 1 0 0 1 0 2 1 1 1 0 1 0 0 3 0 2 1 1 3 1 1 0 0 4 0 3 1 1"
)
# Normal: node 2 = sep3(0) + skip(1), node 3 = sep5(2) + avg(0).  Reduction: all pools.
ARC = np.array([0, 0, 1, 4, 2, 1, 0, 2, 0, 3, 1, 2, 1, 3, 1, 3])
# The same, but node 3 of the normal cell reads state 1 where ARC reads state 2.
OTHER = np.array([0, 0, 1, 4, 1, 1, 0, 2, 0, 3, 1, 2, 1, 3, 1, 3])


@pytest.fixture(scope="module")
def shared():
    """Space, shared variables, images, and a compiled loss with its gradient."""
    space = enas_micro(classes=CLASSES, nodes=NODES, channels=CHANNELS, layers=3)
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


def count(space, decisions):
    """Scalars of the final form: (without the auxiliary head, of the head)."""
    images = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    choices = space.bind(np.asarray(decisions))
    params = jax.eval_shape(
        lambda x: space.module("final").init(jax.random.key(0), choices, x, True),
        images,
    )["params"]
    head = params.pop("auxiliary_head", {})
    return tuple(sum(leaf.size for leaf in jax.tree.leaves(t)) for t in (params, head))


def expected_count(decisions, *, nodes, channels, layers, classes):
    """Trainable scalars of the final form on RGB images, from the paper's layers."""
    f, cells = channels, (decisions[: 4 * nodes], decisions[4 * nodes :])

    def project(a, b):  # 1x1 or factorized reduction from a to b channels, batch norm
        return a * b + 2 * b

    total = 27 * 3 * f + 2 * 3 * f
    widths, sizes = [3 * f, 3 * f], [1, 1]
    third = layers // 3
    for i in range(layers + 2):
        reduces = i in (third, 2 * third + 1)
        f *= 2 if reduces else 1
        cell = cells[reduces]
        if sizes[0] != sizes[1] or widths[0] != f:
            total += project(widths[0], f)
        if widths[1] != f:
            total += project(widths[1], f)
        total += project(f, f)
        for state, op in zip(cell[0::2], cell[1::2], strict=True):
            if op in (0, 1):
                total += 2 * ((3, 5)[op] ** 2 * f + project(f, f))
            if op == 4 and reduces and state < 2:
                total += project(f, f)
        ends = set(range(nodes + 2)) - set(cell[0::2])
        total += reduces * sum(project(f, f) for j in ends if j < 2)
        widths = [widths[1], len(ends) * f]
        sizes = [sizes[1], sizes[1] * (2 if reduces else 1)]
    return total + widths[1] * classes


# ---- decisions and texts ------------------------------------------------------------


def test_sizes():
    assert enas_micro(classes=10, nodes=5).spec.size() == (5**10 * 720**2) ** 2
    assert enas_micro(classes=10, nodes=2).spec.size() == (5**4 * 6**2) ** 2
    assert paper_size(5) == 600**4 == 129_600_000_000


def test_decisions_say_what_they_build_and_read():
    spec = enas_micro(classes=10, nodes=5).spec
    assert spec.length == 40
    assert {d.group for d in spec.decisions} == {"input", "op"}
    last = {d.name: d for d in spec.decisions}["reduce/6/input_right"]
    assert last.choices == ("0", "1", "2", "3", "4", "5")
    assert last.node == 9
    assert last.targets == (-2, -1, 5, 6, 7, 8)
    for d in spec.decisions:
        assert (
            d.choices == OPS if d.group == "op" else max(d.targets, default=-1) < d.node
        )


def test_arc_round_trip():
    spec = enas_micro(classes=10, nodes=5).spec
    decisions = spec.decode(PUBLISHED_ARC)
    assert spec.encode(decisions) == PUBLISHED_ARC
    assert PUBLISHED["ENAS-micro"].decisions == decisions
    numbers = PUBLISHED_ARC.split()
    for text in (
        " ".join(numbers[:20]) + "\n" + " ".join(numbers[20:]),
        "[" + ", ".join(numbers) + "]",
        " | ".join(" ".join(numbers[i : i + 4]) for i in range(0, 40, 4)),
        genotype(spec, decisions),
    ):
        assert spec.decode(text) == decisions


def test_genotype_lists_pairs_in_node_order():
    spec = enas_micro(classes=10, nodes=2).spec
    text = genotype(spec, ARC)
    assert text == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1),"
        " ('sep_conv_5x5', 2), ('avg_pool_3x3', 0)], normal_concat=[3],"
        " reduce=[('max_pool_3x3', 0), ('avg_pool_3x3', 1),"
        " ('max_pool_3x3', 1), ('max_pool_3x3', 1)],"
        " reduce_concat=[2, 3])"
    )
    nested = (
        "Genotype(normal=[[('sep_conv_3x3', 0), ('skip_connect', 1)],"
        " [('sep_conv_5x5', 2), ('avg_pool_3x3', 0)]], normal_concat=range(3, 4),"
        " reduce=[[('max_pool_3x3', 0), ('avg_pool_3x3', 1)],"
        " [('max_pool_3x3', 1), ('max_pool_3x3', 1)]])"
    )
    assert spec.decode(nested) == spec.decode(text) == tuple(ARC)


PAIR = "[('skip_connect', 0), ('skip_connect', 0)]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 1 0", "3 numbers; this space has 16"),
        ("0 1 x", "found 'x'"),
        (" ".join(["9"] * 16), "normal/2/input_left.* is 9; legal: 0, 1"),
        ("Genotype(normal=[])", "lacks reduce"),
        ("Genotype(normal=", "not a Genotype"),
        ("Genotype(normal=[3], reduce=[])", "pairs"),
        ("Genotype(normal=[('none', 0)], reduce=[])", "'normal'.* has 1 edges"),
        (
            "Genotype(normal=[('none', 0)] * 2, reduce=[])",
            "not a Genotype",
        ),
        (
            f"Genotype(normal=[('none', 0), ('none', 1)], reduce={PAIR})",
            "'none' must be one of: sep_conv",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=[2], reduce={PAIR})",
            r"normal_concat is \[2\].*\[1, 2\]",
        ),
    ],
)
def test_foreign_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        enas_micro(classes=10, nodes=2).spec.decode(text)


def test_some_state_is_always_left_to_return():
    for inputs in itertools.product(*map(range, (2, 2, 3, 3, 4, 4))):
        cell = [number for i in inputs for number in (i, 0)]
        assert loose_ends(cell)[-1] == 4


@pytest.mark.parametrize(
    "arguments", [{"nodes": 0}, {"channels": 0}, {"layers": -1}, {"dropout": 1.0}]
)
def test_bad_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .*must be"):
        enas_micro(classes=10, **arguments)


def test_unknown_form_is_refused():
    with pytest.raises(ValueError, match="'derived' must be one of: search, final"):
        enas_micro(classes=10).module("derived")


# ---- shared weights -----------------------------------------------------------------


def test_only_the_sampled_path_gets_gradient(shared):
    _, variables, _, run = shared
    grads = run(variables["params"], jnp.asarray(ARC))[1]["stage_2"]
    cells = (ARC[8:], ARC[:8])  # a reduction and a normal cell
    firsts, rows = edge_rows(NODES, len(cells))
    inputs = np.concatenate([cell[0::2] for cell in cells])
    ops = np.concatenate([cell[1::2] for cell in cells])
    for number, op in enumerate(("sep_conv_3x3", "sep_conv_5x5")):
        sampled = set((firsts + inputs)[ops == number])
        for leaf in grads[op].values():
            flat = np.asarray(leaf).reshape(rows, -1)
            for row in range(rows):
                assert np.any(flat[row]) if row in sampled else not np.any(flat[row])
    joins = np.asarray(grads["join"]).reshape(2, NODES + 2, -1)
    assert np.any(joins, axis=-1).tolist() == [
        [j in loose_ends(cell) for j in range(NODES + 2)] for cell in cells
    ]


def test_arcs_that_share_an_edge_read_the_same_array(shared):
    space, variables, _, run = shared
    bank = variables["params"]["stage_0"]["sep_conv_3x3"]["pointwise"]
    for arc in (ARC, OTHER):
        child = space.extract(variables, arc)["params"]["stage_0"]
        np.testing.assert_array_equal(child["sep_conv_3x3"]["pointwise"][0], bank[0])
    # Their node 3 reads another state by the same operation: another array.
    wide = variables["params"]["stage_0"]["sep_conv_5x5"]["pointwise"]
    first = int(edge_rows(NODES, 1)[0][2])
    for arc, state in ((ARC, 2), (OTHER, 1)):
        child = space.extract(variables, arc)["params"]["stage_0"]
        np.testing.assert_array_equal(
            child["sep_conv_5x5"]["pointwise"], wide[None, first + state]
        )
    before = [run(variables["params"], jnp.asarray(a))[0][1] for a in (ARC, OTHER)]
    changed = jax.tree.map(lambda a: a, variables["params"])
    changed["stage_0"]["sep_conv_5x5"]["pointwise"] = wide.at[first + 2].add(1.0)
    after = [run(changed, jnp.asarray(a))[0][1] for a in (ARC, OTHER)]
    assert np.any(before[0] != after[0])
    np.testing.assert_array_equal(before[1], after[1])


def test_extracted_child_has_only_its_own_weights(shared):
    space, variables, x, run = shared
    child = space.extract(variables, ARC)
    for stage, width in ((0, CHANNELS), (1, 2 * CHANNELS), (2, 4 * CHANNELS)):
        params = child["params"][f"stage_{stage}"]
        assert params["sep_conv_3x3"]["depthwise"].shape == (1, 2, 3, 3, width)
        assert params["sep_conv_5x5"]["pointwise"].shape == (1, 2, width, width)
    logits = run(variables["params"], jnp.asarray(ARC))[0][1]
    net, choices = space.module("search"), space.bind(ARC)
    fixed = jax.jit(lambda child: net.apply(child, choices, x))(child)
    np.testing.assert_allclose(fixed, logits, atol=1e-5 * np.abs(logits).max())


def test_masked_sum_is_the_concatenation():
    """A cell of identities, whose states are known, against ReLU-1x1-BN by hand."""
    keys = jax.random.split(jax.random.key(2))
    s0, s1 = (jax.random.normal(k, (2, 4, 4, CHANNELS)) for k in keys)
    cell = (0, 4, 0, 4, 2, 4, 2, 4)  # states 1 and 3 are loose; 3 = 2 (s0 + s0)
    stage = Stage(NODES, CHANNELS)
    traced = tuple(jnp.int32(c) for c in cell)
    params = initial(stage, (s0, s1), (traced,))["params"]
    concatenated = nn.relu(jnp.concatenate([s1, 4 * s0], axis=-1))
    y = concatenated @ jnp.concatenate([params["join"][1], params["join"][3]])
    y = (y - y.mean((0, 1, 2), keepdims=True)) * jax.lax.rsqrt(
        y.var((0, 1, 2), keepdims=True) + 1e-5
    )
    expected = y * params["scale"][0].reshape(1, 1, 1, -1) + params["bias"][0].reshape(
        1, 1, 1, -1
    )
    apply = jax.jit(lambda cell: stage.apply({"params": params}, (s0, s1), (cell,)))
    last, out = apply(traced)
    np.testing.assert_array_equal(last, s1)
    np.testing.assert_allclose(out, expected, atol=1e-5)


# ---- final form ---------------------------------------------------------------------


def test_parameters_of_a_small_final_network():
    """Two reduction cells and a normal one, of one node, C = 2; every term by hand."""
    space = enas_micro(classes=3, nodes=1, channels=2, layers=1, stem_multiplier=1)
    arc = (
        0,
        0,
        1,
        4,
        1,
        2,
        1,
        4,
    )  # normal: sep3(0) + skip(1); reduce: avg(1) + skip(1)
    stem = 3 * 3 * 3 * 2 + 2 * 2
    # Calibrations, then base, skip as a factorized reduction, state 0 that none reads.
    reduce_0 = 2 * (2 * 4 + 8) + 3 * (4 * 4 + 8)  # returns two states of 4
    reduce_1 = (2 * 8 + 16) + 3 * (8 * 8 + 16)  # the last output has 8 channels already
    # Normal: 8 to 8 halved, 16 to 8, base, sep conv twice; returns one state of 8.
    normal = (8 * 8 + 16) + (16 * 8 + 16) + (8 * 8 + 16) + 2 * (9 * 8 + 8 * 8 + 16)
    assert count(space, arc) == (stem + reduce_0 + reduce_1 + normal + 8 * 3, 0)


def test_parameters_of_random_final_networks():
    sizes = {"nodes": 3, "channels": 4, "layers": 3, "classes": 7}
    space = enas_micro(**sizes)
    for decisions in jax.vmap(space.spec.sample)(jax.random.split(jax.random.key(3))):
        decisions = np.asarray(decisions).tolist()
        assert count(space, decisions) == (expected_count(decisions, **sizes), 0)


def test_parameters_of_the_published_cell():
    published = PUBLISHED["ENAS-micro"]
    space = enas_micro(**published.arguments)
    sizes = {"nodes": 5, "channels": 36, "layers": 15, "classes": 10}
    assert expected_count(published.decisions, **sizes) == 3_894_372
    # Auxiliary head: 720 to 128, 2x2 from 128 to 768, and the classes.
    head = (720 * 128 + 2 * 128) + (4 * 128 * 768 + 2 * 768) + 768 * 10
    assert count(space, published.decisions) == (3_894_372, head)


def test_final_network_trains_with_auxiliary_head_and_dropped_paths():
    space = enas_micro(classes=3, nodes=1, channels=2, layers=1, aux_head=True)
    net, choices = space.module("final"), space.bind(np.array([0, 0, 1, 2, 0, 3, 1, 4]))
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
    variables = initial(net, choices, x, True)
    assert set(variables) == {"params", "batch_stats"}

    @jax.jit
    def train(variables, key, rate):
        return net.apply(
            *(variables, choices, x, True, rate),
            rngs={"dropout": key},
            mutable=["batch_stats", "auxiliary"],
        )

    logits, updates = train(variables, jax.random.key(1), 0.0)
    assert logits.shape == updates["auxiliary"]["logits"][0].shape == (2, 3)
    assert np.any(updates["batch_stats"]["stem_norm"]["mean"])
    dropped, _ = train(variables, jax.random.key(1), 0.9)
    assert np.any(dropped != logits)
    scored = jax.jit(lambda v: net.apply(v, choices, x, False))(variables)
    assert scored.shape == (2, 3) and np.all(np.isfinite(scored))


def test_final_network_refuses_sampled_decisions():
    space = enas_micro(classes=3, nodes=2)
    with pytest.raises(ValueError, match="fixed decisions only"):
        space.module("final").init(
            *(jax.random.key(0), space.bind(jnp.asarray(ARC)), jnp.zeros((1, 8, 8, 3)))
        )
