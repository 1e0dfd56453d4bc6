"""The command line."""

from nas.cli.commands import app

__all__ = [
    "app",
]
