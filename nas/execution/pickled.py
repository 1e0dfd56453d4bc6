"""Plans on their way to another process, by cloudpickle: classes of a script or a notebook travel whole."""

from __future__ import annotations

import cloudpickle  # type: ignore[import-untyped]  # it has no annotations

from nas.errors import NasTypeError, explain
from nas.execution.trial_run import Plan


def dump_plan(plan: Plan) -> bytes:
    """A plan as bytes that `pickle.loads` takes.

    Raises:
        NasTypeError: it holds something that cannot be pickled; the message says which part.
    """
    try:
        return bytes(cloudpickle.dumps(plan))
    except Exception as error:  # Whatever __reduce__ and __getstate__ of the user's objects raise.
        parts = {"the evaluator": plan.evaluator, "the model space": plan.build, "the objectives": plan.objectives}
        culprits = [name for name, part in parts.items() if not _can_be_pickled(part)]
        raise NasTypeError(
            explain(
                f"what runs in another process must be picklable, but {' and '.join(culprits) or 'the plan'} cannot be "
                f"({type(error).__name__}: {error})",
                mend="open files, locks, connections and generators inside the function that is evaluated, not outside",
            )
        ) from error


def _can_be_pickled(part: object) -> bool:
    try:
        cloudpickle.dumps(part)
    except Exception:
        return False
    return True
