"""Which path a supernet runs, and its copies with it."""

from __future__ import annotations

from typing import Any, final

from nas.domains import Sample


@final
class Selection:
    """The sample of the path that is selected.

    A copy follows the original until a path is selected in the copy itself: moving averages of a supernet are copies
    that nobody else knows of, and they are asked for what the supernet is asked for.

    Args:
        of: the selection that is followed.
    """

    def __init__(self, of: Selection | None = None) -> None:
        self._of = of
        self._own: Sample | None = None

    @property
    def sample(self) -> Sample | None:
        """Of the path; None where none was selected."""
        if self._own is not None:
            return self._own
        return None if self._of is None else self._of.sample

    @sample.setter
    def sample(self, sample: Sample | None) -> None:
        self._own = sample

    def __deepcopy__(self, memo: Any) -> Selection:
        return Selection(self)

    def __getstate__(self) -> dict[str, Any]:
        """In another process there is nobody to follow."""
        return {"_of": None, "_own": self.sample}
