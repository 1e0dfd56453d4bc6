"""What clips the gradients of a Trainer, and what stands in its place while a supernet is trained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, final

from pytorch_lightning import LightningModule, Trainer

from nas._compat.lightning_families import family_of
from nas.oneshot.speed import Clipping

Other = TypeVar("Other", bound=Clipping)

_CLIPS = ("clip_grad_by_norm", "clip_grad_by_value")


@final
class Clips:
    """What clips the gradients of a Trainer, and what stands in its place while the Trainer fits.

    A precision that clips in a way of its own is left alone.

    Args:
        trainer: has one.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._precision: Any = trainer.precision_plugin
        precision = self._precision
        usual: Any = family_of(trainer).get("plugins.Precision")
        names = [*_CLIPS, "main_params"]
        is_usual = all(getattr(type(precision), name) is getattr(usual, name) for name in names)
        self._places: dict[str, Any] = vars(precision)
        self._given: dict[str, Clipping] = {}
        if is_usual and not any(name in self._places for name in names):
            self._given = {name: getattr(precision, name) for name in _CLIPS}

    def apart(self, module: LightningModule) -> str | None:
        """Why somebody may look at the gradients between the clipping and the step; None where nobody can."""
        family = family_of(module)
        if family.is_overridden("configure_gradient_clipping", module):
            return "the module has a configure_gradient_clipping of its own"
        usual = [family.get(f"plugins.{name}") for name in ("Precision", "MixedPrecision", "HalfPrecision")]
        if type(self._precision) not in usual:
            return "the precision of the Trainer is none of Lightning's own"
        return None

    def replace(self, make: Callable[[Clipping], Other]) -> list[Other]:
        """Puts others in their place, which are made of them; yields these."""
        made = {name: make(given) for name, given in self._given.items()}
        self._places.update(made)
        return list(made.values())

    def put_back(self) -> None:
        """Takes away what stands in their place."""
        for name in self._given:
            self._places.pop(name, None)
