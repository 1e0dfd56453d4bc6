"""What a search found out about its subnets, in files beside its checkpoints: nothing is judged twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import final

from nas.domains import Sample, dumps_sample, loads_sample, sample_key
from nas.oneshot.training import Judge


@final
class Ranking:
    """The best samples of a supernet.

    Args:
        path: of the file, which may not be there yet.
        epochs: of the supernet; what was ranked by another one does not count.

    Attributes:
        samples: best first; None where nothing is ranked yet.
    """

    def __init__(self, path: Path, epochs: int) -> None:
        self._path, self._epochs = path, epochs
        self.samples: list[Sample] | None = None
        if path.exists():
            found = json.loads(path.read_text())
            if found["epochs"] == epochs:
                self.samples = [loads_sample(text) for text in found["samples"]]

    def write(self, samples: list[Sample]) -> None:
        """Writes the file, whole or not at all."""
        fresh = self._path.with_suffix(".tmp")
        fresh.write_text(json.dumps({"epochs": self._epochs, "samples": [dumps_sample(sample) for sample in samples]}))
        os.replace(fresh, self._path)
        self.samples = samples


@final
class Judged:
    """A judge that remembers, also after a kill: a line for each sample, a torn last one left out.

    Args:
        path: of the file.
        epochs: of the supernet.
        judge: is asked once for each sample.
    """

    def __init__(self, path: Path, epochs: int, judge: Judge) -> None:
        self._path, self._epochs, self._judge = path, epochs, judge
        self._known: dict[str, float] = {}
        whole = []
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except ValueError:
                continue
            whole.append(line)
            if row["epochs"] == epochs:
                self._known[row["sample"]] = row["value"]
        if path.exists():
            path.write_text("".join(f"{line}\n" for line in whole))

    def __call__(self, sample: Sample) -> float:
        """What it is worth; more is better."""
        key = sample_key(sample)
        if key not in self._known:
            self._known[key] = value = self._judge(sample)
            with self._path.open("a") as file:
                file.write(json.dumps({"epochs": self._epochs, "sample": key, "value": value}) + "\n")
        return self._known[key]
