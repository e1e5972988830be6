"""ONNX out of a traced network: one node or a few for each primitive of its jaxpr.

Only what networks of this project do when they are applied is known; another primitive
is an error that names it.  Arrays keep JAX's NHWC layout, with transpositions around
convolutions and pools, which runtimes merge.  The batch may have any size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from launch.flat_trace import Input, Step, is_batch, trace

OPSET = 17
_IR_VERSION = 9
_NAME = "cellwright"
_ELEMENTWISE = {"add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"}
_ELEMENTWISE |= {"max": "Max", "min": "Min", "exp": "Exp", "tanh": "Tanh", "neg": "Neg"}
_ELEMENTWISE |= {"sqrt": "Sqrt", "logistic": "Sigmoid", "abs": "Abs", "log": "Log"}


def to_onnx(
    run: Callable[..., jax.Array],
    weights: Mapping[str, np.ndarray],
    image: Sequence[int],
) -> bytes:
    """An ONNX model with the input "images" and the output "logits".

    Args:
      run: ``(weights, uint8[B, H, W, C]) -> float32[B, classes]``.
      weights: become initializers, by their names.
      image: (H, W, C).

    Returns:
      the file's bytes, for any B.

    Raises:
      NotImplementedError: on a primitive, or a use of one, that is not known.
    """
    traced = trace(run, weights, image)
    graph = _Graph(weights)
    for step in traced.steps:
        graph.step(step)
    logits = graph.full(graph.read(traced.logits), traced.result)
    graph.add("Identity", [logits], name="logits")
    return graph.model(traced.images, traced.result)


class _Graph:
    """Nodes and initializers that are being gathered."""

    def __init__(self, weights: Mapping[str, np.ndarray]):
        import onnx  # an extra

        self._onnx = onnx
        self._nodes: list[Any] = []
        self._initializers: list[Any] = []
        self._shapes: dict[str, tuple] = {}  # where it is not yet that of its array
        self._names = {"images": "images"}  # of nodes, by those of the trace
        self._names |= {name: self.constant(a, name) for name, a in weights.items()}

    # ---- parts ----------------------------------------------------------------------

    def constant(self, value: Any, name: str | None = None) -> str:
        """The name of an array."""
        name = name or f"constant_{len(self._initializers)}"
        array = np.asarray(value)
        self._initializers.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, inputs: Sequence[str], *, name=None, **attributes) -> str:
        """Adds a node; the name of its output."""
        name = name or f"{op.lower()}_{len(self._nodes)}"
        make = self._onnx.helper.make_node
        self._nodes.append(make(op, list(inputs), [name], name=name, **attributes))
        return name

    def integers(self, values: Sequence[int]) -> str:
        """The name of int64[n]."""
        return self.constant(np.array(values, np.int64))

    def full(self, name: str, aval: Any) -> str:
        """The array in its whole shape, where it was left to broadcasting."""
        if name not in self._shapes:
            return name
        batch = self.add("Shape", ["images"], start=0, end=1)
        sizes = [batch if is_batch(n) else self.integers([n]) for n in aval.shape]
        shape = self.add("Concat", sizes, axis=0) if sizes else self.integers([])
        return self.add("Expand", [name, shape])

    def model(self, images: Any, logits: Any) -> bytes:
        """The whole model, checked."""
        make, onnx = self._onnx.helper, self._onnx
        ends = []
        for name, aval in (("images", images), ("logits", logits)):
            kind = make.np_dtype_to_tensor_dtype(np.dtype(aval.dtype))
            shape = ["batch" if is_batch(n) else n for n in aval.shape]
            ends.append(make.make_tensor_value_info(name, kind, shape))
        graph = make.make_graph(
            self._nodes, "network", ends[:1], ends[1:], self._initializers
        )
        opset = make.make_opsetid("", OPSET)
        model = make.make_model(
            graph,
            opset_imports=[opset],
            ir_version=_IR_VERSION,
            producer_name="cellwright",
        )
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString()

    # ---- primitives -----------------------------------------------------------------

    def read(self, value: Input) -> str:
        """The name of an input of a step."""
        return self._names[value] if isinstance(value, str) else self.constant(value)

    def step(self, step: Step) -> None:
        """Adds the nodes of one primitive."""
        inputs = [self.read(value) for value in step.inputs]
        self._names[step.output] = self._primitive(step.equation, inputs)

    def _primitive(self, equation: Any, inputs: list[str]) -> str:
        name = equation.primitive.name
        if name in _ELEMENTWISE:
            return self._elementwise(_ELEMENTWISE[name], inputs, equation)
        if name == "rsqrt":
            root = self._elementwise("Sqrt", inputs, equation)
            return self._elementwise("Reciprocal", [root], equation)
        if name == "broadcast_in_dim":
            return self._broadcast(equation, inputs[0])
        method = getattr(self, f"_{name}", None)
        if method is None:
            raise NotImplementedError(f"no ONNX for the primitive {name!r}")
        pairs = zip(inputs, equation.invars, strict=True)
        whole = [self.full(n, v.aval) for n, v in pairs]
        return method(whole, equation, **equation.params)

    def _elementwise(self, op: str, inputs: Sequence[str], equation) -> str:
        """An op that broadcasts; smaller than its array where all its inputs are."""
        name = self.add(op, inputs)
        if all(i in self._shapes for i in inputs):
            self._shapes[name] = equation.outvars[0].aval.shape
        return name

    def _broadcast(self, equation, name: str) -> str:
        """Ones where it is broadcast; elementwise ops do the rest."""
        aval, out = equation.invars[0].aval, equation.outvars[0].aval
        kept = equation.params["broadcast_dimensions"]
        shape = [1] * len(out.shape)
        for size, place in zip(aval.shape, kept, strict=True):
            shape[place] = -1 if is_batch(size) else size
        if name in self._shapes and any(map(is_batch, aval.shape)):
            name = self.full(name, aval)
        reshaped = self.add("Reshape", [name, self.integers(shape)])
        if any(is_batch(b) or a != b for a, b in zip(shape, out.shape, strict=True)):
            self._shapes[reshaped] = out.shape
        return reshaped

    def _reshape(self, inputs, equation, *, new_sizes, **_) -> str:
        sizes = [-1 if is_batch(n) else n for n in new_sizes]
        if sizes.count(-1) > 1:
            raise NotImplementedError(f"no ONNX for a reshape to {new_sizes}")
        return self.add("Reshape", [inputs[0], self.integers(sizes)])

    def _squeeze(self, inputs, equation, *, dimensions, **_) -> str:
        return self.add("Squeeze", [inputs[0], self.integers(dimensions)])

    def _transpose(self, inputs, equation, *, permutation) -> str:
        return self.add("Transpose", inputs, perm=list(permutation))

    def _concatenate(self, inputs, equation, *, dimension) -> str:
        return self.add("Concat", inputs, axis=dimension)

    def _convert_element_type(self, inputs, equation, *, new_dtype, **_) -> str:
        kind = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(new_dtype))
        return self.add("Cast", inputs, to=kind)

    def _slice(self, inputs, equation, *, start_indices, limit_indices, strides) -> str:
        shape = equation.invars[0].aval.shape
        axes = [i for i, n in enumerate(shape) if not is_batch(n)]
        steps = strides or [1] * len(shape)
        parts = [[of[i] for i in axes] for of in (start_indices, limit_indices)]
        parts += [axes, [steps[i] for i in axes]]
        return self.add("Slice", [inputs[0], *map(self.integers, parts)])

    def _pad(self, inputs, equation, *, padding_config) -> str:
        if any(low < 0 or high < 0 or inner for low, high, inner in padding_config):
            raise NotImplementedError(f"no ONNX for the padding {padding_config}")
        lows, highs, _ = zip(*padding_config, strict=True)
        return self.add("Pad", [inputs[0], self.integers([*lows, *highs]), inputs[1]])

    def _reduce_sum(self, inputs, equation, *, axes, **_) -> str:
        return self.add("ReduceSum", [inputs[0], self.integers(axes)], keepdims=0)

    def _dot_general(self, inputs, equation, *, dimension_numbers, **_) -> str:
        if dimension_numbers != (((1,), (0,)), ((), ())):
            raise NotImplementedError(f"no ONNX for the product {dimension_numbers}")
        return self.add("MatMul", inputs)

    def _conv_general_dilated(self, inputs, equation, **params) -> str:
        if set(params["lhs_dilation"]) != {1} or params["batch_group_count"] != 1:
            raise NotImplementedError("no ONNX for a transposed convolution")
        left, right, out = params["dimension_numbers"]
        image = self.add("Transpose", inputs[:1], perm=list(left))
        kernel = self.add("Transpose", inputs[1:], perm=list(right))
        found = self.add(
            "Conv",
            [image, kernel],
            strides=list(params["window_strides"]),
            pads=_pads(params["padding"]),
            dilations=list(params["rhs_dilation"]),
            group=params["feature_group_count"],
        )
        return self.add("Transpose", [found], perm=np.argsort(out).tolist())

    def _reduce_window_max(self, inputs, equation, **params) -> str:
        return self._pool("MaxPool", inputs[0], params)

    def _reduce_window_sum(self, inputs, equation, **params) -> str:
        window = params["window_dimensions"]
        mean = self._pool("AveragePool", inputs[0], params, count_include_pad=1)
        dtype = equation.outvars[0].aval.dtype
        size = self.constant(np.array(np.prod(window), dtype))
        return self.add("Mul", [mean, size])

    def _pool(self, op: str, name: str, params: Mapping, **attributes) -> str:
        window, strides = params["window_dimensions"], params["window_strides"]
        if len(window) != 4 or window[0] != 1 or window[3] != 1:
            raise NotImplementedError(f"no ONNX for a pool with the window {window}")
        if {*params["base_dilation"], *params["window_dilation"]} != {1}:
            raise NotImplementedError("no ONNX for a dilated pool")
        image = self.add("Transpose", [name], perm=[0, 3, 1, 2])
        found = self.add(
            op,
            [image],
            kernel_shape=list(window[1:3]),
            strides=list(strides[1:3]),
            pads=_pads(params["padding"][1:3]),
            **attributes,
        )
        return self.add("Transpose", [found], perm=[0, 2, 3, 1])


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """ONNX lists all beginnings, then all ends."""
    return [low for low, _ in padding] + [high for _, high in padding]
