"""A graph of boxes laid out in layers (Sugiyama et al. 1981, by igraph) and drawn as SVG or PNG by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from nas.errors import MissingDependency, NasValueError, explain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Group: TypeAlias = Literal["data", "convolution", "linear", "pool", "norm", "activation", "identity", "join", "other"]

COLORS: dict[Group, str] = {
    "data": "#ffffff",
    "convolution": "#cfe2f7",
    "linear": "#d9d3f2",
    "pool": "#f9dfc4",
    "norm": "#eef3c8",
    "activation": "#f7f0c0",
    "identity": "#e4e4e4",
    "join": "#d2efd6",
    "other": "#f4d7e3",
}
_CHARACTER, _LINE, _MARGIN, _GAP = 0.085, 0.17, 0.16, 0.38  # inches


@final
@dataclass(frozen=True, kw_only=True)
class Box:
    """A node: what is written in it, and what it is."""

    text: str
    group: Group

    @property
    def width(self) -> float:
        """Inches."""
        return max(map(len, self.text.splitlines())) * _CHARACTER + _MARGIN

    @property
    def height(self) -> float:
        """Inches."""
        return len(self.text.splitlines()) * _LINE + 0.6 * _MARGIN


@final
@dataclass(kw_only=True)
class Graph:
    """Boxes, and arrows between them."""

    title: str = ""
    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, text: str, group: Group, *inputs: int) -> int:
        """A box with arrows from others; its number."""
        self.boxes.append(Box(text=text, group=group))
        self.edges += [(source, len(self.boxes) - 1) for source in inputs]
        return len(self.boxes) - 1


@final
class Drawing:
    """Graphs side by side, to be shown in a notebook or saved."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self.graphs = tuple(graphs)

    def save(self, path: str | Path) -> Path:
        """Writes `.svg` or `.png`, by the ending of the path; the same graphs give the same bytes.

        Raises:
            NasValueError: another ending.
        """
        path = Path(path)
        if path.suffix not in (".svg", ".png"):
            raise NasValueError(explain("drawings are saved as .svg or .png", got=str(path), where="draw"))
        path.write_bytes(self._render(path.suffix[1:]))
        return path

    def _repr_svg_(self) -> str:
        return self._render("svg").decode()

    def _repr_png_(self) -> bytes:
        return self._render("png")

    def _render(self, form: str) -> bytes:
        matplotlib, figure = _matplotlib(), _figure(self.graphs)
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "nas", "svg.fonttype": "none"}):
            figure.savefig(buffer, format=form, dpi=150, metadata={"Date": None} if form == "svg" else None)
        return buffer.getvalue()


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency(_MISSING) from error
    return matplotlib


_MISSING = explain("drawing needs matplotlib and igraph", mend='pip install "torch-nas[draw]"')


@final
@dataclass(frozen=True, kw_only=True)
class _Placed:
    """Where boxes and arrows lie, in inches, y downwards."""

    centers: list[tuple[float, float]]
    paths: list[list[tuple[float, float]]]
    width: float
    height: float


def _place(graph: Graph) -> _Placed:
    try:
        import igraph
    except ImportError as error:
        raise MissingDependency(_MISSING) from error
    drawn = igraph.Graph(n=len(graph.boxes), edges=graph.edges, directed=True)
    widest = max(box.width for box in graph.boxes)
    layout = drawn.layout_sugiyama(hgap=widest + _GAP, maxiter=500)
    bends = layout.edge_routing
    layers = [round(y) for _, y in layout.coords[: len(graph.boxes)]]
    tall = [0.0] * (max(layers) + 1)
    for box, layer in zip(graph.boxes, layers, strict=True):
        tall[layer] = max(tall[layer], box.height)
    middle, y = [], 0.0
    for height in tall:
        middle.append(y + height / 2)
        y += height + _GAP
    xs = [x for x, _ in layout.coords[: len(graph.boxes)]]
    xs += [x for bend in bends for x, _ in (bend or [])]
    left = min(xs) - widest / 2
    centers = [(layout.coords[i][0] - left, middle[layers[i]]) for i in range(len(graph.boxes))]
    paths = []
    for (source, target), bend in zip(graph.edges, bends, strict=True):
        (x0, y0), (x1, y1) = centers[source], centers[target]
        start, end = (x0, y0 + graph.boxes[source].height / 2), (x1, y1 - graph.boxes[target].height / 2)
        paths.append([start, *((x - left, middle[round(layer)]) for x, layer in (bend or [])), end])
    return _Placed(centers=centers, paths=paths, width=max(xs) - left + widest / 2, height=y - _GAP)


def _figure(graphs: Sequence[Graph]) -> Figure:
    _matplotlib()
    from matplotlib.figure import Figure

    placed = [_place(graph) for graph in graphs]
    head = 0.35 if any(graph.title for graph in graphs) else 0.0
    width = sum(p.width for p in placed) + _GAP * (len(placed) + 1)
    height = max(p.height for p in placed) + head + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    x = _GAP
    for graph, p in zip(graphs, placed, strict=True):
        axes = figure.add_axes((x / width, 1 - (p.height + head + _MARGIN) / height, p.width / width, p.height / height))
        axes.set_xlim(0, p.width)
        axes.set_ylim(p.height, 0)
        axes.set_axis_off()
        if graph.title:
            figure.text((x + p.width / 2) / width, 1 - (head / 2 + _MARGIN / 2) / height, graph.title, ha="center",
                        va="center", fontsize=11, fontweight="bold")  # fmt: skip
        _draw(axes, graph, p)
        x += p.width + _GAP
    return figure


def _draw(axes: Axes, graph: Graph, placed: _Placed) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    for points in placed.paths:
        vertices, codes = [points[0]], [Curve.MOVETO]
        for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
            half = (y1 - y0) / 2
            vertices += [(x0, y0 + half), (x1, y1 - half), (x1, y1)]
            codes += [Curve.CURVE4] * 3
        arrow = FancyArrowPatch(
            path=Curve(vertices, codes), arrowstyle="-|>", mutation_scale=8, color="#555555", linewidth=0.9
        )
        arrow.set_clip_on(False)
        axes.add_patch(arrow)
    for box, (x, y) in zip(graph.boxes, placed.centers, strict=True):
        patch = FancyBboxPatch(
            (x - box.width / 2, y - box.height / 2),
            box.width,
            box.height,
            boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=COLORS[box.group],
            edgecolor="#555555",
            linewidth=0.8,
            clip_on=False,
        )
        axes.add_patch(patch)
        axes.text(x, y, box.text, ha="center", va="center", fontsize=8.5, fontfamily="DejaVu Sans", linespacing=1.25)
