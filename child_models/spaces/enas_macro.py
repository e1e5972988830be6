"""ENAS's macro space: a chain of layers, each with an operation and skips.

Pham et al., Efficient Neural Architecture Search via Parameter Sharing,
https://arxiv.org/abs/1802.03268; operations numbered as in the authors' code,
melodyguan/enas.
"""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from child_models.choice import bind_all
from child_models.shared_params import extract
from child_models.spaces import enas_macro_cost
from child_models.spaces.enas_macro_final import FinalNet
from child_models.spaces.enas_macro_search import OPS, SearchNet
from child_models.spaces.enas_text import MACRO_CODEC
from child_models.types import Published, Space
from controller.spec import Decision, DecisionSpec

PUBLISHED: dict[str, Published] = {}


def _decisions(layers: int) -> tuple[Decision, ...]:
    decisions = []
    for i in range(layers):
        decisions.append(Decision(f"layer/{i}/op", OPS, "op", i))
        decisions += [
            Decision(f"layer/{i}/skip_{j}", ("no", "yes"), "skip", i, (j, j))
            for j in range(i)
        ]
    return tuple(decisions)


def enas_macro(
    *,
    classes: int,
    layers: int = 12,
    channels: int = 36,
    dropout: float = 0.1,
    remat: bool = False,
    dtype: Any = "float32",
) -> Space:
    """Builds the space: ``6^L 2^(L (L - 1) / 2)`` chains of L layers.

    Args:
      classes: number of classes.
      layers: L, at least 3; reductions follow layers L//3 and 2 (L//3).
      channels: C; the final form doubles it at each of the two reductions.
      dropout: before the classifier, where a "dropout" key is given.
      remat: whether the search form computes an op again for its gradient, in place of
        keeping what it computed: less memory.
      dtype: of activations; parameters are float32.

    Raises:
      ValueError: if a size is too small, or dropout is outside [0, 1).
    """
    least = {"classes": (classes, 1), "layers": (layers, 3), "channels": (channels, 1)}
    for name, (value, minimum) in least.items():
        if value < minimum:
            raise ValueError(
                f"enas_macro: {name} is {value}; it must be at least {minimum}"
            )
    if not 0 <= dropout < 1:
        raise ValueError(f"enas_macro: dropout is {dropout}; it must be in [0, 1)")
    spec = DecisionSpec(_decisions(layers), codec=MACRO_CODEC)
    arguments = (classes, channels, layers, dropout, jnp.dtype(dtype))
    search = SearchNet(*arguments, remat=remat)
    forms = {"search": search, "final": FinalNet(*arguments)}

    def module(form: str):
        if form not in forms:
            raise ValueError(f"form {form!r} must be one of: {', '.join(forms)}")
        return forms[form]

    def bind(decisions):
        choices = iter(bind_all(spec, decisions))
        return tuple(
            (next(choices), tuple(next(choices) for _ in range(i)))
            for i in range(layers)
        )

    def cut(variables, decisions):
        image = (8, 8, variables["params"]["stem"]["kernel"].shape[2])
        return extract(forms["search"], bind(np.asarray(decisions)), variables, image)

    terms = functools.partial(enas_macro_cost.terms, forms["final"])
    return Space(spec, module, bind, cut, running_statistics=False, terms=terms)
