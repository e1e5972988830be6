"""DARTS's space: decisions, derivation, text, exact counts, partial channels, dropout.

That the bindings of the search form agree is tested with those of the other spaces.
"""

import itertools
import json
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.choice import Weighted
from child_models.cost import Cost, count
from child_models.genotype import (
    Block,
    read_genotype,
    write_genotype,
    write_genotype_json,
)
from child_models.spaces.darts import darts
from child_models.spaces.darts_final import FinalCell, layout
from child_models.spaces.darts_ops import KNOWN_OPS, OPS, SKIP
from child_models.spaces.darts_published import PUBLISHED
from child_models.spaces.darts_search import CellRun, Common, Edge, cell_runs, shuffle
from child_models.spaces.darts_spec import edge_spec, edges
from child_models.spaces.repeated import unstack
from controller.strategies.differentiable.darts import darts as darts_strategy
from controller.strategies.differentiable.pc_darts import pc_darts

TWO = (range(2, 4), range(2, 4))
SPEC = edge_spec(2, ("none", "skip_connect", "sep_conv_3x3"), TWO)
FOUR = darts(classes=10).spec


# ---- decisions ----------------------------------------------------------------------


def test_the_published_size_and_a_row_of_eight_an_edge():
    assert FOUR.size() == 1_037_664_180**2
    assert FOUR.relaxed == {"normal": (14, 8), "reduce": (14, 8)}
    assert FOUR.decisions[0].choices == OPS
    assert [d.name for d in FOUR.decisions][13:15] == ["normal/5/4>5", "reduce/2/0>2"]
    three = darts(classes=10, nodes=3, ops=OPS[3:5]).spec
    assert three.size() == (2**2 * 3 * 2**2 * 6 * 2**2) ** 2


def test_two_edges_of_a_node_are_present():
    vectors = np.array(list(itertools.product(range(3), repeat=5)))
    vectors = np.concatenate([vectors, np.tile([1, 1, 1, 1, 0], (len(vectors), 1))], 1)
    legal = vectors[jax.jit(jax.vmap(SPEC.is_legal))(vectors)]
    assert len(legal) ** 2 == SPEC.size() == (2**2 * 3 * 2**2) ** 2
    targets = np.array([target for _, target in edges(2)])
    for cell in legal[:, :5]:
        assert targets[cell != 0].tolist() == [2, 2, 3, 3]


def test_draws_are_uniform_over_architectures():
    keys = jax.random.split(jax.random.key(0), 4800)
    draws = np.asarray(jax.jit(jax.vmap(SPEC.sample))(keys))[:, :5]
    _, times = np.unique(draws, axis=0, return_counts=True)
    assert len(times) == 48
    expected = len(draws) / 48
    chi_square = np.sum((times - expected) ** 2 / expected)
    assert chi_square < 47 + 4 * math.sqrt(2 * 47)


# ---- mutation -----------------------------------------------------------------------


def one_change(before, after):
    """Whether one edge has another op, or comes from another state with its op."""
    changed = np.flatnonzero(before != after)
    targets = np.tile([target for _, target in edges(2)], 2)
    if len(changed) == 1:
        return bool(before[changed[0]] and after[changed[0]])
    (a, b) = changed
    moved = before[a] == after[b] and before[b] == after[a]
    same_node = targets[a] == targets[b] and (a < 5) == (b < 5)
    return bool(moved and same_node and before[a] * before[b] == 0)


def test_a_mutation_changes_one_op_or_one_input_and_all_are_equally_likely():
    start = jnp.array([1, 2, 1, 0, 2] * 2)
    keys = jax.random.split(jax.random.key(0), 3000)
    mutants = np.asarray(jax.jit(jax.vmap(SPEC.mutate, (0, None)))(keys, start))
    found, times = np.unique(mutants, axis=0, return_counts=True)
    # Four edges with another op, and two with another state, of each cell.
    assert len(found) == 2 * (4 + 2)
    assert all(one_change(np.asarray(start), mutant) for mutant in found)
    assert np.asarray(jax.vmap(SPEC.is_legal)(jnp.asarray(found))).all()
    expected = len(mutants) / len(found)
    chi_square = np.sum((times - expected) ** 2 / expected)
    assert chi_square < 11 + 4 * math.sqrt(2 * 11)


def test_neighbours_are_all_that_differ_in_one_thing_and_lead_everywhere():
    cells = itertools.product(range(3), repeat=5)
    whole = jnp.array([[*cell, 1, 1, 1, 1, 0] for cell in cells])
    whole = whole[jax.jit(jax.vmap(SPEC.is_legal))(whole)]
    there = np.asarray(jax.jit(jax.vmap(SPEC.neighbors))(whole))
    move = jax.jit(jax.vmap(jax.vmap(SPEC.move, (None, 0)), (0, None)))
    ends = np.asarray(move(whole, jnp.arange(SPEC.num_moves)))
    vectors = [tuple(row) for row in whole.tolist()]
    near = {
        vector: [tuple(end) for end in ends[i][there[i]].tolist()]
        for i, vector in enumerate(vectors)
    }
    for vector, others in near.items():
        assert len(set(others)) == len(others)  # each move to one of its own
        others = {other for other in others if other[5:] == vector[5:]}
        close = [v for v in vectors if 1 <= np.sum(np.not_equal(v, vector)) <= 2]
        assert others == {v for v in close if one_change(*map(np.array, (vector, v)))}
    reached, new = set(), {vectors[0]}
    while new:
        reached |= new
        new = {v for u in new for v in near[u] if v in near} - reached
    assert reached == set(vectors) and len(reached) == 48


# ---- derivation ---------------------------------------------------------------------


def weights_of(rows, reduce=None):
    return {"normal": jnp.array(rows), "reduce": jnp.array(reduce or rows)}


def test_a_node_keeps_its_two_strongest_edges():
    rows = [[0.0, 0.3, 0.7], [0.0, 0.6, 0.4]] + [
        [0.0, 0.5, 0.1],
        [0.0, 0.1, 0.4],
        [0.0, 0.2, 0.6],
    ]
    derived = jax.jit(SPEC.derive)(weights_of(rows))
    assert derived.tolist() == [2, 1, 1, 0, 2] * 2


def test_none_counts_neither_as_an_op_nor_against_one():
    rows = [[0.9, 0.06, 0.04], [0.9, 0.04, 0.06]] + [
        [0.2, 0.41, 0.39],
        [0.98, 0.02, 0.0],
        [0.9, 0.01, 0.09],
    ]
    assert SPEC.derive(weights_of(rows)).tolist() == [1, 2, 1, 0, 2] * 2
    dominant = jnp.zeros((14, 8)).at[:, 0].set(1.0)
    derived = FOUR.derive({"normal": dominant, "reduce": dominant})
    assert FOUR.validate(derived)
    assert np.count_nonzero(derived) == 16


def published_derivation(rows, nodes):
    """DARTS's own loop, in plain Python: (op, source) pairs of the kept edges."""
    kept, first = set(), 0
    for n in range(2, nodes + 2):
        table = rows[first : first + n]
        ops = range(1, len(rows[0]))
        order = sorted(range(n), key=lambda j: -max(table[j][k] for k in ops))
        for j in order[:2]:
            best = None
            for k in ops:
                if best is None or table[j][k] > table[j][best]:
                    best = k
            kept.add((n, j, best))
        first += n
    return kept


def test_derivation_is_that_of_the_authors_code_with_ties():
    derive = jax.jit(FOUR.derive)
    rng = np.random.default_rng(0)
    for _ in range(30):
        tables = rng.integers(0, 4, (2, 14, 8)) / 8  # of few values, often equal
        derived = np.asarray(
            derive({"normal": jnp.array(tables[0]), "reduce": jnp.array(tables[1])})
        )
        for cell, table in zip((derived[:14], derived[14:]), tables, strict=True):
            found = {
                (target, source, op)
                for (source, target), op in zip(edges(4), cell.tolist(), strict=True)
                if op
            }
            assert found == published_derivation(table.tolist(), 4)


def test_derive_inverts_one_hot():
    for key in jax.random.split(jax.random.key(1), 5):
        decisions = FOUR.sample(key)
        assert np.array_equal(FOUR.derive(FOUR.one_hot(decisions)), decisions)


# ---- text ---------------------------------------------------------------------------

V2 = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0),"
    " ('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0),"
    " ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],"
    " reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2),"
    " ('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2),"
    " ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
)
PAIR = "[('skip_connect', 0), ('skip_connect', 1)]"


def test_text_round_trips_as_a_genotype_and_as_json():
    decisions = FOUR.decode(V2)
    assert FOUR.decode(FOUR.encode(decisions)) == decisions
    assert FOUR.encode(decisions).endswith("reduce_concat=range(2, 6))")
    found = read_genotype(V2)
    assert read_genotype(write_genotype(found)) == found
    text = write_genotype_json(found)
    assert read_genotype(text) == found and FOUR.decode(text) == decisions
    for key in jax.random.split(jax.random.key(2), 3):
        decisions = FOUR.validate(FOUR.sample(key))
        assert FOUR.decode(FOUR.encode(decisions)) == decisions


V2_NESTED = (  # as khanrc/pt.darts prints it
    "Genotype(\n    normal=[[('sep_conv_3x3', 0), ('sep_conv_3x3', 1)],\n"
    "            [('sep_conv_3x3', 0), ('sep_conv_3x3', 1)],\n"
    "            [('sep_conv_3x3', 1), ('skip_connect', 0)],\n"
    "            [('skip_connect', 0), ('dil_conv_3x3', 2)]],\n"
    "    normal_concat=range(2, 6),\n"
    "    reduce=[[('max_pool_3x3', 0), ('max_pool_3x3', 1)],\n"
    "            [('skip_connect', 2), ('max_pool_3x3', 1)],\n"
    "            [('max_pool_3x3', 0), ('skip_connect', 2)],\n"
    "            [('skip_connect', 2), ('max_pool_3x3', 1)]],\n"
    "    reduce_concat=range(2, 6))"
)
CODE = (
    "from collections import namedtuple\n\n"
    "Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')\n"
    f"\nDARTS_V2 = {V2}  # (2.76 %\n\nDARTS = DARTS_V2\n"
)


@pytest.mark.parametrize(
    "text",
    [
        f"DARTS_V2 = {V2}",
        f"DARTS_V2 = {V2_NESTED}\n",
        f"2019-12-30 20:37:55,624 genotype = {V2}",
        f"best: gt.{V2};",
        CODE,
        f"{V2}\n{V2_NESTED}",
        V2.replace("range(2, 6)", "list(range(2, 6))"),
        V2.replace("=[(", " = [\n  (")
        .replace("), (", "),\n  (")
        .replace(")]", "),\n]"),
        repr({k: getattr(read_genotype(V2), k) for k in ("normal", "reduce")}),
        json.dumps(read_genotype(V2)),
        repr(tuple(read_genotype(V2_NESTED))),
    ],
    ids=[
        "named",
        "nested",
        "log",
        "module",
        "code",
        "twice",
        "list",
        "lines",
        "dict",
        "list-json",
        "tuple",
    ],
)
def test_published_forms_of_one_cell_are_read(text):
    assert FOUR.decode(text) == FOUR.decode(V2)


def test_nested_pairs_are_read_from_json_too():
    found = read_genotype(V2)._asdict()
    for name in ("normal", "reduce"):
        pairs = found[name]
        found[name] = list(zip(pairs[0::2], pairs[1::2], strict=True))
    assert FOUR.decode(json.dumps(found)) == FOUR.decode(V2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", r"not a Genotype\(...\): 'nonsense'"),
        ("{nonsense", "not a JSON genotype"),
        (f"foo(normal={PAIR}, reduce={PAIR})", "not a Genotype"),
        (f"Genotype(normal={'-' * 3000}1, reduce={PAIR})", "not a Genotype"),
        (
            f"Genotype(normal={PAIR}, reduce={PAIR.replace('1', '0.9')})",
            "'reduce' .* list pairs",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=range(2, 10**10), reduce={PAIR})",
            "not a Genotype",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=range(9999999999), reduce={PAIR})",
            "normal_concat of the Genotype must list states",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=[2.7], reduce={PAIR})",
            "normal_concat of the Genotype must list states",
        ),
        (f"Genotype(normal={PAIR})", "the Genotype lacks reduce"),
        (f"Genotype(normal={PAIR}, reduce=[3])", "'reduce' .* list pairs"),
        (
            f"Genotype(normal={PAIR}, reduce={PAIR}, concat=[2])",
            "has concat; it takes normal, normal_concat",
        ),
        (
            f"Genotype(normal={PAIR[:-1]}, ('skip_connect', 1)], reduce={PAIR})",
            "'normal' of the Genotype has 3 edges; it must have two a node",
        ),
        (
            f"Genotype(normal={PAIR[:-1]}] * 2, reduce={PAIR})",
            "not a Genotype",
        ),
        (
            f"Genotype(normal={PAIR}, reduce=[*{PAIR}])",
            "not a Genotype",
        ),
        (f"Genotype(normal={PAIR}, reduce={PAIR[:-1]}", "not a Genotype"),
        (
            f"Genotype(normal=[[('skip_connect', 0)] , {PAIR}], reduce={PAIR})",
            "node 2 of cell 'normal' has 1 edges; it must have two",
        ),
        (
            f"Genotype(normal={PAIR}, reduce={PAIR[:-1]}, *{PAIR}])",
            "not a Genotype",
        ),
        (
            f"Genotype(normal={PAIR}, reduce=[{PAIR}, {PAIR}])",
            "'normal' of the Genotype has 2 edges and cell 'reduce' 4; both must",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=[2, 3], reduce={PAIR})",
            r"normal_concat of the Genotype is \[2, 3\]; .* the states 0 to 2",
        ),
        (
            f"A = Genotype(normal={PAIR}, reduce={PAIR})\n"
            f"B = Genotype(normal={PAIR}, reduce={PAIR.replace('skip', 'other')})",
            "the text holds 2 Genotypes that differ, A, B; give one of them",
        ),
        (f"DARTS = Genotype(normal={PAIR})", "the Genotype lacks reduce"),
        (
            f"x = Genotype(normal={PAIR}, reduce={PAIR.replace('skip_', 'x_')})",
            "op 'x_connect' of cell 'reduce' must be one of: max_pool_3x3",
        ),
        (f"[{PAIR}, [2], {PAIR}]", "not a JSON genotype"),
        ("[[['a', 0], [0], 3, 4], 2", "not a JSON genotype"),
        (
            f"Genotype(normal={PAIR}, reduce=[('skip_connect', 0), ('none', 2)])",
            "node 2 of cell 'reduce' takes 'none' of state 2; .* states 0 to 1",
        ),
        (
            f"Genotype(normal={PAIR}, reduce=[('skip_connect', 0), ('conv_9x9', 1)])",
            "op 'conv_9x9' of cell 'reduce' must be one of: max_pool_3x3, avg_pool",
        ),
        (
            f"Genotype(normal={PAIR}, reduce=[('skip_connect', 0), ('none', 1)])",
            "op 'none' of cell 'reduce' must be one of: max_pool_3x3",
        ),
        (
            f"Genotype(normal={PAIR}, reduce=[('skip_connect', 0)] * 2)",
            "not a Genotype",
        ),
        (
            f"Genotype(normal={PAIR}, reduce={PAIR.replace('1', '0')})",
            "node 2 of cell 'reduce' takes state 0 twice",
        ),
        (
            f"Genotype(normal={PAIR}, normal_concat=[1], reduce={PAIR})",
            r"normal_concat is \[1\]; this space returns the states \[2\]",
        ),
    ],
)
def test_foreign_text_is_refused_in_one_line(text, message):
    with pytest.raises(ValueError, match=message) as mistake:
        darts(classes=10, nodes=1).spec.decode(text)
    assert "\n" not in str(mistake.value)


def test_another_number_of_nodes_is_told():
    with pytest.raises(
        ValueError, match="'normal' .* has 8 edges; one of 3 nodes has 6"
    ):
        darts(classes=10, nodes=3).spec.decode(V2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cells": 0}, "cells is 0; it must be at least 1"),
        ({"stem": "mnist"}, "stem is 'mnist'"),
        ({"ops": ("none",)}, "ops are none; one at least must not be 'none'"),
        ({"stem": "imagenet", "channels": 1}, "channels is 1; .* at least 2"),
        ({"ops": ()}, "ops are missing; one at least must not be 'none'"),
        ({"ops": ("none", "conv_9x9")}, "ops are none, conv_9x9; .* different ones of"),
        ({"ops": ("skip_connect",) * 2}, "must be different ones of: none, max_pool"),
        ({"partial_channels": 3}, "partial_channels is 3; .* divide the 16 channels"),
        ({"skip_dropout": 1.0}, "skip_dropout is 1.0"),
        ({"normal_concat": (6,)}, r"normal_concat is \[6\]; .* states 0 to 5"),
        ({"reduce_concat": (1, 2)}, r"reduce_concat is \[1, 2\]; .* states 2 to 5"),
    ],
)
def test_sizes_that_no_network_has_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message) as mistake:
        darts(classes=10, **arguments)
    assert "\n" not in str(mistake.value)


# ---- counts of the final form -------------------------------------------------------


def counted(space, decisions, image=(32, 32, 3)):
    return count(space.module("final"), space.bind(decisions), image)


def op_cost(op, c, strided, side):
    """(params, multiply-adds) of an op on maps that come out with that side."""
    if op in ("max_pool_3x3", "avg_pool_3x3") or (op == SKIP and not strided):
        return 0, 0
    if op == SKIP:
        return c * c + 2 * c, c * c * side**2
    if op == "conv_7x1_1x7":
        first = side * side * (2 if strided else 1)  # rows are not strided yet
        return 14 * c * c + 2 * c, 7 * c * c * (first + side**2)
    k, times = int(op[-1]), 2 if op.startswith("sep") else 1
    weights = k * k * c + c * c
    return times * (weights + 2 * c), times * weights * side**2


def expected_cost(genotype, channels, cells, classes, side=32, stem="cifar", colours=3):
    """The counts of a network from the table of its ops, written out."""
    params, macs, c = 0, 0, channels

    def conv(weights, features, side):
        nonlocal params, macs
        params, macs = params + weights + 2 * features, macs + weights * side**2

    if stem == "cifar":
        conv(9 * colours * 3 * c, 3 * c, side)
        widths, sides, halved = [3 * c, 3 * c], [side, side], False
    else:
        conv(9 * colours * (c // 2), c // 2, side // 2)
        conv(9 * (c // 2) * c, c, side // 4)
        conv(9 * c * c, c, side // 8)
        widths, sides, halved = [c, c], [side // 4, side // 8], True
    auxiliary = 0
    for i in range(cells):
        reduces = i in (cells // 3, 2 * cells // 3)
        c *= 1 + reduces
        conv(widths[0] * c, c, sides[1])  # at half of sides[0] if that was not reduced
        conv(widths[1] * c, c, sides[1])
        assert sides[0] == sides[1] * (1 + halved)
        pairs, concat = genotype.cell("reduce" if reduces else "normal")
        out = sides[1] // (1 + reduces)
        for op, state in pairs:
            cost = op_cost(op, c, reduces and state < 2, out)
            params, macs = params + cost[0], macs + cost[1]
        widths, sides = [widths[1], len(concat) * c], [sides[1], out]
        halved = reduces
        if i == 2 * cells // 3:
            size = (out - min(out, 5)) // (3 if stem == "cifar" else 2) + 1
            head = widths[1] * 128 + 2 * 128 + 128 * 768 * size**2 + 769 * classes
            auxiliary = head + (2 * 768 if stem == "cifar" else 0)
    return Cost(
        params + widths[1] * classes + classes, auxiliary, macs + widths[1] * classes
    )


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("DARTS_V2", 3_349_342),
        ("PC_DARTS_cifar", 3_634_678),
        ("PDARTS", 3_433_798),  # chenxin061/pdarts, issue 7
    ],
)
def test_published_networks_have_their_published_size(name, params):
    known = PUBLISHED[name]
    cost = counted(darts(**known.arguments), known.decisions)
    assert (cost.params, cost.params_aux) == (params, 476_426)


@pytest.mark.parametrize(
    ("name", "params"), [("DARTS_V2", 2_858), ("PC_DARTS_cifar", 13_406)]
)
def test_small_published_networks(name, params):
    known = PUBLISHED[name]
    sizes = {"channels": 4, "cells": 3, "aux_head": False}
    cost = counted(darts(**(known.arguments | sizes)), known.decisions)
    assert (cost.params, cost.params_aux) == (params, 0)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_published_cells_cost_what_their_ops_do(name):
    known, sizes = PUBLISHED[name], {"channels": 6, "cells": 4, "classes": 7}
    space = darts(**(known.arguments | sizes | {"stem": "cifar"}))
    genotype = read_genotype(space.spec.encode(known.decisions))
    assert counted(space, known.decisions) == expected_cost(genotype, 6, 4, 7)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(PUBLISHED))
@pytest.mark.parametrize(
    ("channels", "cells", "stem", "side", "classes"),
    [
        (36, 20, "cifar", 32, 10),
        (48, 14, "imagenet", 224, 1000),
        (16, 8, "cifar", 32, 100),
        (10, 11, "cifar", 28, 10),
        (4, 3, "cifar", 32, 10),
        (6, 2, "imagenet", 160, 5),
    ],
)
def test_published_cells_cost_that_at_every_size(
    name, channels, cells, stem, side, classes
):
    known = PUBLISHED[name]
    sizes = {"channels": channels, "cells": cells, "stem": stem, "classes": classes}
    space = darts(**(known.arguments | sizes))
    genotype = read_genotype(space.spec.encode(known.decisions))
    found = counted(space, known.decisions, (side, side, 3))
    assert found == expected_cost(genotype, side=side, **sizes)


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_random_genotypes_cost_what_their_ops_do(stem):
    side = 32 if stem == "cifar" else 224
    for i, cells in enumerate((1, 5)):
        sizes = {"channels": 4 + 2 * i, "cells": cells, "classes": 10, "stem": stem}
        space = darts(nodes=3, ops=KNOWN_OPS, aux_head=True, **sizes)
        decisions = space.spec.validate(space.spec.sample(jax.random.key(i)))
        genotype = read_genotype(space.spec.encode(decisions))
        found = counted(space, decisions, (side, side, 3))
        assert found == expected_cost(genotype, side=side, **sizes)


def test_the_search_network_has_its_published_size():
    space = darts(classes=10, channels=16, cells=8)
    net, choices = space.module("search"), space.bind(jnp.zeros(28, jnp.int32))
    shapes = jax.eval_shape(
        lambda x: net.init(jax.random.key(0), choices, x, True),
        jnp.ones((2, 32, 32, 3)),
    )
    sizes = [math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])]
    assert sum(sizes) == 1_930_618


def test_an_input_may_be_read_twice_where_nodes_decide_for_pairs():
    space = darts(
        classes=3,
        nodes=1,
        ops=KNOWN_OPS,
        pairs=True,
        channels=2,
        cells=3,
        normal_concat=(0, 2),
    )
    text = (
        "Genotype(normal=[('sep_conv_7x7', 0), ('sep_conv_7x7', 0)],"
        " normal_concat=[0, 2], reduce=[('conv_7x1_1x7', 1), ('conv_7x1_1x7', 1)],"
        " reduce_concat=range(2, 3))"
    )
    decisions = space.spec.decode(text)
    assert space.spec.encode(decisions) == text and space.bindings == {"fixed"}
    cost = counted(space, decisions)
    assert cost == expected_cost(read_genotype(text), 2, 3, 3)._replace(params_aux=0)


def test_final_paths_are_dropped_by_sample_and_identities_never():
    layer = layout(3, 4, "cifar")[0]
    cell = FinalCell(layer, OPS, (2,), train=True)
    x = jax.random.normal(jax.random.key(0), (64, 4, 4, 4))
    skip, pool = OPS.index(SKIP), OPS.index("avg_pool_3x3")
    pair = [Block((0, 1), (skip, pool))]
    variables = cell.init(jax.random.key(1), pair, x, x, 0.0)

    def node(ops, rate):
        block, rngs = [Block((0, 1), ops)], {"dropout": jax.random.key(2)}
        return cell.apply(variables, block, x, x, rate, rngs=rngs)

    np.testing.assert_array_equal(node((skip, skip), 0.25), node((skip, skip), 0.0))
    none = node((skip, OPS.index("none")), 0.0)
    path = np.asarray(node((skip, pool), 0.0) - none)
    left = np.asarray(node((skip, pool), 0.25) - none)
    dropped = np.all(left == 0, axis=(1, 2, 3))
    assert 0 < dropped.sum() < 32
    np.testing.assert_allclose(left[~dropped], path[~dropped] / 0.75, atol=1e-5)


# ---- layout -------------------------------------------------------------------------


def test_reductions_stand_at_one_and_two_thirds():
    def kinds(cells):
        return "".join(layer.cell[0] for layer in layout(cells, 4, "cifar"))

    assert kinds(8) == "nnrnnrnn" and kinds(5) == "nrnrn" and kinds(2) == "rr"
    assert [layer.features for layer in layout(5, 4, "cifar")] == [4, 8, 8, 16, 16]
    assert [layer.after_reduction for layer in layout(3, 4, "imagenet")] == [1, 0, 1]


def test_cells_in_a_row_that_have_one_shape_are_found():
    layers = layout(17, 16, "cifar")
    concats = {"normal": range(2, 6), "reduce": range(2, 6)}
    runs = cell_runs(layers, [48, 48], concats)
    assert [n for _, n in runs] == [1, 1, 3, 1, 1, 4, 1, 1, 4]
    assert sum(([layer] * n for layer, n in runs), []) == layers


# ---- the search form ----------------------------------------------------------------

CHANNELS = 4


def edge_of(ops, strides, partial, train=True):
    common = Common(1, ops, partial, train, False, False, jnp.float32)
    return Edge((common, CHANNELS, strides))


def through(edge, choice, x, rate=None, rngs=None):
    """What an edge from state 0 adds to node 1."""
    states, step = jnp.stack([x, 0 * x]), (jnp.int32(0), jnp.int32(1), choice)
    half = x[:, ::2, ::2] if edge.common[2] == 2 else x
    nodes = jnp.stack([0 * half] * 2)

    def run(module):
        return module((states, nodes, rate), step)[0][1][1]

    return nn.apply(run, edge)({}, rngs=rngs)


IMAGES = jax.random.normal(jax.random.key(0), (2, 5, 5, CHANNELS))


def test_a_mixed_edge_is_the_weighted_sum_of_its_ops():
    edge = edge_of(("none", "skip_connect"), 1, 1)
    choice = Weighted(jnp.array([0.25, 0.5]), jnp.array([True, True]))
    np.testing.assert_allclose(through(edge, choice, IMAGES), 0.5 * IMAGES, rtol=1e-6)


LIGHT = ("none", "skip_connect", "max_pool_3x3", "avg_pool_3x3")


def test_a_mixed_edge_of_large_one_hot_logits_is_its_single_op():
    edge = edge_of(LIGHT, 1, 1)
    mixed = jax.jit(lambda w: through(edge, Weighted(w, None), IMAGES))
    single = jax.jit(lambda op: through(edge, op, IMAGES))
    for op in range(4):
        weights = jax.nn.softmax(60.0 * jax.nn.one_hot(op, 4))
        np.testing.assert_allclose(mixed(weights), single(jnp.int32(op)), atol=1e-6)


def test_at_k_of_1_and_equal_edges_pc_darts_is_darts_over_a_nodes_inputs():
    spec = darts(classes=10, ops=LIGHT).spec
    keys, found = jax.random.split(jax.random.key(3)), {}
    alpha = {
        cell: jax.random.normal(key, (14, 4))
        for cell, key in zip(spec.groups, keys, strict=True)
    }
    beta = {cell: jnp.zeros(14) for cell in alpha}
    for factory, params in (
        (darts_strategy, alpha),
        (pc_darts, {"alpha": alpha, "beta": beta}),
    ):
        strategy = factory(spec)
        state = strategy.init(keys[0]).replace(params=params)
        proposal, _ = strategy.propose(keys[1], state, 1)
        found[factory] = proposal.relaxed["weights"]
    edge = edge_of(LIGHT, 1, 1)
    mixed = jax.jit(lambda w: through(edge, Weighted(w, None), IMAGES))
    for e, fan in ((0, 2), (4, 3), (5, 4), (13, 5)):
        plain, shared = (
            mixed(found[f]["normal"][e]) for f in (darts_strategy, pc_darts)
        )
        np.testing.assert_allclose(shared, plain / fan, atol=1e-6)


def test_the_shuffle_is_the_permutation_of_pc_darts():
    moved = np.asarray(shuffle(jnp.arange(12.0)[None], 4)[0]).astype(int)
    for c in range(12):
        assert moved[(c % 3) * 4 + c // 3] == c
    np.testing.assert_array_equal(shuffle(IMAGES, 1), IMAGES)


@pytest.mark.parametrize("strides", [1, 2])
def test_partial_channels_pass_the_rest_by(strides):
    """K = 2: channels 0 and 1 meet "none", which is all that 2 and 3 do not."""
    edge = edge_of(("none", "avg_pool_3x3"), strides, 2)
    choice = Weighted(jnp.array([0.25, 0.5]), jnp.array([True, False]))
    found = np.asarray(through(edge, choice, IMAGES))
    rest = np.asarray(IMAGES[..., 2:])
    if strides == 2:  # the maximum of 2x2 pixels, or of those at the edge
        padded = np.pad(rest, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="edge")
        rest = padded.reshape(2, 3, 2, 3, 2, 2).max((2, 4))
    np.testing.assert_allclose(found[..., 1::2], 0.25 * rest, rtol=1e-6)
    assert np.all(found[..., 0::2] == 0)
    sampled = np.asarray(through(edge, jnp.int32(0), IMAGES))
    np.testing.assert_array_equal(sampled[..., 1::2], rest)


@pytest.mark.slow
def test_bindings_agree_with_partial_channels(quick_jit):
    """The fixed child, too, passes the rest of the channels by at every edge."""
    ops = ("none", "skip_connect", "dil_conv_3x3")
    sizes = {"nodes": 2, "channels": 4, "cells": 3, "partial_channels": 2}
    space = darts(classes=3, ops=ops, **sizes)
    net, x = space.module("search"), jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    decisions = space.spec.sample(jax.random.key(1))

    @quick_jit
    def logits(variables, decisions):
        return net.apply(variables, space.bind(decisions), x, True)

    init = quick_jit(lambda key: net.init(key, space.bind(decisions), x, True))
    variables = {"params": init(jax.random.key(2))["params"]}
    expected = logits(variables, decisions)
    relaxed = {"weights": space.spec.one_hot(decisions), "live": None}
    fixed = space.bind(np.asarray(decisions))
    child = space.extract(variables, np.asarray(decisions))
    alone = quick_jit(lambda child: net.apply(child, fixed, x, True))(child)
    for found in (logits(variables, relaxed), alone):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


def test_skips_are_dropped_by_element_in_training_only():
    images = jnp.ones((4, 8, 8, CHANNELS))
    ops, rngs = ("none", "skip_connect"), {"dropout": jax.random.key(1)}
    one_hot = Weighted(jnp.array([0.0, 1.0]), None)

    @jax.jit
    def dropped(rate):
        return through(edge_of(ops, 1, 1), one_hot, images, rate, rngs)

    found = np.asarray(dropped(0.25))
    np.testing.assert_allclose(np.unique(found), [0, 1 / 0.75], rtol=1e-6)
    assert abs((found == 0).mean() - 0.25) < 4 * math.sqrt(0.25 * 0.75 / found.size)
    np.testing.assert_array_equal(dropped(0.0), images)
    for still in (
        through(edge_of(ops, 1, 1, train=False), one_hot, images, 0.9, rngs),
        through(edge_of(ops, 1, 1), one_hot, images, 0.9),
    ):
        np.testing.assert_array_equal(still, images)


def test_a_loop_over_cells_is_the_cells_in_turn():
    common = Common(
        1, ("none", SKIP, "dil_conv_3x3"), 1, True, False, False, jnp.float32
    )
    layer = layout(8, 4, "cifar")[0]
    run = CellRun((common, layer, range(2, 3)), 2)
    images = jax.random.split(jax.random.key(0))
    carry = (*(jax.random.normal(key, (2, 4, 4, 4)) for key in images), None)
    ops = jnp.array([1, 2])
    variables = jax.jit(run.init)(jax.random.key(1), carry, ops)
    looped = jax.jit(run.apply)(variables, carry, ops)
    wanted = jax.eval_shape(lambda: run.init(jax.random.key(1), carry, [1, 2]))
    child = {"params": unstack(variables["params"], wanted["params"])}
    assert set(child["params"]) == {"cells_0", "cells_1"}
    in_turn = jax.jit(lambda child: run.apply(child, carry, [1, 2]))(child)
    for state in (0, 1):
        np.testing.assert_allclose(looped[state], in_turn[state], atol=1e-5)


def test_the_final_form_takes_fixed_decisions_only():
    space = darts(classes=3, nodes=1, channels=2, cells=1)
    with pytest.raises(ValueError, match="takes fixed decisions only"):
        space.module("final").init(
            *(jax.random.key(0), space.bind(jnp.array([1, 1] * 2))),
            jnp.zeros((1, 8, 8, 3)),
        )
