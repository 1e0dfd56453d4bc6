"""Pictures of cells and of whole networks."""

from nas.pictures.pictures import draw

__all__ = [
    "draw",
]
