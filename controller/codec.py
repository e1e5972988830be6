"""The readable form of decisions.

In all signatures ``spec`` is the `controller.spec.DecisionSpec` that they belong to.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Codec(NamedTuple):
    """Translates decisions to a space's own text (genotype, arc, cell string).

    Attributes:
      encode: ``(spec, decisions: tuple[int, ...]) -> str``.
      decode: ``(spec, text) -> sequence of int``; raises ValueError on foreign text.
    """

    encode: Callable[[Any, tuple[int, ...]], str]
    decode: Callable[[Any, str], Sequence[int]]


def _encode_json(spec: Any, decisions: tuple[int, ...]) -> str:
    pairs = zip(spec.decisions, decisions, strict=True)
    return json.dumps({d.name: d.choices[v] for d, v in pairs})


def _decode_json(spec: Any, text: str) -> list[int]:
    try:
        named = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not a JSON object of decisions: {text[:80]!r}") from error
    if not isinstance(named, Mapping):
        raise ValueError(f"expected a JSON object of decisions, got {text[:80]!r}")
    names = [d.name for d in spec.decisions]
    if missing := [n for n in names if n not in named]:
        raise ValueError(f"decisions missing: {', '.join(missing[:5])}")
    if unknown := [n for n in named if n not in names]:
        raise ValueError(f"unknown decisions: {', '.join(unknown[:5])}")
    for d in spec.decisions:
        if named[d.name] not in d.choices:
            raise ValueError(
                f"decision {d.name!r} is {named[d.name]!r}; "
                f"legal: {', '.join(d.choices)}"
            )
    return [d.choices.index(named[d.name]) for d in spec.decisions]


JSON_CODEC = Codec(_encode_json, _decode_json)
