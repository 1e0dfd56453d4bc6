"""Copies of modules, whoever made them, and what a program found made by others."""

from nas.copying.copies import copy_module, deep_copy, move
from nas.copying.foreign import Making, Seen, own
from nas.copying.functions import Memo, rebind
from nas.copying.types import same_kind

__all__ = ["Making", "Memo", "Seen", "copy_module", "deep_copy", "move", "own", "rebind", "same_kind"]
