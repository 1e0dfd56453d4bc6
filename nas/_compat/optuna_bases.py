"""Private names of Optuna that classes of ours are built on; imports Optuna."""

from __future__ import annotations

from optuna.storages.journal._storage import JournalOperation

__all__ = ["JournalOperation"]
