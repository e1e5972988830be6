"""Cells as data, and their text: JSON of blocks, and DARTS's Genotype.

A cell is a list of blocks; a block applies two ops to two earlier states and combines
the results.  States 0 and 1 are the cell's inputs, state ``2 + b`` is block b:

    {"normal": [[["sep_conv_5x5", 0], ["sep_conv_3x3", 1], "add"], ...], "reduce": ...}

The combiner is left out in spaces whose blocks add.

DARTS (https://arxiv.org/abs/1806.09055) writes blocks that add as pairs, two a node,
beside the states that the cell returns; state ``2 + b`` is node b:

    Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ...],
             normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))

Its JSON has the same four keys, or is the list of their values.
"""

import ast
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
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


_OBJECT = re.compile(r"""["']reduce["']\s*:|^\s*[\[(]{3}\s*["']""")  # fields, or a list


def holds_genotype(text: str) -> bool:
    """Whether `read_genotype` is to read a text, or JSON of blocks of such cells."""
    return (_CALL.search(text) or _OBJECT.search(text)) is not None


def read_genotype(text: str) -> Genotype:
    """Reads what `write_genotype` or `write_genotype_json` wrote, or DARTS itself.

    A ``Genotype(...)`` is found within code and logs, as ``DARTS_V2 = Genotype(...)``
    in the authors' genotypes.py.  Pairs may be nested by node, as in khanrc/pt.darts,
    and fields given in order.  Ops are as the text has them.

    Raises:
      ValueError: if the text is no genotype or holds different ones, if a node has not
        two pairs, or if one takes the state of a later one.

    >>> cell = "[('skip_connect', 0), ('sep_conv_3x3', 1)]"
    >>> read_genotype(f"BEST = Genotype(normal={cell}, reduce={cell})").normal
    (('skip_connect', 0), ('sep_conv_3x3', 1))
    >>> read_genotype(f"Genotype(normal={cell})")
    Traceback (most recent call last):
      ...
    ValueError: the Genotype lacks reduce
    """
    if not (calls := _calls(text)):
        return _genotype(_object_fields(text))
    found = [_genotype(_call_fields(call)) for _, call in calls]
    if any(other != found[0] for other in found):
        names = dict.fromkeys(name for name, _ in calls if name)
        raise ValueError(
            f"the text holds {len(calls)} Genotypes that differ"
            f"{', ' * bool(names)}{', '.join(names)}; give one of them"
        )
    return found[0]


def _genotype(fields: Mapping[str, Any]) -> Genotype:
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
    normal, reduce = map(len, found.values())
    if normal != reduce:
        raise ValueError(
            f"cell 'normal' of the Genotype has {normal} edges and cell 'reduce'"
            f" {reduce}; both must have as many"
        )
    for name in known[1::2]:
        found[name] = _concat(name, fields.get(name), normal // 2 + 2)
    return Genotype(**found)


_CALL = re.compile(r"(?:(\w+)\s*=\s*)?(?:\w+\.)*\b(Genotype\s*\()")


def _calls(text: str) -> list[tuple[str | None, str]]:
    """Each ``Genotype(...)`` up to the bracket that closes it, and what it is named."""
    calls = []
    for match in _CALL.finditer(text):
        begin, depth, end = match.start(2), 1, match.end()
        while depth and end < len(text):
            depth += (text[end] in "([{") - (text[end] in ")]}")
            end += 1
        calls.append((match[1], text[begin:end]))
    return calls


def _object_fields(text: str) -> Mapping[str, Any]:
    """The fields of JSON, or of what Python prints of a dict or tuple of them."""
    refusal = f"not a Genotype(...): {text[:80]!r}"
    if text.lstrip()[:1] in ("{", "["):
        refusal = f"not a JSON genotype: {text[:80]!r}"
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, RecursionError):
        content = _parsed(text, _literal, refusal)
    if isinstance(content, list | tuple) and len(content) == len(Genotype._fields):
        return dict(zip(Genotype._fields, content, strict=True))
    if not isinstance(content, Mapping):
        raise ValueError(refusal)
    return content


def _call_fields(call: str) -> dict[str, Any]:
    def fields(node: ast.expr) -> dict[str, Any]:
        if len(node.args) > len(Genotype._fields):
            raise ValueError
        given = dict(zip(Genotype._fields, map(_literal, node.args), strict=False))
        return given | {k.arg: _literal(k.value) for k in node.keywords}

    return _parsed(call, fields, f"not a Genotype(...): {call[:80]!r}")


def _parsed(text: str, read: Callable[[ast.expr], Any], refusal: str) -> Any:
    """What is read from the expression that the text is."""
    try:
        return read(ast.parse(text.strip(), mode="eval").body)
    except (
        *(SyntaxError, ValueError, AttributeError, TypeError),
        *(RecursionError, MemoryError, OverflowError),
    ) as error:
        raise ValueError(refusal) from error


def _literal(node: ast.expr) -> Any:
    """A literal, in which there may be ranges and lists of them."""
    if isinstance(node, ast.Dict):
        keys = map(ast.literal_eval, node.keys)
        return dict(zip(keys, map(_literal, node.values), strict=True))
    if isinstance(node, ast.Call):
        if node.func.id == "range":
            return range(*map(ast.literal_eval, node.args))
        if node.func.id in ("list", "tuple") and len(node.args) == 1:
            return _literal(node.args[0])  # a range stays one: it may be no trap
    return ast.literal_eval(node)


def _pairs(name: str, cell: Any) -> tuple[Pair, ...]:
    """The (op, state) pairs of a cell, which some codes nest by node."""
    try:
        nodes = cell if cell and not isinstance(cell[0][0], str) else ()
        edges = itertools.chain.from_iterable(nodes) if nodes else cell
        pairs = tuple((str(op), _state(state)) for op, state in edges)
    except (TypeError, ValueError, IndexError, KeyError) as error:
        raise ValueError(
            f"cell {name!r} of the Genotype must list pairs (op, state)"
        ) from error
    for number, node in enumerate(nodes, start=2):
        if len(node) != 2:
            raise ValueError(
                f"node {number} of cell {name!r} has {len(node)} edges; it must have"
                " two"
            )
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


def _concat(name: str, states: Any, known: int) -> tuple[int, ...] | None:
    if states is None:
        return None
    try:
        if len(states) > _MOST_STATES:
            raise ValueError
        listed = tuple(_state(state) for state in states)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} of the Genotype must list states") from error
    if len(set(listed)) < len(listed) or not set(listed) <= set(range(known)):
        raise ValueError(
            f"{name} of the Genotype is {list(listed)}; it must list different ones of"
            f" the states 0 to {known - 1}"
        )
    return listed


def _state(value: Any) -> int:
    """An integer, not what may be taken for one."""
    if type(value) is not int:
        raise TypeError
    return value
