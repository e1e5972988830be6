"""Text forms of ENAS architectures: the authors' arcs, and DARTS's Genotype.

A micro arc has the numbers ``input op input op`` of each node, of the normal and then
of the reduction cell.  A macro arc has ``op bit ... bit`` of each layer, one bit for
each earlier layer.  Spaces, commas, bars, brackets and line breaks separate numbers.
"""

import re
from collections.abc import Sequence

from child_models.genotype import (
    GENOTYPE_CELLS,
    Genotype,
    holds_genotype,
    read_genotype,
    write_genotype,
)
from controller.spec import JSON_CODEC, Codec, DecisionSpec

MICRO_OPS = (
    "sep_conv_3x3",
    "sep_conv_5x5",
    "avg_pool_3x3",
    "max_pool_3x3",
    "skip_connect",
)


def parse_numbers(text: str) -> list[int]:
    """Reads the numbers of an arc.

    Raises:
      ValueError: if the text holds anything but numbers and separators.
    """
    if foreign := re.search(r"[^\d\s,|\[\]()]", text):
        raise ValueError(
            f"an ENAS arc is numbers between spaces or commas; found"
            f" {foreign.group()!r} in {text[:80]!r}"
        )
    return [int(number) for number in re.findall(r"\d+", text)]


def _encode_arc(spec: DecisionSpec, decisions: tuple[int, ...]) -> str:
    return " ".join(map(str, decisions))


def _decode_macro(spec: DecisionSpec, text: str) -> Sequence[int]:
    if text.lstrip().startswith("{"):
        return JSON_CODEC.decode(spec, text)
    return _counted(spec, parse_numbers(text), "a layer's op and skip bits in turn")


def _decode_micro(spec: DecisionSpec, text: str) -> Sequence[int]:
    if holds_genotype(text):
        return _decode_genotype(spec, text)
    if text.lstrip().startswith("{"):
        return JSON_CODEC.decode(spec, text)
    return _counted(spec, parse_numbers(text), "input and op in turn, normal first")


def _counted(spec, numbers, what):
    if len(numbers) != spec.length:
        raise ValueError(
            f"the arc has {len(numbers)} numbers; this space has {spec.length}: {what}"
        )
    return numbers


def loose_ends(cell: Sequence[int]) -> list[int]:
    """The states that no node of a cell reads; the last node is always one.

    Args:
      cell: ``input op input op`` of each node.
    """
    return unread(cell[0::2])


def unread(inputs: Sequence[int]) -> list[int]:
    """The states that are none of the inputs, two a node."""
    return [j for j in range(len(inputs) // 2 + 2) if j not in inputs]


def genotype(spec: DecisionSpec, decisions: Sequence[int]) -> str:
    """Micro decisions as DARTS writes them; `DecisionSpec.decode` reads it too.

    Returns:
      ``Genotype(normal=[(op, state), ...], normal_concat=[...], reduce=...)``, two
      pairs a node in node order.
    """
    decisions, half = spec.validate(decisions), spec.length // 2
    ops = spec.decisions[1].choices
    fields = []
    for cell in (decisions[:half], decisions[half:]):
        pairs = zip(cell[0::2], cell[1::2], strict=True)
        fields += [tuple((ops[op], i) for i, op in pairs), loose_ends(cell)]
    return write_genotype(Genotype(*fields))


def micro_holds(found: Genotype) -> bool:
    """Whether a genotype may be one of ENAS's: its ops, and the states it returns."""
    cells = [found.cell(name) for name in GENOTYPE_CELLS]
    return all(
        all(op in MICRO_OPS for op, _ in pairs)
        and concat in (None, tuple(unread([state for _, state in pairs])))
        for pairs, concat in cells
    )


def _decode_genotype(spec, text):
    found = read_genotype(text)
    ops = spec.decisions[1].choices
    decisions: list[int] = []
    for name in GENOTYPE_CELLS:
        pairs, concat = found.cell(name)
        cell: list[int] = []
        for op, state in pairs:
            if op not in ops:
                raise ValueError(f"operation {op!r} must be one of: {', '.join(ops)}")
            cell += [state, ops.index(op)]
        if concat is not None and sorted(concat) != loose_ends(cell):
            raise ValueError(
                f"{name}_concat is {list(concat)}; this space concatenates the states"
                f" that no node reads: {loose_ends(cell)}"
            )
        decisions += cell
    return _counted(spec, decisions, "(op, state) twice a node, in both cells")


MICRO_CODEC = Codec(_encode_arc, _decode_micro)
MACRO_CODEC = Codec(_encode_arc, _decode_macro)
