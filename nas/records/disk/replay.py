"""What the records of a journal are about, so that one which Optuna would leave out in silence is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

from nas._compat.optuna_bases import JournalOperation
from nas.records.disk.lines import Damage
from nas.records.disk.shapes import (
    Rule,
    anything,
    brief,
    broken,
    listed,
    mapped,
    moment,
    nullable,
    number,
    one_of,
    optional,
    text,
    whole,
)

_RUNNING, _COMPLETE = 0, 1
_FINISHED = (1, 2, 3)
"""Optuna's numbers of the states COMPLETE, PRUNED and FAIL."""
_STATE = one_of(0, 1, 2, 3, 4)
_VALUES = nullable(listed(number))


def _one(value: object) -> bool:
    """An object with a single field."""
    return isinstance(value, dict) and len(value) == 1


def _curve(value: object) -> bool:
    """Values by step."""
    return isinstance(value, dict) and all(map(_is_step, value)) and all(map(number, value.values()))


def _is_step(text: str) -> bool:
    return len(text) < 20 and text.removeprefix("-").isdecimal()


_SHAPES: dict[int, dict[str, Rule]] = {
    JournalOperation.CREATE_STUDY: {"study_name": text, "directions": listed(one_of(0, 1, 2), least=1)},
    JournalOperation.DELETE_STUDY: {"study_id": whole},
    JournalOperation.SET_STUDY_USER_ATTR: {"study_id": whole, "user_attr": _one},
    JournalOperation.SET_STUDY_SYSTEM_ATTR: {"study_id": whole, "system_attr": _one},
    JournalOperation.CREATE_TRIAL: {
        "study_id": whole,
        "datetime_start": nullable(moment),
        "datetime_complete": optional(moment),
        "state": optional(_STATE),
        "value": optional(nullable(number)),
        "values": optional(_VALUES),
        "distributions": optional(mapped(text)),
        "params": optional(mapped(anything)),
        "user_attrs": optional(mapped(anything)),
        "system_attrs": optional(mapped(anything)),
        "intermediate_values": optional(_curve),
    },
    JournalOperation.SET_TRIAL_PARAM: {
        "trial_id": whole,
        "param_name": text,
        "param_value_internal": anything,
        "distribution": text,
    },
    JournalOperation.SET_TRIAL_STATE_VALUES: {
        "trial_id": whole,
        "state": _STATE,
        "values": _VALUES,
        "datetime_start": optional(moment),
        "datetime_complete": optional(moment),
    },
    JournalOperation.SET_TRIAL_INTERMEDIATE_VALUE: {"trial_id": whole, "step": whole, "intermediate_value": number},
    JournalOperation.SET_TRIAL_USER_ATTR: {"trial_id": whole, "user_attr": _one},
    JournalOperation.SET_TRIAL_SYSTEM_ATTR: {"trial_id": whole, "system_attr": _one},
}


@final
class Replay:
    """The studies and trials of a journal, as far as it tells whether the next record can be one of it.

    Args:
        attribute: says what is wrong with a user attribute, by its key and value; nothing where it is as it must be.
    """

    def __init__(self, attribute: Callable[[str, Any], str]) -> None:
        self._attribute = attribute
        self._studies: list[tuple[str, int]] = []
        """The name and the number of objectives."""
        self._deleted: set[int] = set()
        self._trials: list[tuple[int, bool]] = []
        """The study, and whether it has finished."""

    def take(self, record: Mapping[str, Any], *, is_sure: bool) -> None:
        """Takes note of the next record.

        Args:
            record: of the journal.
            is_sure: whether a checksum says that it is as it was written.

        Raises:
            Damage: it is none, or about what is not there.
        """
        operation = record.get("op_code")
        if type(operation) is not int or operation not in list(JournalOperation):
            raise Damage(f"there is no operation {brief(operation)}")
        wrong = broken(record, {"worker_id": text, **_SHAPES.get(operation, {})})
        if wrong:
            raise Damage(wrong)
        for kind in ("user_attr", "user_attrs"):
            for key, value in record.get(kind, {}).items():
                if wrong := self._attribute(key, value):
                    raise Damage(f"{key!r}: {wrong}")
        if operation == JournalOperation.CREATE_STUDY:
            self._create_study(record["study_name"], len(record["directions"]))
        elif "study_id" in record:
            self._of_study(operation, record)
        elif "trial_id" in record:
            self._of_trial(operation, record, is_sure=is_sure)

    def _create_study(self, name: str, objectives: int) -> None:
        alive = {other for number, (other, _) in enumerate(self._studies) if number not in self._deleted}
        if name not in alive:  # Optuna leaves out a second one, which two processes may have begun at once.
            self._studies.append((name, objectives))

    def _of_study(self, operation: int, record: Mapping[str, Any]) -> None:
        study = record["study_id"]
        if not 0 <= study < len(self._studies):
            raise Damage(f"it is about study {brief(study)}, and there is none by then")
        if study in self._deleted:
            return
        if operation == JournalOperation.DELETE_STUDY:
            self._deleted.add(study)
        elif operation == JournalOperation.CREATE_TRIAL:
            if stray := record.get("params", {}).keys() - record.get("distributions", {}).keys():
                raise Damage(f"the parameters {brief(sorted(stray))} have no distribution")
            self._trials.append((study, record.get("state", _RUNNING) in _FINISHED))

    def _of_trial(self, operation: int, record: Mapping[str, Any], *, is_sure: bool) -> None:
        trial = record["trial_id"]
        if not 0 <= trial < len(self._trials):
            raise Damage(f"it is about trial {brief(trial)} of the journal, and there is none by then")
        study, has_finished = self._trials[trial]
        if operation != JournalOperation.SET_TRIAL_STATE_VALUES:
            return
        if has_finished and not is_sure:
            raise Damage(f"it ends trial {trial} of the journal, which has ended by then")
        state, values, objectives = record["state"], record["values"], self._studies[study][1]
        if state == _COMPLETE and (values is None or len(values) != objectives):
            raise Damage(f"a trial of {objectives} objectives cannot have the values {brief(values)}")
        needed = "datetime_complete" if state in _FINISHED else "datetime_start" if state == _RUNNING else None
        if needed is not None and needed not in record:
            raise Damage(f"{needed!r} is missing")
        self._trials[trial] = (study, has_finished or state in _FINISHED)
