"""`nas.draw`: pictures of cells, from a sample, and of whole networks, from a module."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import nn

from nas.calls import explained
from nas.domains import Answer
from nas.errors import NasTypeError, NasValueError, explain
from nas.pictures.cell_graph import cell_graphs
from nas.pictures.graph_picture import Drawing, check_ending
from nas.pictures.network_graph import network_graph
from nas.profile import Example, sample_subject, subject_of
from nas.space import ModelSpace


@explained()
def draw(
    architecture: Mapping[str, Answer] | nn.Module,
    path: str | Path | None = None,
    *,
    space: ModelSpace | None = None,
    example_input: Example | None = None,
    depth: int | None = None,
) -> Drawing:
    """Draws the cells of a sample, or a whole network.

    Needs `pip install "torch-nas[draw]"`. A copy of a network is run once, on the meta device wherever it can; it is
    not touched itself.

    Args:
        architecture: a sample whose labels are those of `nas.Cell`, or a module.
        path: where it is saved: `.svg` or `.png`. A notebook shows the drawing that is returned.
        space: of the sample. Without it a cell is taken to have two inputs, and to concatenate all nodes where the
            states that they read are distinct, else those that no other reads.
        example_input: what the network takes: a tensor, a tuple of tensors, or the shape of one float tensor; or
            anything that `forward` takes, as for `nas.profile.profile`. With it the network is drawn, not its cells;
            shapes are shown without the batch.
        depth: how deep into modules of modules the drawing of a network goes, each with a box of its own. Where
            omitted: as deep as 32 boxes allow, cells and short rows of layers whole, and equal modules in a row as one.

    Returns:
        A drawing with `save(path)`.

    Raises:
        NasTypeError: neither a sample nor a module, or a space that is none.
        NasValueError: a sample of another space, or without cells and without a network to build; a module or a sample
            that cannot be run on the example; a depth below 1; another ending of the path.
        MissingDependency: matplotlib or igraph is not installed.

    Example:
        >>> from nas.model_zoo import DARTS_V2, genotype_to_sample
        >>> drawing = draw(genotype_to_sample(DARTS_V2, "darts"))
        >>> [graph.title for graph in drawing.graphs]
        ['normal', 'reduce']
        >>> network = draw(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), example_input=(1, 3, 8, 8))
        >>> [box.text for box in network.graphs[0].boxes]
        ['input\\n3x8x8', 'Conv2d 3x3, 3 to 8\\n8x6x6', 'ReLU\\n8x6x6', 'output']
    """
    if path is not None:
        check_ending(Path(path))
    if space is not None and not isinstance(space, ModelSpace):
        raise NasTypeError(explain("space must be a ModelSpace", got=space, where="draw"))
    if isinstance(architecture, nn.Module):
        if example_input is None:
            raise NasValueError(
                explain(
                    "a network is drawn by running it", where="draw", mend="give example_input=, (1, 3, 32, 32) say"
                )
            )
        graphs = [network_graph(subject_of(architecture), example_input, depth=depth)]
    elif not isinstance(architecture, Mapping):
        raise NasTypeError(
            explain(
                "draw takes a sample or a module",
                got=architecture,
                where="draw",
                mend="draw(sample, space=space), or draw(model, example_input=...)",
            )
        )
    elif example_input is None:
        graphs = cell_graphs(architecture, space)
    elif space is None:
        raise NasValueError(explain("a sample is built by its space", where="draw", mend="give space="))
    else:
        subject = sample_subject(space, space.validate(architecture))
        graphs = [network_graph(subject, example_input, depth=depth)]
    drawing = Drawing(graphs)
    if path is not None:
        drawing.save(path)
    return drawing
