"""NAS-Bench-101: canonical cells, and record files that are encoded by hand here."""

import base64
import itertools
import json
import math
import struct
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from child_models.evaluators.tabular import lookup
from child_models.nasbench101 import (
    EDGES,
    SPEC,
    UNIQUE,
    canonical,
    cell,
    from_nasbench101,
    spec_of,
)
from child_models.spaces import SPACES
from child_models.tables import read_table, row_index, rows_of
from child_models.tf_record import double, fields
from child_models.types import check_sampled
from controller.types import Proposal
from launch.compare import compare
from launch.tabular import convert, summary

C3, C1, POOL = "conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3"
canonical_of = jax.jit(jax.vmap(canonical))

# ---- encoding -----------------------------------------------------------------------


def varint(number):
    parts = []
    while number > 127:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def encoded(number, value):
    """A field: int, float (a double), or bytes."""
    if isinstance(value, int):
        return varint(number * 8) + varint(value)
    if isinstance(value, float):
        return varint(number * 8 + 1) + struct.pack("<d", value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def evaluation(epoch, seconds, train, validation, test):
    numbers = enumerate((epoch, seconds, train, validation, test), 1)
    return b"".join(encoded(k, x) for k, x in numbers) + encoded(6, b"/ckpt")


def record(name, epochs, adjacency, ops, validation, test, seconds):
    stages = [(0.0, 0.0), (epochs / 2, 0.5), (float(epochs), 1.0)]
    message = b"".join(
        encoded(
            1, evaluation(epoch, share * seconds, 1.0, share * validation, share * test)
        )
        for epoch, share in stages
    )
    message += encoded(2, 8_000_000) + encoded(3, 2 * seconds)
    metrics = base64.b64encode(message).decode()
    return json.dumps([name, epochs, adjacency, ",".join(ops), metrics]).encode()


def framed(data):
    return struct.pack("<Q", len(data)) + bytes(4) + data + bytes(4)


CHAIN = ("a", "0100001000010000", ("input", C3, POOL, "output"))
ALONE = ("b", "0100", ("input", "output"))


@pytest.fixture
def file(tmp_path):
    def write(*rows, cut=None):
        path = tmp_path / "bench.tfrecord"
        path.write_bytes(b"".join(framed(record(*row)) for row in rows)[:cut])
        return str(path)

    return write


# ---- cells --------------------------------------------------------------------------


def draw(count, seed=0):
    rng = np.random.default_rng(seed)
    edges = rng.random((count, 21)) < 0.4
    return np.concatenate([edges, rng.integers(0, 3, (count, 5))], axis=1).astype(
        "int32"
    )


def test_the_space_has_edges_and_ops():
    assert SPEC.length == 26 and SPEC.size() < 3**5 * 695_860  # of 9 edges at most
    full = jnp.array([1] * 9 + [0] * 17)
    assert SPEC.legal(full, 9).tolist() == [True, False, False]
    assert SPEC.legal(full, 8).tolist() == [True, True, False]
    assert SPEC.legal(full, 21).tolist() == [True, True, True]
    # Eight edges that leave the output out: the ninth must lead to it.
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 2), (1, 3), (1, 4)]
    most = jnp.array([int(edge in edges) for edge in EDGES] + [0] * 5)
    assert SPEC.legal(most, EDGES.index((1, 5))).tolist() == [True, False, False]
    assert SPEC.legal(most, EDGES.index((5, 6))).tolist() == [False, True, False]


@pytest.mark.parametrize("nodes", [3, 4, 5])
def test_legal_vectors_are_all_that_have_a_path_and_few_edges(nodes):
    spec = spec_of(nodes)
    legal = np.array(list(spec.enumerate()), np.int32)
    every = itertools.product(*map(range, spec.num_choices))
    every = np.array(list(every), np.int32)
    forms, is_cell = jax.jit(jax.vmap(partial(canonical, nodes=nodes)))(every)
    few = every[:, : -(nodes - 2)].sum(axis=1) <= 9
    np.testing.assert_array_equal(legal, every[np.asarray(is_cell) & few])
    assert spec.size() == len(legal)
    forms = np.unique(np.asarray(forms)[np.asarray(is_cell) & few], axis=0)
    assert len(forms) == spec.rule.architectures(spec) == UNIQUE[nodes]


def test_draws_and_mutants_are_cells_and_sets_of_edges_are_equally_likely():
    keys = jax.random.split(jax.random.key(0), 600)
    drawn = jax.jit(jax.vmap(SPEC.sample))(keys)
    mutants = jax.jit(jax.vmap(SPEC.mutate))(keys, drawn)
    for cells in (drawn, mutants):
        assert canonical_of(cells)[1].all() and cells[:, :21].sum(1).max() == 9
    with_first = sum(math.comb(20, k) for k in range(9)) / 695_860
    assert abs(float(drawn[:, 0].mean()) - with_first) < 4 * 0.5 / 600**0.5
    # Of three nodes: edges 0-1, 0-2, 1-2, each taken or not where a path remains.
    edges = jax.jit(jax.vmap(spec_of(3).sample))(jax.random.split(keys[0], 4000))
    found = np.bincount(edges[:, :3] @ np.array([4, 2, 1]), minlength=8) / 4000
    expected = [0, 0, 0.25, 0.25, 0, 0.25, 0.125, 0.125]
    np.testing.assert_allclose(found, expected, atol=4 * 0.43 / 4000**0.5)


def test_isomorphic_cells_have_one_canonical_form():
    cells = draw(300)
    first, is_cell = canonical_of(cells)
    assert 50 < int(is_cell.sum()) < 250
    again, still = canonical_of(first)
    np.testing.assert_array_equal(again, first)
    matrices = np.zeros((300, 7, 7), int)
    matrices[:, *np.array(EDGES).T] = cells[:, :21]
    rng = np.random.default_rng(1)
    moved = cells.copy()
    for k, matrix in enumerate(matrices):
        for order in rng.permutation(list(itertools.permutations(range(1, 6))))[:60]:
            order = np.array([0, *order, 6])
            turned = matrix[np.ix_(order, order)]
            if not np.tril(turned).any():
                moved[k, :21] = turned[*np.array(EDGES).T]
                moved[k, 21:] = cells[k, 21:][order[1:-1] - 1]
    assert np.any(moved != cells, axis=1).sum() > 50
    others, valid = canonical_of(moved)
    np.testing.assert_array_equal(valid, is_cell)
    np.testing.assert_array_equal(others, first)


def test_nodes_on_no_path_count_for_nothing():
    alone = np.array(cell(ALONE[1], "input,output"), np.int32)
    dangling = alone.copy()
    dangling[[EDGES.index((0, 2)), EDGES.index((3, 6)), 21]] = 1
    (a, b), valid = canonical_of(np.stack([alone, dangling]))
    np.testing.assert_array_equal(a, b)
    assert valid.all() and a.sum() == 1
    nowhere = np.zeros(26, np.int32)
    nowhere[EDGES.index((0, 2))] = 1
    assert not canonical_of(nowhere[None])[1].any()


@pytest.mark.parametrize(
    "adjacency, operations, message",
    [
        ("0100", f"input,{C3},output", "is no square matrix of 2 to 7 nodes"),
        ("010001000", "input,conv5x5,output", "ops are input, some of conv3x3"),
        (
            "010101000",
            f"input,{C3},output",
            "something else than edges that go forward",
        ),
    ],
)
def test_other_cells_are_refused(adjacency, operations, message):
    with pytest.raises(ValueError, match=message):
        cell(adjacency, operations)


# ---- tables -------------------------------------------------------------------------

SMALL = spec_of(4)


def small_table(path, cells=slice(None), **columns):
    """Of all cells of four nodes at most, whose reward is the number of edges."""
    legal = np.array(list(SMALL.enumerate()), np.int32)
    forms = jax.jit(jax.vmap(partial(canonical, nodes=4)))(legal)[0]
    rows = np.unique(np.asarray(forms), axis=0)[::-1][cells]
    edges = 10.0 * rows[:, :6].sum(axis=1)
    arrays = {"decisions": rows, "reward_toy": edges, "value_toy": edges + 1}
    np.savez(path, **arrays | {"cost_toy": np.full(len(rows), 2.0)} | columns)
    return str(path)


def test_every_vector_finds_the_row_of_its_cell(tmp_path):
    table = read_table(small_table(tmp_path / "t.npz"), SMALL)
    index = row_index(table.decisions, SMALL)
    legal = np.array(list(SMALL.enumerate()), np.int32)
    rows = rows_of(index, SMALL, legal[:, None])[:, 0]
    forms = jax.jit(jax.vmap(partial(canonical, nodes=4)))(legal)[0]
    np.testing.assert_array_equal(table.decisions[rows], forms)
    evaluator = lookup(SMALL, table, "toy")
    nowhere, outside = np.zeros(8, np.int32), np.full(8, 9, np.int32)
    asked = np.stack([legal[7], nowhere, outside])
    _, trial = jax.jit(evaluator.evaluate)(
        jax.random.key(0), (), evaluator.data, Proposal(asked, jnp.zeros(3))
    )
    assert trial.valid.tolist() == [True, False, False]
    assert trial.reward[0] == pytest.approx(forms[7, :6].sum() / 10)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"cells": slice(1, None)}, "has 90 architectures, the space 91"),
        ({"cells": [*range(91), 5]}, "has an architecture twice, in rows 5 and 91"),
        (
            {"decisions": np.zeros((91, 8), int)},
            "row 0 of the table: decision 2 .* is 0; legal: 1",
        ),
        (
            {"decisions": np.tile([0, 0, 1, 0, 0, 0, 0, 2], (91, 1))},
            "row 0 of the table is not in the canonical form",
        ),
    ],
)
def test_tables_that_do_not_hold_every_cell_once_are_refused(
    tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        read_table(small_table(tmp_path / "t.npz", **changes), SMALL)


def test_strategies_search_it(tmp_path):
    config = {
        "table": small_table(tmp_path / "t.npz"),
        "reward": "toy",
        "seconds": 60.0,
        "seeds": 3,
        "space": {"name": "nasbench101", "nodes": 4},
        "strategies": {
            "random": {"name": "random_search"},
            "evolution": {
                "name": "regularized_evolution",
                "population": 8,
                "sample": 4,
            },
        },
    }
    report = compare(config, tmp_path / "compare")
    assert report["datasets"]["toy"]["best"] == 61  # all six edges
    random, evolution = (
        report["strategies"][k]["toy"] for k in ("random", "evolution")
    )
    assert random["evaluations"] == evolution["evaluations"] == 30
    with np.load(config["table"]) as table:
        mean = table["value_toy"].mean()
    assert mean < random["mean"] <= 61 and mean < evolution["mean"] <= 61


def test_it_has_no_networks():
    space = SPACES["nasbench101"](nodes=4)
    with pytest.raises(ValueError, match="nasbench101 has no networks"):
        space.module("final")
    with pytest.raises(ValueError, match="the space has only tables"):
        check_sampled("training", space)
    with pytest.raises(ValueError, match="nodes is 8; it must be 3 to 7"):
        SPACES["nasbench101"](nodes=8)


# ---- files --------------------------------------------------------------------------


def test_fields_of_all_wire_types_are_read():
    message = encoded(3, 300) + encoded(1, 0.5) + encoded(20, b"xy")
    message += varint(4 * 8 + 5) + b"abcd"
    (_, number), (_, half), *rest = fields(message)
    assert number == 300 and double(half) == 0.5
    assert rest == [(20, b"xy"), (4, b"abcd")]
    for bad in (message[:-1], b"\x0b", b"\x80"):
        with pytest.raises(ValueError, match="cut short|wire type"):
            list(fields(bad))


def test_a_record_file_becomes_a_table_of_means(file, tmp_path):
    runs = [
        (CHAIN[0], 108, *CHAIN[1:], 0.90, 0.89, 100.0),
        (ALONE[0], 108, *ALONE[1:], 0.80, 0.79, 10.0),
        (CHAIN[0], 108, *CHAIN[1:], 0.92, 0.91, 110.0),
        (CHAIN[0], 4, *CHAIN[1:], 0.50, 0.49, 4.0),
        (ALONE[0], 4, *ALONE[1:], 0.40, 0.39, 2.0),
    ]
    table = convert(file(*runs), str(tmp_path / "t.npz"))
    assert set(table.reward) == {"cifar10_4", "cifar10_108"}
    np.testing.assert_allclose(table.reward["cifar10_108"], [91, 80])
    np.testing.assert_allclose(table.reward["cifar10_4"], [50, 40])
    for name in table.reward:
        np.testing.assert_allclose(table.value[name], [90, 79])
    np.testing.assert_allclose(table.cost["cifar10_108"], [105, 10])
    np.testing.assert_allclose(table.cost["cifar10_4"], [4, 2])
    cells = np.array(
        [cell(CHAIN[1], f"input,{C3},{POOL},output"), cell(ALONE[1], "input,output")],
        np.int32,
    )
    np.testing.assert_array_equal(table.decisions, canonical_of(cells)[0])
    with np.load(tmp_path / "t.npz") as written:
        np.testing.assert_array_equal(written["decisions"], table.decisions)
    assert summary(table).startswith("2 architectures")


def test_what_is_wrong_with_a_file_is_told(file):
    row = (CHAIN[0], 108, *CHAIN[1:], 0.90, 0.89, 100.0)
    other = (ALONE[0], 108, *ALONE[1:], 0.80, 0.79, 10.0)
    with pytest.raises(ValueError, match="the record at byte .* is not whole"):
        from_nasbench101(file(row, other, cut=-20))
    with pytest.raises(ValueError, match="holds no records"):
        from_nasbench101(file())
    with pytest.raises(ValueError, match="no run of 4 epochs of cell b; it has 108"):
        from_nasbench101(file(row, other, (row[0], 4, *row[2:])))
    with pytest.raises(ValueError, match="a cell comes twice"):
        from_nasbench101(file(row, ("c", *row[1:])))
    path = file(row)
    with open(path, "wb") as damaged:
        damaged.write(framed(b'["a", 108, "01", "x", "AAA="]'))
    with pytest.raises(ValueError, match="is no record file of NAS-Bench-101"):
        from_nasbench101(path)
