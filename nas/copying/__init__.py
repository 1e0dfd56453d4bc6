"""Copies of modules, whoever made them, and what a program found made by others."""

from nas.copying.copies import copy_module, deep_copy, move
from nas.copying.foreign import Making, Seen, own

__all__ = ["Making", "Seen", "copy_module", "deep_copy", "move", "own"]
