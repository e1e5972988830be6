"""Describes an architecture: parameters, multiply-adds, decisions, a picture in text.

    python -m launch.describe --arch=NASNet-A-mobile [--json]
    python -m launch.describe --arch=NASNet-A-CIFAR --config.space.channels=44
    python -m launch.describe --arch=runs/enas/result.json [--draw=cell.svg]
    python -m launch.describe --config=configs/enas_micro_cifar10.py [--arch=ARC]
    python -m launch.describe --config=configs/enas_micro_cifar10.py --explain

``--arch`` is a published name, a file (result.json, retrain.json, an artefact, a text),
a genotype, a NAS-Bench-201 string or an ENAS arc.  A published name carries its own
sizes, a result.json those of its workdir; a text without a config gets those of its
paper.  ``--config.space.*`` changes them, with or without ``--config``; ``--image`` and
``--classes`` do so for the images.  Without an architecture the space is described.
``--compile`` compiles its supernet's training step and tells time and memory; without
it shapes suffice, nothing is loaded or compiled.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from child_models.cost import count
from child_models.spaces import PUBLISHED, SPACES
from child_models.types import Space
from controller.spec import GraphSpec, Spec
from launch import command
from launch.architectures import Subject, find
from launch.build import build_space, resolve
from launch.command import UserError, user_errors
from launch.explain import explain, explain_comparison
from launch.figures.text import picture
from launch.glance import decisions_table, sizes, sizes_table
from launch.settings import check_known, check_section, fill
from launch.supernet_step import (
    compile_step,
    estimate_lines,
    measured_line,
    trace_step,
)


def describe(subject: Subject) -> dict[str, Any]:
    """Counts the final form of an architecture.

    Args:
      subject: with an architecture.

    Returns:
      {"params", "params_aux", "macs", "decisions", "genotype"}.

    Raises:
      UserError: on an unknown argument of the space, or an illegal architecture.
    """
    space = build(subject)
    with user_errors("--arch"):
        if isinstance(subject.arch, str):
            decisions = space.spec.decode(subject.arch)
        else:
            decisions = space.spec.validate(subject.arch)
    with user_errors("--arch"):  # images too small for the network
        cost = count(space.module("final"), space.bind(decisions), subject.image)
    return {
        **cost._asdict(),
        "decisions": list(decisions),
        "genotype": space.spec.encode(decisions),
    }


def build(subject: Subject) -> Space:
    """The space of a subject, at its sizes.

    Raises:
      UserError: on an unknown space, argument or value.
    """
    if subject.space not in SPACES:
        known = ", ".join(sorted(SPACES))
        raise UserError(f"config.space.name is {subject.space!r}; known: {known}")
    factory = SPACES[subject.space]
    options = fill("config.space", factory, subject.options, {"classes"})
    with user_errors("config.space"):
        return factory(classes=subject.classes, **options)


# ---- text ---------------------------------------------------------------------------


def _sizes(subject: Subject) -> str:
    options = ", ".join(f"{k}={v}" for k, v in subject.options.items())
    image = "x".join(map(str, subject.image))
    return f"{subject.space}: {options}; images {image}, {subject.classes} classes"


def summary(spec: Spec) -> str:
    """A space without an architecture: how large it is, and what is decided."""
    if isinstance(spec, GraphSpec):
        return "graphs without bound"
    groups = ", ".join(f"{len(ts)} {group}" for group, ts in spec.groups.items())
    size = spec.size()
    return f"{spec.length} decisions ({groups}), {size:,} architectures ({size:.3g})"


def glance(
    subject: Subject, config: Mapping[str, Any] | None, compiles: bool = False
) -> None:
    """Prints what there is to choose, how large networks are, what a supernet takes.

    Args:
      subject: without an architecture; of the network that is retrained.
      config: of the search, None for a space alone.
      compiles: whether the supernet's step is compiled.

    Raises:
      UserError: if there is no supernet to compile.
    """
    space = build(subject)
    print(summary(space.spec))
    if isinstance(space.spec, GraphSpec):
        return
    print(decisions_table(space.spec), flush=True)
    with user_errors("config.space"):  # images too small for the network
        print(sizes_table(sizes(space, subject.image)), flush=True)
    resolved = None if config is None else resolve(config)
    binding = None if resolved is None else _BINDINGS.get(resolved.evaluator.name)
    searched = None if binding is None else build_space(resolved, subject.classes)
    if searched is None or binding not in searched.bindings:
        if compiles:
            raise UserError("--compile: a supernet is compiled, and this has none")
        return
    batch_size = resolved.evaluator.batch_size
    of = (searched, subject.image, batch_size, binding)
    found = trace_step(*of)
    print(estimate_lines(found, batch_size, measured=compiles), flush=True)
    if compiles:
        print(measured_line(compile_step(*of), found.operations), flush=True)


_BINDINGS = {"shared_weights": "sampled", "relaxed": "relaxed"}  # of a step


def draw(
    path: str, subject: Subject, spec: Spec, decisions: Sequence[int], title: str
) -> None:
    """Writes the picture of an architecture.

    Raises:
      UserError: if the file is not an SVG or PNG, or cannot be written.
    """
    from launch.figures.graphs import graphs  # matplotlib takes a second to load
    from launch.figures.image import write

    with user_errors("--draw"):
        drawn = graphs(spec, decisions, subject.space, subject.options)
        write(path, drawn, title)


# ---- the program --------------------------------------------------------------------


def main() -> None:
    """Prints the description of what the flags name."""
    options = flags.FLAGS
    given, config = command.override({}), None
    if options.config is not None:
        config = command.config_from_flags()
    else:
        check_known("config", given, ["space"])
    sizes = given.get("space", {})
    check_section("config.space", sizes)
    if options.explain:
        config = _needed(config)
        comparison = "strategies" in config
        print(explain_comparison(config) if comparison else explain(resolve(config)))
        return
    subject = find(options.arch, config, sizes)
    if options.image is not None:
        subject = subject._replace(image=_image(options.image))
    if options.classes is not None:
        subject = subject._replace(classes=options.classes)
    if subject.arch is None:
        print(_sizes(subject))
        glance(subject, config, options.compile)
        return
    found = describe(subject)
    spec = build(subject).spec
    if options.draw is not None:
        title = options.arch if options.arch in PUBLISHED else subject.space
        draw(options.draw, subject, spec, found["decisions"], title)
    if options.json:
        print(json.dumps(found))
        return
    print(_sizes(subject))
    print(found["genotype"])
    print(picture(spec, found["decisions"]))
    for name in ("params", "params_aux", "macs"):
        print(f"{name:10}  {found[name]:,}")


def _needed(config: Mapping[str, Any] | None) -> Mapping[str, Any]:
    if config is None:
        raise UserError("--explain lists the keys of a config; give --config=FILE")
    return config


def _image(given: list[str]) -> tuple[int, int, int]:
    try:
        height, width, channels = (int(n) for n in given)
    except ValueError:
        raise UserError(f"--image is {','.join(given)}; it must be H,W,C") from None
    if min(height, width, channels) < 1:
        raise UserError(f"--image is {','.join(given)}; sizes are 1 or more")
    return height, width, channels


if __name__ == "__main__":
    command.define_config(required=False)
    flags.DEFINE_string("arch", None, "published name, file, string, arc or genotype")
    flags.DEFINE_bool("json", False, "one line of JSON")
    flags.DEFINE_string("draw", None, "a .svg or .png file that the picture is put in")
    flags.DEFINE_bool("compile", False, "measure what the supernet takes to compile")
    flags.DEFINE_bool("explain", False, "what each key of the config means")
    flags.DEFINE_list("image", None, "H,W,C of the images")
    flags.DEFINE_integer("classes", None, "number of classes", lower_bound=1)
    command.run(main)
