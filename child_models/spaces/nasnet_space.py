"""A space of cells of blocks, from its decisions and the sizes of its networks."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn

from child_models.spaces import nasnet_cost
from child_models.spaces.nasnet_final import STEMS, FinalNetwork
from child_models.spaces.nasnet_ops import KNOWN_OPS
from child_models.spaces.nasnet_search import SearchNetwork
from child_models.spaces.nasnet_spec import Cells, bind_cells
from child_models.spaces.repeated import extract_steps
from child_models.types import Published, Space
from controller.spec import DecisionSpec


def cell_space(
    spec: DecisionSpec,
    ops: Sequence[str],
    sizes: Mapping[str, Any],
    *,
    final: Mapping[str, Any],
    affine: bool,
    remat: bool,
) -> Space:
    """The space of a spec of `nasnet_spec.cell_spec`; a single cell is both cells.

    Args:
      spec: of a normal and a reduction cell, or of one that is strided in reductions.
      ops: names behind the ops' numbers.
      sizes: attributes that both networks have, see `FinalNetwork`; a stem_multiplier
        of None is 3 on CIFAR and 1 on ImageNet.
      final: further attributes of `FinalNetwork`.
      affine, remat: of `SearchNetwork`.

    Returns:
      a space of three bindings.

    Raises:
      ValueError: on sizes that no network has.
    """
    _check(ops, sizes, final)
    sizes = {**sizes, "operations": tuple(ops)}
    if sizes["stem_multiplier"] is None:
        sizes["stem_multiplier"] = 3.0 if sizes["stem"] == "cifar" else 1.0
    forms = {
        "search": SearchNetwork(affine=affine, remat=remat, **sizes),
        "final": FinalNetwork(**sizes, **final),
    }

    def module(form: str) -> nn.Module:
        if form not in forms:
            raise ValueError(f"form {form!r}: must be one of {', '.join(forms)}")
        return forms[form]

    def bind(decisions: Any) -> Cells:
        cells = list(bind_cells(spec, decisions).values())
        return {"normal": cells[0], "reduce": cells[-1]}

    def cut(variables: Any, decisions: Any) -> Any:
        channels = variables["params"]["stem"]["Conv_0"]["kernel"].shape[2]
        image = (32, 32, channels)
        return extract_steps(forms["search"], bind(decisions), variables, image)

    fewer = spec.decisions[0].group == "blocks"  # absent blocks are no condition
    terms = None if fewer else partial(nasnet_cost.terms, spec, forms["final"])
    return Space(spec, module, bind, cut, terms=terms)


def check_concat(
    name: str, concat: Sequence[int] | None, blocks: int
) -> tuple[int, ...] | None:
    """The states that a cell returns as an attribute; None stays None.

    Raises:
      ValueError: naming the argument, if a cell of so many blocks has no such states.
    """
    if concat is None:
        return None
    if not concat or set(concat) - set(range(blocks + 2)):
        raise ValueError(
            f"{name}={tuple(concat)}: must name some of the states 0 to {blocks + 1}"
        )
    return tuple(concat)


def _check(ops, sizes, final) -> None:
    if unknown := [op for op in ops if op not in KNOWN_OPS]:
        raise ValueError(
            f"ops has {', '.join(map(repr, unknown))}; known: {', '.join(KNOWN_OPS)}"
        )
    for name in ("classes", "channels", "stem_multiplier"):
        if sizes[name] is not None and not sizes[name] > 0:
            raise ValueError(f"{name}={sizes[name]}: must be positive")
    if sizes["cells"] < 2:
        raise ValueError(
            f"cells={sizes['cells']}: must be at least 2, one after each reduction"
        )
    if sizes["stem"] not in STEMS:
        raise ValueError(f"stem={sizes['stem']!r}: must be one of {', '.join(STEMS)}")
    if not 0 <= final["dropout"] < 1:
        raise ValueError(f"dropout={final['dropout']}: must be in [0, 1)")


# ---- published networks -------------------------------------------------------------

# Image and arguments that the published networks of one data set share.
CIFAR = ((32, 32, 3), {"classes": 10, "stem": "cifar", "stem_multiplier": 3.0})
MOBILE = ((224, 224, 3), {"classes": 1000, "stem": "imagenet", "stem_multiplier": 1.0})
LARGE = ((331, 331, 3), {"classes": 1000, "stem": "imagenet", "stem_multiplier": 3.0})


def published(
    space: str, spec: DecisionSpec, text: str, setting: tuple, **sizes: Any
) -> Published:
    """A published cell at one of the settings above; sizes are stronger."""
    image, arguments = setting
    return Published(space, {**arguments, **sizes}, image, spec.decode(text))
