"""Published cells of DARTS's space, and cells of other spaces in DARTS's form.

The cells are those of the authors' genotypes.py (quark0/darts, yuhuixu1993/PC-DARTS,
chenxin061/pdarts); NASNet's and AmoebaNet's are the form in which quark0/darts trains
them.  ASAP's cell, https://arxiv.org/abs/1904.04123, is a transcription by others.
"""

from child_models.genotype import Genotype, write_genotype
from child_models.spaces.darts import darts
from child_models.spaces.darts_spec import darts_arguments
from child_models.types import Published

_OPS = {
    "max": "max_pool_3x3",
    "avg": "avg_pool_3x3",
    "skip": "skip_connect",
    "sep3": "sep_conv_3x3",
    "sep5": "sep_conv_5x5",
    "sep7": "sep_conv_7x7",
    "dil3": "dil_conv_3x3",
    "dil5": "dil_conv_5x5",
    "7x1": "conv_7x1_1x7",
}
_CELLS = {  # op@state, two a node; the normal and the reduction cell
    "DARTS_V1": (
        "sep3@1 sep3@0 | skip@0 sep3@1 | skip@0 sep3@1 | sep3@0 skip@2",
        "max@0 max@1 | skip@2 max@0 | max@0 skip@2 | skip@2 avg@0",
    ),
    "DARTS_V2": (
        "sep3@0 sep3@1 | sep3@0 sep3@1 | sep3@1 skip@0 | skip@0 dil3@2",
        "max@0 max@1 | skip@2 max@1 | max@0 skip@2 | skip@2 max@1",
    ),
    "PC_DARTS_cifar": (
        "sep3@1 skip@0 | sep3@0 dil3@1 | sep5@0 sep3@1 | avg@0 dil3@1",
        "sep5@1 max@0 | sep5@1 sep5@2 | sep3@0 sep3@3 | sep3@1 sep3@2",
    ),
    "PC_DARTS_image": (
        "skip@1 sep3@0 | sep3@0 skip@1 | sep3@1 sep3@3 | sep3@1 dil5@4",
        "sep3@0 skip@1 | dil5@2 max@1 | sep3@2 sep3@1 | sep5@0 sep3@3",
    ),
    "PDARTS": (
        "skip@0 dil3@1 | skip@0 sep3@1 | sep3@1 sep3@3 | sep3@0 dil5@4",
        "avg@0 sep5@1 | sep3@0 dil5@2 | max@0 dil3@1 | dil3@1 dil5@3",
    ),
    "ASAP": (
        "sep3@0 sep3@1 | sep3@1 skip@0 | skip@0 skip@2 | skip@1 skip@2",
        "avg@0 sep3@1 | avg@0 dil5@2 | max@1 skip@2 | max@0 skip@2",
    ),
    "NASNet-DARTS": (
        "sep5@1 sep3@0 | sep5@0 sep3@0 | avg@1 skip@0 | avg@0 avg@0 | sep3@1 skip@1",
        "sep5@1 sep7@0 | max@1 sep7@0 | avg@1 sep5@0 | skip@3 avg@2 | sep3@2 max@1",
    ),
    "AmoebaNet-A-DARTS": (
        "avg@0 max@1 | sep3@0 sep5@2 | sep3@0 avg@3 | sep3@1 skip@1 | skip@0 avg@1",
        "avg@0 sep3@1 | max@0 sep7@2 | sep7@0 avg@1 | max@0 max@1 | 7x1@0 sep3@5",
    ),
}
_CONCATS = {
    "NASNet-DARTS": (range(2, 7), (4, 5, 6)),
    "AmoebaNet-A-DARTS": ((4, 5, 6), (3, 4, 6)),
}
_CIFAR = ((32, 32, 3), {"classes": 10, "channels": 36, "cells": 20})
_IMAGENET = (
    (224, 224, 3),
    {"classes": 1000, "channels": 48, "cells": 14, "stem": "imagenet"},
)


def _pairs(cell: str) -> list[tuple[str, int]]:
    edges = (edge.split("@") for edge in cell.replace("|", " ").split())
    return [(_OPS[op], int(state)) for op, state in edges]


def _published(name: str, setting: tuple) -> Published:
    image, sizes = setting
    concats = _CONCATS.get(name, (range(2, 6), range(2, 6)))
    normal, reduce = (_pairs(cell) for cell in _CELLS[name])
    genotype = Genotype(normal, concats[0], reduce, concats[1])
    arguments = {**sizes, "aux_head": True, **darts_arguments(genotype)}
    spec = darts(**arguments).spec
    # By the codec alone: to validate is to compute, which an import may not begin.
    decisions = tuple(spec.codec.decode(spec, write_genotype(genotype)))
    return Published("darts", arguments, image, decisions)


PUBLISHED = {
    name: _published(name, _IMAGENET if name == "PC_DARTS_image" else _CIFAR)
    for name in _CELLS
}
