"""The subnets that a search has ranked, in a file beside its checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import final

from nas.samples import Sample, dumps_sample, loads_sample


@final
class Ranking:
    """Samples, best first.

    Args:
        path: of the file, which may not be there yet.

    Attributes:
        epochs: of the supernet that they were ranked by; None where nothing is ranked.
        samples: best first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.epochs: int | None = None
        self.samples: list[Sample] = []
        if path.exists():
            found = json.loads(path.read_text())
            self.epochs, self.samples = found["epochs"], [loads_sample(text) for text in found["samples"]]

    def write(self, epochs: int, samples: list[Sample]) -> None:
        """Writes the file, whole or not at all."""
        fresh = self._path.with_suffix(".tmp")
        fresh.write_text(json.dumps({"epochs": epochs, "samples": [dumps_sample(sample) for sample in samples]}))
        os.replace(fresh, self._path)
        self.epochs, self.samples = epochs, samples
