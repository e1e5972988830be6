"""The decisions about cells of blocks, of NASNet, PNASNet and AmoebaNet.

A block takes two states (the output of the layer before, of the one before that, or of
an earlier block), an op for each and, where there are several, a combiner.  Its two
sides may be exchanged: `DecisionSpec.canonical` orders them.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from child_models.choice import bind_all, is_fixed
from child_models.genotype import COMBINERS, Block, read_cells, write_cells
from child_models.picking import indicator
from controller.spec import Codec, Decision, DecisionSpec, FirstNodes

Cells = dict[str, tuple[Block, ...]]  # blocks by the name of their cell


def cell_spec(
    cells: Sequence[str],
    blocks: int,
    ops: Sequence[str],
    *,
    add_only: bool,
    fewer: bool = False,
) -> DecisionSpec:
    """The decisions of some cells, five a block, or four where blocks only add.

    Args:
      cells: their names.
      blocks: B, of each cell.
      ops: names of the ops of each side.
      add_only: whether blocks add their sides, and no combiner is decided.
      fewer: whether the one cell has 1 to B blocks; how many is the first decision,
        "blocks", and the decisions of absent blocks are 0.

    Returns:
      a spec whose symmetries are the two sides of each block.

    Raises:
      ValueError: if there are no blocks, or ops are missing or repeat.
    """
    if blocks < 1:
        raise ValueError(f"blocks={blocks}: must be at least 1")
    decisions, symmetries = [], []
    if fewer:
        numbers = tuple(str(b + 1) for b in range(blocks))
        decisions.append(Decision("blocks", numbers, "blocks"))
    for c, b in itertools.product(range(len(cells)), range(blocks)):
        first, node = len(decisions), c * blocks + b
        states = ("current", "previous", *(f"block_{i}" for i in range(b)))
        targets = (-1, -2, *(c * blocks + i for i in range(b)))
        fields = [
            ("input_left", states, "input", node, targets),
            ("input_right", states, "input", node, targets),
            ("op_left", tuple(ops), "op", node),
            ("op_right", tuple(ops), "op", node),
            ("combiner", COMBINERS, "combiner", node),
        ]
        for name, *rest in fields[: 4 if add_only else 5]:
            decisions.append(Decision(f"{cells[c]}/{b}/{name}", *rest))
        symmetries.append(((first, first + 2), (first + 1, first + 3)))
    return DecisionSpec(
        tuple(decisions),
        FirstNodes(tuple(range(1, blocks + 1))) if fewer else None,
        Codec(_encode, _decode),
        tuple(symmetries),
    )


def bind_cells(spec: DecisionSpec, decisions: Any) -> Cells:
    """Blocks of bound choices by cell; see `Space.bind`.

    A fixed cell holds the blocks that it has; one that is sampled or relaxed holds all,
    with the share of each that is present.

    Raises:
      ValueError: if fixed decisions are illegal.
    """
    choices = bind_all(spec, decisions)
    cells = _group(spec, choices)
    if spec.decisions[0].group != "blocks" or is_fixed(choices[0]):
        return cells
    present = jnp.cumsum(indicator(choices[0], spec.num_choices[0])[::-1])[::-1]
    return {
        name: tuple(b._replace(present=p) for b, p in zip(blocks, present, strict=True))
        for name, blocks in cells.items()
    }


def is_fixed_cell(blocks: Sequence[Block]) -> bool:
    """Whether a bound cell is one of a fixed child."""
    return is_fixed(blocks[0].ops[0])


def _group(spec: DecisionSpec, values: Sequence[Any]) -> Cells:
    """Blocks by cell, of one value a decision, as many as a fixed number says."""
    nodes: dict[tuple[str, str], dict[str, Any]] = {}
    limit = None
    for decision, value in zip(spec.decisions, values, strict=True):
        if decision.group != "blocks":
            cell, block, field = decision.name.split("/")
            nodes.setdefault((cell, block), {})[field] = value
        elif is_fixed(value):
            limit = value + 1
    cells: dict[str, list[Block]] = {}
    for (cell, _), f in nodes.items():
        inputs, ops = ((f[f"{k}_left"], f[f"{k}_right"]) for k in ("input", "op"))
        cells.setdefault(cell, []).append(Block(inputs, ops, f.get("combiner")))
    return {name: tuple(blocks[:limit]) for name, blocks in cells.items()}


# ---- text ---------------------------------------------------------------------------


def _encode(spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    named = [
        d.choices[value] if d.group in ("op", "combiner") else value
        for d, value in zip(spec.decisions, decisions, strict=True)
    ]
    return write_cells(_group(spec, named))


def _decode(spec: DecisionSpec, text: str) -> list[int]:
    fewer = spec.decisions[0].group == "blocks"
    described = spec.decisions[1:] if fewer else spec.decisions
    paths = [tuple(d.name.split("/")) for d in described]
    cells = read_cells(text, list(dict.fromkeys(cell for cell, _, _ in paths)))
    most = int(paths[-1][1]) + 1
    for name, blocks in cells.items():
        _check_blocks(
            name, blocks, range(1, most + 1) if fewer else range(most, most + 1)
        )
        if "combiner" not in spec.groups:
            _check_added(name, blocks)
    decisions = [len(cells[paths[0][0]]) - 1] if fewer else []
    for decision, (cell, block, field) in zip(described, paths, strict=True):
        present = cells[cell][int(block) : int(block) + 1]
        decisions.append(_index(decision, _field(*present, field)) if present else 0)
    return decisions


def _check_blocks(cell: str, blocks: Sequence[Block], allowed: range) -> None:
    if len(blocks) not in allowed:
        span = f"{allowed[0]} to {allowed[-1]}" if len(allowed) > 1 else allowed[0]
        raise ValueError(
            f"cell {cell!r} has {len(blocks)} blocks; this space has {span}"
        )


def _check_added(cell: str, blocks: Sequence[Block]) -> None:
    for number, block in enumerate(blocks):
        if block.combiner not in (None, COMBINERS[0]):
            raise ValueError(
                f"block {number} of cell {cell!r} is combined by {block.combiner!r};"
                f" in this space blocks {COMBINERS[0]}"
            )


def _field(block: Block, name: str) -> Any:
    """What a block has for a decision of that name; it adds if it does not say."""
    if name == "combiner":
        return COMBINERS[0] if block.combiner is None else block.combiner
    kind, side = name.split("_")
    return (block.inputs if kind == "input" else block.ops)[side == "right"]


def _index(decision: Decision, value: Any) -> int:
    """The number of a choice; states have numbers themselves, which are not checked."""
    if decision.group == "input":
        if not isinstance(value, int):
            raise ValueError(f"decision {decision.name!r} is {value!r}, not a state")
        return value
    if value not in decision.choices:
        raise ValueError(
            f"decision {decision.name!r} is {value!r};"
            f" legal: {', '.join(decision.choices)}"
        )
    return decision.choices.index(value)
