"""Exports a retrained network to forms that need nothing of this project.

    python -m launch.export --workdir=runs/enas [--out=FOLDER] [--onnx] [--network=FILE]

The folder, by default ``export`` in the workdir, gets

    architecture.json   space, sizes, decisions; DARTS's Genotype where there is one
    genotype.txt        DARTS's Genotype(...), else the space's own text
    params.safetensors  parameters and batch statistics, by "collection/module/name"
    model.stablehlo     ``(weights, images uint8[B, H, W, C]) -> float32[B, classes]``
                        of `jax.export`, for any B, on CPU, GPU and TPU
    load.py             runs the two on images; an example to start from
    network.py          the network in plain Flax, a line an operation
    model.onnx          the same network for ONNX runtimes, with ``--onnx``

It needs ``pip install -e '.[export]'``, and '.[onnx]' for ONNX.
"""

import contextlib
import json
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.export
import numpy as np
from absl import flags
from etils import epath
from flax import traverse_util

from child_models.genotype import GENOTYPE_CELLS
from child_models.ops.lowering import shapes_only
from child_models.spaces import SPACES
from controller.spec import GraphSpec, Spec
from launch import command
from launch.artifact import Artifact, forward, load_artifact
from launch.command import UserError, command_line, user_errors
from launch.figures.graphs import OUTPUT, graphs
from launch.flax_source import flax_source
from launch.onnx_graph import to_onnx
from launch.workdir import write_json

PLATFORMS = ("cpu", "cuda", "tpu")

_LOAD = string.Template('''"""Runs the exported network: python load.py [IMAGES.npy].

Images are uint8[B, $shape].  Needs jax and safetensors.
"""

import pathlib
import sys

import numpy as np
from jax import export
from safetensors.numpy import load_file

folder = pathlib.Path(__file__).parent
network = export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
weights = load_file(folder / "params.safetensors")
images = np.load(sys.argv[1]) if sys.argv[1:] else np.zeros((2, $shape), np.uint8)
print(np.asarray(network.call(weights, images)))
''')


def flatten(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays by "collection/module/.../name"."""
    flat = traverse_util.flatten_dict(dict(variables), sep="/")
    return {name: np.ascontiguousarray(array) for name, array in flat.items()}


def genotype(cells: Mapping[str, Any]) -> dict[str, Any] | None:
    """DARTS's fields: pairs (op, state), two a node, and the states that are returned.

    States 0 and 1 are the outputs of the cell before the last and of the last.

    Args:
      cells: graphs of an architecture.

    Returns:
      {"normal", "normal_concat", "reduce", "reduce_concat"}, None where the cells are
      not these or not of that form.
    """
    fields: dict[str, Any] = {}
    for name, graph in cells.items():
        states = [node for node in graph if node != OUTPUT]
        labels = [graph.nodes[node]["label"] for node in states]
        if labels[:2] != ["c_{k-2}", "c_{k-1}"] or not all(
            map(str.isdigit, labels[2:])
        ):
            return None
        pairs = []
        for node in states[2:]:
            entering = list(graph.in_edges(node, data="label"))
            if len(entering) != 2:
                return None
            pairs += [[op, states.index(source)] for source, _, op in entering]
        fields[name] = pairs
        returned = graph.predecessors(OUTPUT)
        fields[f"{name}_concat"] = sorted(map(states.index, returned))
    return fields if {*GENOTYPE_CELLS} <= fields.keys() else None


def as_text(fields: Mapping[str, Any]) -> str:
    """``Genotype(normal=[(op, state), ...], normal_concat=[...], ...)``."""
    shown = [
        f"{name}={value if name.endswith('_concat') else [tuple(p) for p in value]}"
        for name, value in fields.items()
    ]
    return f"Genotype({', '.join(shown)})"


def texts(
    spec: Spec, decisions: Sequence[int], space: str, options: Mapping[str, Any]
) -> tuple[str, dict[str, Any] | None]:
    """An architecture as text, and DARTS's fields of it.

    Args:
      spec: of the space.
      decisions: int[T], legal.
      space: its name.
      options: arguments of it.

    Returns:
      DARTS's ``Genotype(...)`` where the space reads that, else the space's own text;
      and what `genotype` finds.
    """
    text, fields = spec.encode(decisions), None
    if not isinstance(spec, GraphSpec):
        fields = genotype(graphs(spec, decisions, space, options))
    if fields is not None:
        with contextlib.suppress(ValueError):
            if spec.decode(as_text(fields)) == tuple(decisions):
                text = as_text(fields)
    return text, fields


def stablehlo(network: Artifact) -> bytes:
    """The network as `jax.export` serialises it, for any number of images."""
    run = _named(forward(network.description))
    weights = {
        name: jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in flatten(network.variables).items()
    }
    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, *network.description["image"])
    images = jax.ShapeDtypeStruct(shape, np.uint8)
    with shapes_only():  # XLA's own operations, for all platforms
        exported = jax.export.export(jax.jit(run), platforms=PLATFORMS)
        return bytes(exported(weights, images).serialize())


def source(network: Artifact) -> str:
    """The network as a file in plain Flax, see `flax_source`.

    Raises:
      UserError: if the network has a part that is not known there.
    """
    description = network.description
    run, weights = _named(forward(description)), flatten(network.variables)
    about = f"{description['space']['name']}: {description['genotype']}"
    try:
        with shapes_only():
            return flax_source(run, weights, description["image"], about)
    except NotImplementedError as error:
        raise UserError(f"network.py: {error}") from error


def onnx(network: Artifact) -> bytes:
    """The network as an ONNX model in float32, for any number of images.

    Raises:
      UserError: if onnx is not installed, or the network has a part that it lacks.
    """
    description = network.description
    space = dict(description["space"])
    if "dtype" in space:  # of activations; ONNX's operations know no bfloat16
        space["dtype"] = "float32"
    run = _named(forward({**description, "space": space}))
    try:
        with shapes_only():
            return to_onnx(run, flatten(network.variables), description["image"])
    except ImportError as error:
        raise UserError("--onnx needs onnx: pip install -e '.[onnx]'") from error
    except NotImplementedError as error:
        raise UserError(f"--onnx: {error}") from error


def _named(run: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """The function of flat weights."""

    def call(weights, images):
        return run(traverse_util.unflatten_dict(weights, sep="/"), images)

    return call


def export(network: Artifact, folder: epath.PathLike) -> list[epath.Path]:
    """Writes all files but ONNX's.

    Args:
      network: as it was retrained.
      folder: made if there is none.

    Returns:
      the files.

    Raises:
      UserError: if a package is not installed, or the folder cannot be written.
    """
    try:
        import flatbuffers  # noqa: F401, which jax.export needs
        from safetensors.numpy import save
    except ImportError as error:
        raise UserError(
            f"launch.export needs {error.name}: pip install -e '.[export]'"
        ) from error
    description = dict(network.description)
    options = dict(description["space"])
    name = options.pop("name")
    spec, decisions = SPACES[name](**options).spec, description["decisions"]
    text, fields = texts(spec, decisions, name, options)
    shape = ", ".join(map(str, description["image"]))
    folder = epath.Path(folder)
    with user_errors(f"cannot write {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "architecture.json", {**description, "darts": fields})
        weights = flatten(network.variables)
        metadata = {"description": json.dumps(description)}
        files = {
            "genotype.txt": f"{text}\n".encode(),
            "params.safetensors": save(weights, metadata),
            "model.stablehlo": stablehlo(network),
            "network.py": source(network).encode(),
            "load.py": _LOAD.substitute(shape=shape).encode(),
        }
        for file, content in files.items():
            (folder / file).write_bytes(content)
    return [folder / file for file in ("architecture.json", *files)]


def main() -> None:
    """Exports the network that the flags name."""
    options = flags.FLAGS
    workdir = epath.Path(options.workdir)
    path = workdir / options.network
    if not path.exists():
        line = command_line("-m", "launch.retrain", f"--workdir={workdir}")
        raise UserError(f"{workdir} has no retrained {options.network}; run: {line}")
    out = epath.Path(options.out or workdir / "export")
    network = load_artifact(path)
    written = export(network, out)
    if options.onnx:
        written.append(out / "model.onnx")
        written[-1].write_bytes(onnx(network))
    for path in written:
        print(path)


if __name__ == "__main__":
    command.define_workdir()
    flags.DEFINE_string("out", None, "the folder; by default export/ in the workdir")
    flags.DEFINE_bool("onnx", False, "an ONNX model too")
    flags.DEFINE_string("network", "winner.msgpack", "a file of launch.retrain")
    command.run(main)
