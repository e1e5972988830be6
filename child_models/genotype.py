"""Cells as data, and their JSON text.

A cell is a list of blocks; a block applies two ops to two earlier states and combines
the results.  States 0 and 1 are the cell's inputs, state ``2 + b`` is block b:

    {"normal": [[["sep_conv_5x5", 0], ["sep_conv_3x3", 1], "add"], ...], "reduce": ...}

The combiner is left out in spaces whose blocks add.
"""

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
    """The states of a cell, its inputs among them, that no block takes as an input."""
    used = {state for block in blocks for state in block.inputs}
    return tuple(state for state in range(len(blocks) + 2) if state not in used)


def write_cells(cells: Mapping[str, Sequence[Block]]) -> str:
    """The JSON text of named cells, whose ops and combiners are names."""
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
