"""The error where a library is no longer as this package knows it: loud, where going on would give other results."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nas.errors import ExperimentError, explain


def changed(package: str, name: str, *, purpose: str) -> ExperimentError:
    """The error to raise.

    Args:
        package: as pip calls it.
        name: what is missing in it, or means something else.
        purpose: what this package does by it.

    Returns:
        An error with the installed version.

    Example:
        >>> error = changed("optuna", "Study._storage", purpose="trials are written")
        >>> "is not what this package knows, and by it trials are written" in str(error)
        True
    """
    try:
        installed = version(package)
    except PackageNotFoundError:
        installed = "of an unknown version"
    return ExperimentError(
        explain(
            f"{name} of {package} {installed} is not what this package knows, and by it {purpose}",
            mend=f"pip install --upgrade torch-nas {package}, which takes versions that fit together",
        )
    )
