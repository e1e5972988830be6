"""ENAS's micro space: a normal and a reduction cell of nodes with two inputs each.

Pham et al., Efficient Neural Architecture Search via Parameter Sharing,
https://arxiv.org/abs/1802.03268; choices, networks and the published cells as in the
authors' code, melodyguan/enas.

States of a cell are numbered as in an ENAS arc: 0 and 1 are the outputs of the cell
before the last and of the last, and node i = 2, 3, ... is the sum of two operations,
each on one earlier state.  A cell returns the states that none of its nodes reads.
"""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from child_models.choice import bind_all
from child_models.shared_params import extract
from child_models.spaces import enas_micro_cost
from child_models.spaces.darts_spec import pair_decisions
from child_models.spaces.enas_micro_final import FinalNet
from child_models.spaces.enas_micro_search import SearchNet
from child_models.spaces.enas_text import MICRO_CODEC
from child_models.spaces.enas_text import MICRO_OPS as OPS
from child_models.types import Published, Space
from controller.spec import DecisionSpec


def paper_size(nodes: int) -> int:
    """The paper's count of the space, ``(5 * nodes!)^4``: 1.296e11 for 5 nodes.

    `DecisionSpec.size` is the exact number of decision vectors, which are ordered:
    ``(5^(2 nodes) * (nodes + 1)!^2)^2``.
    """
    return (len(OPS) * math.factorial(nodes)) ** 4


def enas_micro(
    *,
    classes: int,
    nodes: int = 5,
    channels: int = 20,
    layers: int = 6,
    stem_multiplier: int = 3,
    dropout: float = 0.1,
    aux_head: bool = False,
    remat: bool = True,
    dtype: Any = "float32",
) -> Space:
    """Builds the space; both forms take the same sizes.

    Args:
      classes: number of classes.
      nodes: computed nodes of a cell, B; 8 * nodes decisions.
      channels: C of the first cells; doubled at each of the two reductions.
      layers: number of normal cells, L; with reduction cells at L//3 and 2 L//3 + 1.
      stem_multiplier: the stem makes this times C channels.
      dropout: before the classifier, where a "dropout" key is given.
      aux_head: whether the final form has an auxiliary head after the second reduction.
      remat: whether the search form computes an op again for its gradient in place of
        keeping what it computed: less memory, and on CPU less time too.
      dtype: of activations; parameters are float32.

    Raises:
      ValueError: if a size is not positive, or dropout is outside [0, 1).
    """
    sizes = {"classes": classes, "nodes": nodes, "channels": channels, "layers": layers}
    for name, value in (sizes | {"stem_multiplier": stem_multiplier}).items():
        if value < 1:
            raise ValueError(f"enas_micro: {name} is {value}; it must be at least 1")
    if not 0 <= dropout < 1:
        raise ValueError(f"enas_micro: dropout is {dropout}; it must be in [0, 1)")
    spec = DecisionSpec(pair_decisions(nodes, OPS), codec=MICRO_CODEC)
    common = {
        "classes": classes,
        "channels": channels,
        "layers": layers,
        "stem_multiplier": stem_multiplier,
        "dropout": dropout,
        "dtype": jnp.dtype(dtype),
    }
    forms = {
        "search": SearchNet(nodes=nodes, remat=remat, **common),
        "final": FinalNet(aux_head=aux_head, **common),
    }

    def module(form: str):
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions):
        choices = bind_all(spec, decisions)
        return choices[: 4 * nodes], choices[4 * nodes :]

    def cut(variables, decisions):
        image = (8, 8, variables["params"]["stem"]["kernel"].shape[2])
        return extract(forms["search"], bind(np.asarray(decisions)), variables, image)

    terms = functools.partial(enas_micro_cost.terms, spec, forms["final"], nodes)
    return Space(spec, module, bind, cut, running_statistics=False, terms=terms)


_FIXED_ARC = """
0 2 0 0  0 4 0 1  0 4 1 1  1 0 0 1  0 2 1 1
1 0 1 0  0 3 0 2  1 1 3 1  1 0 0 4  0 3 1 1
"""
PUBLISHED = {  # scripts/cifar10_micro_final.sh of the authors' code
    "ENAS-micro": Published(
        "enas_micro",
        {
            "classes": 10,
            "nodes": 5,
            "channels": 36,
            "layers": 15,
            "dropout": 0.2,
            "aux_head": True,
        },
        (32, 32, 3),
        DecisionSpec(pair_decisions(5, OPS), codec=MICRO_CODEC).decode(_FIXED_ARC),
    )
}
