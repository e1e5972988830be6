"""A network as one Python file in plain Flax that imports nothing of this project.

The file has a line for each primitive of the traced network, so it says exactly what is
computed, and it reads ``params.safetensors`` beside it.
"""

import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from launch.flat_trace import BATCH, Input, Step, is_batch, trace

_LARGEST = 4096  # numbers of a constant that is written out
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "dot_general": "@"}
_CALLS = {"max": "jnp.maximum", "min": "jnp.minimum", "rsqrt": "lax.rsqrt"}
_CALLS |= {name: f"lax.{name}" for name in ("exp", "tanh", "neg", "sqrt", "abs")}
_CALLS |= {name: f"lax.{name}" for name in ("log", "logistic")}

_FILE = string.Template('''"""A network in plain Flax.

$about

    python network.py [IMAGES.npy]      uint8[B, $shape]

Needs flax and safetensors; weights are in params.safetensors beside this file.
"""

import pathlib
import sys

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from safetensors.numpy import load_file


class Network(nn.Module):
    """Maps images uint8[B, $shape] to float32 logits [B, $classes]."""

    @nn.compact
    def __call__(self, images):
        def weight(name, *shape):
            return self.param(name, nn.initializers.zeros, shape)

        batch = images.shape[0]
$lines
        return $logits


def load(folder=pathlib.Path(__file__).parent):
    """The network's variables."""
    return {"params": load_file(pathlib.Path(folder) / "params.safetensors")}


if __name__ == "__main__":
    x = np.load(sys.argv[1]) if sys.argv[1:] else np.zeros((2, $shape), np.uint8)
    print(np.asarray(Network().apply(load(), x)))
''')


def flax_source(
    run: Callable[..., jax.Array],
    weights: Mapping[str, np.ndarray],
    image: Sequence[int],
    about: str,
) -> str:
    """The text of the file.

    Args:
      run: ``(weights, uint8[B, H, W, C]) -> float32[B, classes]``.
      weights: by the names that they have in params.safetensors.
      image: (H, W, C).
      about: a line on the network.

    Raises:
      NotImplementedError: on a primitive, or a use of one, that is not known.
    """
    traced = trace(run, weights, image)
    names = {"images": "images"}
    lines = []
    for number, (name, array) in enumerate(sorted(weights.items())):
        names[name] = f"w{number}"
        shape = "".join(f", {n}" for n in array.shape)
        lines.append(f'w{number} = weight("{name}"{shape})')
    for step in traced.steps:
        inputs = [_read(value, names) for value in step.inputs]
        lines.append(f"{step.output} = {_expression(step, inputs)}")
    return _FILE.substitute(
        about=about,
        shape=", ".join(map(str, image)),
        classes=traced.result.shape[-1],
        lines="\n".join(f"        {line}" for line in lines),
        logits=_read(traced.logits, names),
    )


def _read(value: Input, names: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return names.get(value, value)
    if value.ndim == 0:
        return repr(value.item()).replace("inf", "jnp.inf").replace("nan", "jnp.nan")
    if value.size > _LARGEST:
        raise NotImplementedError(f"a constant of shape {value.shape} is too large")
    return f"np.array({value.tolist()}, np.{value.dtype})"


def _sizes(shape: Sequence[int]) -> str:
    """A shape as an expression."""
    parts = []
    for size in shape:
        times = size // BATCH if is_batch(size) else 0
        parts.append({0: f"{size}", 1: "batch"}.get(times, f"{times} * batch"))
    return f"({''.join(f'{part}, ' for part in parts)})"


def _expression(step: Step, inputs: Sequence[str]) -> str:
    """The right-hand side of a step."""
    name, params = step.equation.primitive.name, step.equation.params
    if name in _CALLS:
        return f"{_CALLS[name]}({', '.join(inputs)})"
    if name == "dot_general" and params["dimension_numbers"] != (
        ((1,), (0,)),
        ((), ()),
    ):
        raise NotImplementedError(f"no Flax for the product {params}")
    if name in _INFIX:
        return f"{inputs[0]} {_INFIX[name]} {inputs[1]}"
    if name not in _OTHERS:
        raise NotImplementedError(f"no Flax for the primitive {name!r}")
    return _OTHERS[name](step.equation, inputs, params)


def _conv(equation, inputs, params) -> str:
    if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
        raise NotImplementedError("no Flax for a transposed convolution")
    left, right, out = params["dimension_numbers"]
    numbers = (_letters(left, "NCHW"), _letters(right, "OIHW"), _letters(out, "NCHW"))
    options = [f"dimension_numbers={numbers}"]
    if set(params["rhs_dilation"]) != {1}:
        options.append(f"rhs_dilation={tuple(params['rhs_dilation'])}")
    if params["feature_group_count"] != 1:
        options.append(f"feature_group_count={params['feature_group_count']}")
    fixed = [tuple(params["window_strides"]), list(params["padding"])]
    arguments = [*inputs, *map(str, fixed), *options]
    return f"lax.conv_general_dilated({', '.join(arguments)})"


def _letters(places: Sequence[int], letters: str) -> str:
    return "".join(letters[i] for i in np.argsort(places))


def _window(start: str, function: str) -> Callable[..., str]:
    def write(equation, inputs, params) -> str:
        if {*params["base_dilation"], *params["window_dilation"]} != {1}:
            raise NotImplementedError("no Flax for a dilated pool")
        window, strides = params["window_dimensions"], params["window_strides"]
        parts = [inputs[0], start, function, tuple(window), tuple(strides)]
        parts.append(list(params["padding"]))
        return f"lax.reduce_window({', '.join(map(str, parts))})"

    return write


def _slice(equation, inputs, params) -> str:
    strides = params["strides"] or [1] * len(params["start_indices"])
    bounds = (params["start_indices"], params["limit_indices"], strides)
    parts = [
        ":" if is_batch(stop) else f"{start}:{stop}:{step}"
        for start, stop, step in zip(*bounds, strict=True)
    ]
    return f"{inputs[0]}[{', '.join(parts)}]"


def _broadcast(equation, inputs, params) -> str:
    shape, places = params["shape"], tuple(params["broadcast_dimensions"])
    return f"lax.broadcast_in_dim({inputs[0]}, {_sizes(shape)}, {places})"


_OTHERS: dict[str, Callable[[Any, Sequence[str], Mapping[str, Any]], str]] = {
    "conv_general_dilated": _conv,
    "reduce_window_max": _window("-jnp.inf", "lax.max"),
    "reduce_window_sum": _window("0.0", "lax.add"),
    "slice": _slice,
    "broadcast_in_dim": _broadcast,
    "reshape": lambda e, x, p: f"jnp.reshape({x[0]}, {_sizes(p['new_sizes'])})",
    "squeeze": lambda e, x, p: f"jnp.squeeze({x[0]}, {tuple(p['dimensions'])})",
    "transpose": lambda e, x, p: f"jnp.transpose({x[0]}, {tuple(p['permutation'])})",
    "reduce_sum": lambda e, x, p: f"jnp.sum({x[0]}, {tuple(p['axes'])})",
    "concatenate": lambda e, x, p: (
        f"jnp.concatenate([{', '.join(x)}], {p['dimension']})"
    ),
    "convert_element_type": lambda e, x, p: (
        f'jnp.asarray({x[0]}, "{np.dtype(p["new_dtype"])}")'
    ),
    "pad": lambda e, x, p: f"lax.pad({x[0]}, {x[1]}, {list(p['padding_config'])})",
}
