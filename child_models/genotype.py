"""Cells as data, and their text: JSON of blocks, and DARTS's Genotype.

A cell is a list of blocks; a block applies two ops to two earlier states and combines
the results.  States 0 and 1 are the cell's inputs, state ``2 + b`` is block b:

    {"normal": [[["sep_conv_5x5", 0], ["sep_conv_3x3", 1], "add"], ...], "reduce": ...}

The combiner is left out in spaces whose blocks add.

DARTS (https://arxiv.org/abs/1806.09055) writes blocks that add as pairs, two a node,
beside the states that the cell returns; state ``2 + b`` is node b:

    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ...],
             normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))

Its JSON has the same four keys.
"""

import ast
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

COMBINERS = ("add", "concat")


class Block(NamedTuple):
    """Two ops on two states, combined; names or numbers, or choices bound to them.

    Attributes:
      inputs: the two states.
      ops: what is applied to them.
      combiner: of the results; None where there is no choice but to add.
      present: float32[], the share of the block that exists; None where all does.
    """

    inputs: tuple[Any, Any]
    ops: tuple[Any, Any]
    combiner: Any = None
    present: Any = None


def unused_states(blocks: Sequence[Block]) -> tuple[int, ...]:
    """The states of a cell, its inputs among them, that no block takes as an input.

    >>> ops = ("conv", "pool")
    >>> unused_states([Block((0, 1), ops), Block((0, 2), ops)])
    (3,)
    """
    used = {state for block in blocks for state in block.inputs}
    return tuple(state for state in range(len(blocks) + 2) if state not in used)


def write_cells(cells: Mapping[str, Sequence[Block]]) -> str:
    """The JSON text of named cells, whose ops and combiners are names.

    >>> write_cells({"normal": [Block((0, 1), ("conv", "pool"), "add")]})
    '{"normal": [[["conv", 0], ["pool", 1], "add"]]}'
    """
    return json.dumps(
        {
            name: [
                [
                    *(list(half) for half in zip(b.ops, b.inputs, strict=True)),
                    *([] if b.combiner is None else [b.combiner]),
                ]
                for b in blocks
            ]
            for name, blocks in cells.items()
        }
    )


def read_cells(text: str, names: Sequence[str]) -> dict[str, tuple[Block, ...]]:
    """Reads what `write_cells` wrote.

    Args:
      text: JSON.
      names: of the cells that must be there.

    Returns:
      the blocks of each cell; ops, states and combiners are as the text has them.

    Raises:
      ValueError: if the text is no genotype of such cells.

    >>> read_cells('{"normal": [[["conv", 0], ["pool", 1]]]}', ["normal"])["normal"]
    (Block(inputs=(0, 1), ops=('conv', 'pool'), combiner=None, present=None),)
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON genotype: {text[:80]!r}") from error
    if not isinstance(found, Mapping) or set(found) != set(names):
        raise ValueError(
            f"a genotype is an object of the cells {', '.join(names)}, got"
            f" {text[:80]!r}"
        )
    return {
        name: tuple(_read_block(name, b, block) for b, block in enumerate(found[name]))
        for name in names
    }


def _read_block(cell: str, number: int, block: Any) -> Block:
    try:
        (left_op, left), (right_op, right), *combiner = block
        if len(combiner) > 1:
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(
            f"block {number} of cell {cell!r} is {block!r}; a block is"
            " [[op, state], [op, state]], with a combiner where there are several"
        ) from None
    return Block((left, right), (left_op, right_op), *combiner)


# ---- DARTS's Genotype ---------------------------------------------------------------

GENOTYPE_CELLS = ("normal", "reduce")
_MOST_STATES = 1000  # of any cell, so that a range is no trap
Pair = tuple[str, int]  # an op and the state that it is applied to


class Genotype(NamedTuple):
    """Two cells in DARTS's form.

    Attributes:
      normal, reduce: the pairs of each cell, two a node, in node order.
      normal_concat, reduce_concat: the states that each returns, a range or a tuple;
        None where it is not said.
    """

    normal: tuple[Pair, ...]
    normal_concat: Sequence[int] | None
    reduce: tuple[Pair, ...]
    reduce_concat: Sequence[int] | None

    def cell(self, name: str) -> tuple[tuple[Pair, ...], Sequence[int] | None]:
        """The pairs of "normal" or "reduce", and what the cell returns."""
        return getattr(self, name), getattr(self, f"{name}_concat")


def write_genotype(genotype: Genotype) -> str:
    """The text ``Genotype(normal=[(op, state), ...], normal_concat=[...], ...)``.

    >>> cell = (("sep_conv_3x3", 0), ("skip_connect", 1))
    >>> write_genotype(Genotype(cell, range(2, 3), cell, None))
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)],
    normal_concat=range(2, 3), reduce=[('sep_conv_3x3', 0), ('skip_connect', 1)])"
    """
    fields = []
    for name in GENOTYPE_CELLS:
        pairs, concat = genotype.cell(name)
        fields.append(f"{name}={list(pairs)}")
        if concat is not None:
            states = concat if isinstance(concat, range) else list(concat)
            fields.append(f"{name}_concat={states}")
    return f"Genotype({', '.join(fields)})"


def write_genotype_json(genotype: Genotype) -> str:
    """The JSON object of a genotype's fields."""
    fields = genotype._asdict().items()
    return json.dumps(
        {name: list(value) for name, value in fields if value is not None}
    )


def read_genotype(text: str) -> Genotype:
    """Reads what `write_genotype` or `write_genotype_json` wrote, or DARTS itself.

    Pairs may be nested by node, and fields given in order, as in the authors' code.
    Ops are as the text has them.

    Raises:
      ValueError: if the text is no genotype, if a cell has no two pairs a node, or if a
        node takes the state of a later one.

    >>> cell = "[('skip_connect', 0), ('sep_conv_3x3', 1)]"
    >>> read_genotype(f"Genotype(normal={cell}, reduce={cell})").normal
    (('skip_connect', 0), ('sep_conv_3x3', 1))
    >>> read_genotype(f"Genotype(normal={cell})")
    Traceback (most recent call last):
      ...
    ValueError: the Genotype lacks reduce
    """
    fields = _json_fields(text) if text.lstrip().startswith("{") else _fields(text)
    known = Genotype._fields
    if missing := [name for name in GENOTYPE_CELLS if name not in fields]:
        raise ValueError(f"the Genotype lacks {', '.join(missing)}")
    if unknown := [str(name) for name in fields if name not in known]:
        raise ValueError(
            f"the Genotype has {', '.join(unknown)}; it takes {', '.join(known)}"
        )
    found = {name: _pairs(name, fields[name]) for name in GENOTYPE_CELLS}
    for name, pairs in found.items():
        _check_states(name, pairs)
    for name in known[1::2]:
        found[name] = _concat(name, fields.get(name))
    return Genotype(**found)


def _json_fields(text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"not a JSON genotype: {text[:80]!r}") from error


def _fields(text: str) -> dict[str, Any]:
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if call.func.id != "Genotype" or len(call.args) > len(Genotype._fields):
            raise ValueError
        fields = dict(zip(Genotype._fields, map(_literal, call.args), strict=False))
        return fields | {k.arg: _literal(k.value) for k in call.keywords}
    except (
        *(SyntaxError, ValueError, AttributeError, TypeError),
        *(RecursionError, MemoryError, OverflowError),
    ) as error:
        raise ValueError(f"not a Genotype(...): {text[:80]!r}") from error


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range":
        return range(*map(ast.literal_eval, node.args))
    return ast.literal_eval(node)


def _pairs(name: str, cell: Any) -> tuple[Pair, ...]:
    """The (op, state) pairs of a cell, which some codes nest by node."""
    try:
        if cell and not isinstance(cell[0][0], str):
            cell = list(itertools.chain.from_iterable(cell))
        pairs = tuple((str(op), _state(state)) for op, state in cell)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError(
            f"cell {name!r} of the Genotype must list pairs (op, state)"
        ) from error
    if not pairs or len(pairs) % 2:
        raise ValueError(
            f"cell {name!r} of the Genotype has {len(pairs)} edges; it must have two a"
            " node"
        )
    return pairs


def _check_states(name: str, pairs: Sequence[Pair]) -> None:
    for i, (op, state) in enumerate(pairs):
        if not 0 <= state < i // 2 + 2:
            raise ValueError(
                f"node {i // 2 + 2} of cell {name!r} takes {op!r} of state {state}; it"
                f" may take the states 0 to {i // 2 + 1}"
            )


def _concat(name: str, states: Any) -> tuple[int, ...] | None:
    if states is None:
        return None
    try:
        if len(states) > _MOST_STATES:
            raise ValueError
        return tuple(_state(state) for state in states)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} of the Genotype must list states") from error


def _state(value: Any) -> int:
    """An integer, not what may be taken for one."""
    if type(value) is not int:
        raise TypeError
    return value
