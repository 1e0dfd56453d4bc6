"""Where the boxes of a graph lie: in layers (Sugiyama et al. 1981, by igraph), long rows of them folded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias, final

from nas.errors import MissingDependency

Point: TypeAlias = tuple[float, float]
Size: TypeAlias = tuple[float, float]
Outline: TypeAlias = list[tuple[Literal[1, 2, 4], Point]]
"""Begins at a point (1), goes on by lines (2) and by the control points of cubic curves, three each (4)."""

_LAYERS, _LAYERS_BRANCHED, _LAYERS_RIGHTWARDS, _NEIGHBOURS, _COLUMNS = 0.24, 0.32, 0.42, 0.16, 0.5  # inches between
_HIGHEST, _WIDEST_LAYER = 9.0, 3


@final
@dataclass(frozen=True, kw_only=True)
class Placed:
    """Boxes and arrows in inches, x to the right and y downwards from the upper left corner."""

    centers: list[Point]
    sizes: list[Size]
    paths: list[Outline]
    width: float
    height: float


@final
@dataclass(frozen=True, kw_only=True)
class _Layers:
    """What igraph says: of each box its layer and its place across, of each edge the layers and places on its way."""

    layer: list[int]
    across: list[float]
    bends: list[list[tuple[int, float]]]


def place(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], *, rightwards: bool) -> Placed:
    """Places boxes so that all arrows point the same way.

    Args:
        sizes: (width, height) of each box.
        edges: (source, target), positions in `sizes`.
        rightwards: from left to right; else from top to bottom, where no layer is too wide for that.

    Raises:
        MissingDependency: igraph is not installed.
    """
    if not rightwards:
        found = _layers([w for w, _ in sizes], edges)
        widest = max(found.layer.count(layer) for layer in set(found.layer))
        if widest <= _WIDEST_LAYER:
            gap = _LAYERS_BRANCHED if widest > 1 or any(found.bends) else _LAYERS
            return _folded(sizes, edges, found, gap)
    turned = [(high, wide) for wide, high in sizes]
    placed = _straight(turned, edges, _layers([h for _, h in sizes], edges), _LAYERS_RIGHTWARDS)
    return Placed(
        centers=[(x, y) for y, x in placed.centers],
        sizes=list(sizes),
        paths=[[(code, (x, y)) for code, (y, x) in path] for path in placed.paths],
        width=placed.height,
        height=placed.width,
    )


def _layers(wide: Sequence[float], edges: Sequence[tuple[int, int]]) -> _Layers:
    try:
        import igraph
    except ImportError as error:
        raise MissingDependency("igraph", purpose="drawing", extra="draw") from error
    count = len(wide)
    layout = igraph.Graph(n=count, edges=edges, directed=True).layout_sugiyama(
        hgap=max(wide) + _NEIGHBOURS, maxiter=1000
    )
    bends = [[(round(layer), float(x)) for x, layer in bend or []] for bend in layout.edge_routing]
    across = [float(x) for x, _ in layout.coords[:count]]
    layer = [round(y) for _, y in layout.coords[:count]]
    first = [i for i in range(count) if layer[i] == 0]
    if len(first) > 1 and across[first[0]] > across[first[-1]]:  # the mirror image, for the inputs to be in order
        across = [-x for x in across]
        bends = [[(on, -x) for on, x in bend] for bend in bends]
    return _apart(wide, _Layers(layer=layer, across=across, bends=bends))


def _apart(wide: Sequence[float], found: _Layers) -> _Layers:
    """The same with no two boxes or arrows of a layer nearer than they should be, which igraph does not promise."""
    across, bends = list(found.across), [list(bend) for bend in found.bends]
    for layer in _range(found):
        # (place, width, setter) of boxes and of the arrows that pass
        boxes = [(across[i], wide[i], i, -1) for i in range(len(wide)) if found.layer[i] == layer]
        passing = [(x, 0.0, e, k) for e, bend in enumerate(bends) for k, (on, x) in enumerate(bend) if on == layer]
        row = sorted(boxes + passing)
        places = [x for x, *_ in row]
        for k in range(1, len(row)):
            places[k] = max(places[k], places[k - 1] + (row[k][1] + row[k - 1][1]) / 2 + _NEIGHBOURS)
        back = (sum(places) - sum(x for x, *_ in row)) / len(row)
        for x, (_, _, i, k) in zip(places, row, strict=True):
            if k < 0:
                across[i] = x - back
            else:
                bends[i][k] = layer, x - back
    return _Layers(layer=found.layer, across=across, bends=bends)


def _straight(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], found: _Layers, gap: float) -> Placed:
    """Layer below layer."""
    high = [max(h for (_, h), on in zip(sizes, found.layer, strict=True) if on == i) for i in _range(found)]
    top = [sum(high[:i]) + gap * i for i in range(len(high))]
    halves = [(x - w / 2, x + w / 2) for (w, _), x in zip(sizes, found.across, strict=True)]
    lanes = [x for bend in found.bends for _, x in bend]
    left = min([*(low for low, _ in halves), *lanes])
    width = max([*(up for _, up in halves), *lanes]) - left
    centers = [(x - left, top[on] + high[on] / 2) for x, on in zip(found.across, found.layer, strict=True)]
    paths = []
    for (source, target), bend in zip(edges, found.bends, strict=True):
        (x, y), begin = centers[source], found.layer[source]
        path: Outline = [(1, (x, y + sizes[source][1] / 2)), (2, (x, top[begin] + high[begin]))]
        for on, across in [*((on, x - left) for on, x in bend), (found.layer[target], centers[target][0])]:
            before, middle = path[-1][1], top[on] - gap / 2
            path += [(4, (before[0], middle)), (4, (across, middle)), (4, (across, top[on]))]
            path.append((2, (across, top[on] + high[on])))
        path[-1] = (2, (centers[target][0], centers[target][1] - sizes[target][1] / 2))
        paths.append(_without_points(path))
    return Placed(centers=centers, sizes=list(sizes), paths=paths, width=width, height=top[-1] + high[-1])


def _without_points(path: Outline) -> Outline:
    """Lines of no length left out: an arrowhead needs a direction."""
    return [path[0], *(b for a, b in pairwise(path) if b[0] != 2 or math.dist(a[1], b[1]) > 1e-6)]


def _range(found: _Layers) -> range:
    return range(max(found.layer) + 1)


def _folded(sizes: Sequence[Size], edges: Sequence[tuple[int, int]], found: _Layers, gap: float) -> Placed:
    """Columns side by side where one would be too high, broken where all arrows come from one box."""
    whole = _straight(sizes, edges, found, gap)
    columns = math.ceil(whole.height / _HIGHEST)
    lows = [max(_low(whole, b) for b, on in enumerate(found.layer) if on == layer) for layer in _range(found)]
    cuts: list[int] = []
    for column in range(1, columns):
        free = [layer for layer in _range(found)[:-1] if layer not in cuts and _can_be_cut(edges, found, layer)]
        nearest = min(free, key=lambda layer: abs(lows[layer] - whole.height * column / columns), default=None)
        if nearest is not None and abs(lows[nearest] - whole.height * column / columns) < whole.height / columns / 2:
            cuts.append(nearest)
    return _columns(sizes, edges, found, whole, cuts) if cuts else whole


def _can_be_cut(edges: Sequence[tuple[int, int]], found: _Layers, layer: int) -> bool:
    """Whether all arrows that lead below a layer come from one box in it."""
    sources = {s for s, t in edges if found.layer[s] <= layer < found.layer[t]}
    return len(sources) == 1 and found.layer[sources.pop()] == layer


def _low(placed: Placed, box: int) -> float:
    return placed.centers[box][1] + placed.sizes[box][1] / 2


def _columns(
    sizes: Sequence[Size], edges: Sequence[tuple[int, int]], found: _Layers, whole: Placed, cuts: Sequence[int]
) -> Placed:
    """Breaks a layout behind layers; arrows go down from the last box of a column, up, and into the next one."""
    column = [sum(layer > cut for cut in cuts) for layer in found.layer]
    broken = {e for e, (s, t) in enumerate(edges) if column[s] != column[t]}
    shifts, right, x = [], [], 0.0
    for i in range(len(cuts) + 1):
        inside = [b for b, c in enumerate(column) if c == i]
        xs = [whole.centers[b][0] + side * sizes[b][0] / 2 for b in inside for side in (-1, 1)]
        top = min(_low(whole, b) - sizes[b][1] for b in inside)
        for e, (_, target) in enumerate(edges):  # the arrows that pass boxes by
            xs += [a for _, (a, b) in whole.paths[e] if column[target] == i and b > top - 1e-6]
        shifts.append((x - min(xs), _LAYERS - top))
        right.append(x + max(xs) - min(xs))
        x = right[-1] + _COLUMNS
    centers = [(a + shifts[c][0], b + shifts[c][1]) for (a, b), c in zip(whole.centers, column, strict=True)]
    paths = []
    for e, (source, target) in enumerate(edges):
        dx, dy = shifts[column[target]]
        path: Outline = [(code, (a + dx, b + dy)) for code, (a, b) in whole.paths[e]]
        if e in broken:
            first = next(k for k, (_, (_, b)) in enumerate(path) if b > _LAYERS - 1e-6)
            (x0, y0), across = centers[source], path[first][1][0]
            low, gutter = y0 + sizes[source][1] / 2, right[column[source]] + _COLUMNS / 2
            corners = [(x0, low + _LAYERS / 2), (gutter, low + _LAYERS / 2), (gutter, _LAYERS / 2)]
            lines: Outline = [(2, point) for point in [*corners, (across, _LAYERS / 2), path[first][1]]]
            path = [(1, (x0, low)), *lines, *path[first + 1 :]]
        paths.append(path)
    height = max(y + high / 2 for (_, y), (_, high) in zip(centers, sizes, strict=True))
    return Placed(centers=centers, sizes=list(sizes), paths=paths, width=right[-1], height=height + _LAYERS / 2)
