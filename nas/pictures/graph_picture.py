"""A graph of boxes, laid out and drawn as SVG or PNG by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

from nas.brief import brief
from nas.errors import MissingDependency, NasValueError, explain, told_if_full
from nas.files import named_by_user, write_whole
from nas.pictures.graph_layout import Placed, Point, Size, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Group: TypeAlias = Literal[
    "data", "convolution", "linear", "pool", "norm", "activation", "identity", "join", "composite", "other"
]

COLORS: dict[Group, str] = {
    "data": "#ffffff",
    "convolution": "#cfe2f7",
    "linear": "#d9d3f2",
    "pool": "#f9dfc4",
    "norm": "#eef3c8",
    "activation": "#f7f0c0",
    "identity": "#e4e4e4",
    "join": "#d2efd6",
    "composite": "#c9e6e8",
    "other": "#f4d7e3",
}
_LINE, _FONT = "#555555", 8.5
_MARGIN, _PADDING, _BETWEEN = 0.15, 0.1, 0.35  # inches: around the drawing, in a box, between graphs


@final
@dataclass(frozen=True, kw_only=True)
class Box:
    """A node: what is written in it, and what it is."""

    text: str
    group: Group


@final
@dataclass(kw_only=True)
class Graph:
    """Boxes, and arrows between them."""

    title: str = ""
    rightwards: bool = False
    """Whether it is read from left to right, not from top to bottom."""
    boxes: list[Box] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(self, text: str, group: Group, *inputs: int) -> int:
        """A box with arrows from others; its number."""
        self.boxes.append(Box(text=text, group=group))
        self.edges += [(source, len(self.boxes) - 1) for source in inputs]
        return len(self.boxes) - 1


def check_ending(path: Path) -> str:
    """The kind of file that a path names: "svg" or "png".

    Raises:
        NasValueError: another one.
    """
    if path.suffix.lower() not in (".svg", ".png"):
        raise NasValueError(explain("drawings are saved as .svg or .png", got=str(path), where="draw"))
    return path.suffix.lower()[1:]


@final
class Drawing:
    """Graphs, one below the other, to be shown in a notebook or saved."""

    def __init__(self, graphs: Sequence[Graph]) -> None:
        self.graphs = tuple(graphs)

    def __repr__(self) -> str:
        """In one line."""
        each = (f"{brief(graph.title)} of {len(graph.boxes)} boxes" for graph in self.graphs[:4])
        return f"Drawing({', '.join(each)}{', ...' if len(self.graphs) > 4 else ''})"

    def save(self, path: str | Path) -> Path:
        """Writes `.svg` or `.png`, by the ending of the path; the same graphs give the same bytes.

        Raises:
            NasValueError: another ending.
            MissingDependency: matplotlib or igraph is not installed.
        """
        path = Path(path)
        content = self._render(check_ending(path))
        with told_if_full(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(named_by_user(path), content)
        return path

    def _repr_svg_(self) -> str:
        return self._render("svg").decode()

    def _render(self, form: str) -> bytes:
        buffer = io.BytesIO()
        with _own_settings():
            metadata = {"Date": None} if form == "svg" else None
            _figure(self.graphs).savefig(buffer, format=form, dpi=150, metadata=metadata)
        return buffer.getvalue()


@contextmanager
def _own_settings() -> Iterator[None]:
    """matplotlib as it comes, whatever the user has set; nothing is left changed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingDependency("matplotlib", purpose="drawing", extra="draw") from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "nas", "svg.fonttype": "path", "font.size": _FONT})
        yield


def _size(text: str, **font: Any) -> Size:
    """Inches that a text takes, without padding."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    lines, properties = text.splitlines(), FontProperties(size=font.pop("size", _FONT), **font)
    wide = max(text_to_path.get_text_width_height_descent(line, properties, ismath=False)[0] for line in lines)
    return wide / 72, len(lines) * properties.get_size_in_points() * 1.3 / 72


def _figure(graphs: Sequence[Graph]) -> Figure:
    from matplotlib.figure import Figure

    placed, title = [], 0.3 if any(graph.title for graph in graphs) else 0.0
    for graph in graphs:
        texts = [_size(box.text) for box in graph.boxes]
        sizes = [(wide + 2 * _PADDING, high + 1.2 * _PADDING) for wide, high in texts]
        placed.append(place(sizes, graph.edges, rightwards=graph.rightwards))
    titles = [_size(graph.title or " ", size=11, weight="bold")[0] for graph in graphs]
    width = max([*(p.width for p in placed), *titles]) + 2 * _MARGIN
    height = sum(p.height + title for p in placed) + _BETWEEN * (len(placed) - 1) + 2 * _MARGIN
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.set_axis_off()
    y = _MARGIN
    for graph, p in zip(graphs, placed, strict=True):
        if graph.title:
            axes.text(width / 2, y + title / 3, graph.title, ha="center", va="center", fontsize=11, weight="bold")
        _draw(axes, graph, p, ((width - p.width) / 2, y + title))
        y += title + p.height + _BETWEEN
    return figure


def _draw(axes: Axes, graph: Graph, placed: Placed, corner: Point) -> None:
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
    from matplotlib.path import Path as Curve

    codes = {1: Curve.MOVETO, 2: Curve.LINETO, 4: Curve.CURVE4}
    for path in placed.paths:
        vertices = [(corner[0] + x, corner[1] + y) for _, (x, y) in path]
        curve = Curve(vertices, [codes[code] for code, _ in path])
        head = "-|>,head_length=0.35,head_width=0.15"
        arrow = FancyArrowPatch(path=curve, arrowstyle=head, mutation_scale=10, shrinkA=0, shrinkB=0)
        arrow.set(color=_LINE, linewidth=0.9)
        axes.add_patch(arrow)
    for box, (x, y), (wide, high) in zip(graph.boxes, placed.centers, placed.sizes, strict=True):
        x, y = corner[0] + x, corner[1] + y
        shape = FancyBboxPatch((x - wide / 2, y - high / 2), wide, high, "round,pad=0,rounding_size=0.06")
        shape.set(facecolor=COLORS[box.group], edgecolor=_LINE, linewidth=0.8)
        axes.add_patch(shape)
        axes.text(x, y, box.text, ha="center", va="center", linespacing=1.2)
