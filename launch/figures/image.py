"""Pictures of architectures, SVG or PNG, by matplotlib; no other program is needed."""

import functools
import io
import itertools
import re
from collections.abc import Mapping

import matplotlib
import networkx as nx
import numpy as np
from etils import epath

matplotlib.use("Agg")
from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from matplotlib.font_manager import FontProperties  # noqa: E402
from matplotlib.patches import FancyBboxPatch, PathPatch  # noqa: E402
from matplotlib.path import Path  # noqa: E402
from matplotlib.textpath import TextPath  # noqa: E402

from launch.figures.layout import (
    FONT_SIZE,
    LINE_HEIGHT,
    Box,
    Layout,
    Line,
    lay_out,
    moved,
)

FORMATS = ("svg", "png")
INK = "#222222"  # of lines and titles; labels stand on light boxes
_FONT = "DejaVu Sans"  # comes with matplotlib; browsers may take a narrower one
_MARGIN = 12.0
_POINTS = 72.0  # an inch
_DPI = 160
_COLORS = (  # of an op, by what its name begins with
    (("none", "absent", "zero"), "#eeeeee"),
    (("skip", "identity"), "#e0e0e0"),
    (("avg_pool",), "#fde3b4"),
    (("max_pool",), "#f9cfa0"),
    (("sep_conv",), "#bcd9f5"),
    (("dil",), "#bfe5df"),
    (("mb", "inverted"), "#d9cdf2"),
    (("conv", "nor_conv"), "#c9d0f2"),
)
_SKIPS = ("#1f77b4", "#d1661a", "#2b8a3e", "#c92a2a", "#7b5cb8", "#99643b", "#0b8b92")
_STATE, _OTHER = "#ffffff", "#f3cfdc"


def color(op: str) -> str:
    """The colour of an op's box, by the kind of the op."""
    for beginnings, found in _COLORS:
        if op.startswith(beginnings):
            return found
    return _OTHER


def figure(graphs: Mapping[str, nx.MultiDiGraph], title: str = "") -> Figure:
    """Draws graphs below one another, each with its name, below a title."""
    layouts = {name: lay_out(graph, text_width) for name, graph in graphs.items()}
    tops, bottom = {}, _MARGIN + (2 * LINE_HEIGHT if title else 0.0)
    for name, layout in layouts.items():
        tops[name] = bottom + (1.7 * LINE_HEIGHT if name else 0.0)
        bottom = tops[name] + layout.height + 2 * _MARGIN
    widths = [
        *(layout.width for layout in layouts.values()),
        *map(text_width, (title, *layouts)),
    ]
    width = max(widths) + 2 * _MARGIN
    found = Figure(figsize=(width / _POINTS, bottom / _POINTS))
    axis = found.add_axes((0, 0, 1, 1))
    axis.set_xlim(0, width)
    axis.set_ylim(bottom, 0)
    axis.axis("off")
    if title:
        _text(axis, _MARGIN, _MARGIN + LINE_HEIGHT / 2, title, weight="bold", left=True)
    for name, layout in layouts.items():
        if name:
            y = tops[name] - LINE_HEIGHT
            _text(axis, _MARGIN, y, name, weight="bold", left=True)
        _draw(axis, moved(layout, _MARGIN, tops[name]))
    return found


def _draw(axis, layout: Layout) -> None:
    for line in layout.lines:
        axis.add_patch(_line(line))
        if line.arrow:
            axis.add_patch(_arrowhead(line))
    for box in layout.boxes:
        _box(axis, box)


def _line(line: Line) -> PathPatch:
    """Curves between columns, straight across them."""
    points, codes = [line.points[0]], [Path.MOVETO]
    for i, ((x, y), (right, level)) in enumerate(itertools.pairwise(line.points)):
        if i % 2:  # from one column to the next
            middle = (x + right) / 2
            points += [(middle, y), (middle, level), (right, level)]
            codes += [Path.CURVE4] * 3
        elif right != x:
            points.append((right, level))
            codes.append(Path.LINETO)
    path = Path(points, codes)
    return PathPatch(path, fill=False, edgecolor=_line_color(line), linewidth=0.9)


def _line_color(line: Line) -> str:
    """Ink; skips have colours of their own, for they run side by side."""
    return _SKIPS[line.source % len(_SKIPS)] if line.kind == "skip" else INK


def _arrowhead(line: Line) -> PathPatch:
    x, y = line.points[-1]
    points = [(x, y), (x - 5, y - 2.6), (x - 5, y + 2.6)]
    path = Path([*points, points[0]], closed=True)
    return PathPatch(path, facecolor=_line_color(line), edgecolor="none")


def _box(axis, box: Box) -> None:
    fill = _STATE
    if box.kind != "state":
        fill = color(box.label if box.kind == "op" else box.label.split("\n")[1])
    rounding = box.height / 2 if box.kind == "state" else 3.0
    shape = FancyBboxPatch(
        (box.x - box.width / 2, box.y - box.height / 2),
        box.width,
        box.height,
        boxstyle=f"round,pad=0,rounding_size={rounding}",
        facecolor=fill,
        edgecolor="#666666",
        linewidth=1.1 if box.kind == "state" else 0.6,
    )
    axis.add_patch(shape)
    lines = box.label.split("\n")
    for i, text in enumerate(lines):
        y = box.y + (i - (len(lines) - 1) / 2) * LINE_HEIGHT
        _text(axis, box.x, y, text, color="#111111")


def _text(axis, x, y, text, *, color=INK, weight="normal", left=False) -> None:
    axis.text(
        x,
        y,
        text,
        ha="left" if left else "center",
        va="center_baseline",
        fontsize=FONT_SIZE,
        fontfamily=_FONT,
        fontweight=weight,
        color=color,
        parse_math=False,
    )


@functools.lru_cache(4096)
def text_width(text: str) -> float:
    """Width of a line of text in points."""
    if not text.strip():
        return 0.0
    font = FontProperties(family=_FONT)
    return TextPath((0, 0), text, size=FONT_SIZE, prop=font).get_extents().width


# ---- files --------------------------------------------------------------------------


def svg(graphs: Mapping[str, nx.MultiDiGraph], title: str = "") -> str:
    """The picture as an SVG file's text, the same for the same graphs."""
    buffer = io.StringIO()
    fixed = {"svg.fonttype": "none", "svg.hashsalt": title or "cellwright"}
    with matplotlib.rc_context(fixed):
        figure(graphs, title).savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None}
        )
    return buffer.getvalue()


def inline_svg(graphs: Mapping[str, nx.MultiDiGraph], label: str) -> str:
    """The picture as an element of a page, in the page's own colour of text.

    Args:
      graphs: by name.
      label: what screen readers say.
    """
    text = svg(graphs)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' (id|xmlns:xlink|xmlns|clip-path)="[^"]*"', "", text)
    text = re.sub(r"<defs>.*?</defs>", "", text, flags=re.DOTALL)
    text = re.sub(r"\n\s*", " ", text).replace(INK, "currentColor")
    safe = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{safe}"', 1)


def pixels(graphs: Mapping[str, nx.MultiDiGraph], title: str = "") -> np.ndarray:
    """The picture as uint8[H, W, 3]."""
    drawn = figure(graphs, title)
    drawn.set_dpi(_DPI / 2)
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def write(
    path: epath.PathLike, graphs: Mapping[str, nx.MultiDiGraph], title: str = ""
) -> None:
    """Writes the picture, in the format that the file's name ends with.

    Raises:
      ValueError: on another ending than those of `FORMATS`.
    """
    path = epath.Path(path)
    ending = path.suffix.removeprefix(".").lower()
    if ending not in FORMATS:
        known = " or ".join(f".{name}" for name in FORMATS)
        raise ValueError(f"cannot draw to {path}: its name must end in {known}")
    if ending == "svg":
        path.write_text(svg(graphs, title))
        return
    buffer = io.BytesIO()
    figure(graphs, title).savefig(buffer, format="png", dpi=_DPI)
    path.write_bytes(buffer.getvalue())
