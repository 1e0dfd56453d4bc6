"""Runs pickles of strangers: the steps of them that make plain data, and none that does anything else."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict
from typing import Any

from nas.reading.machine import (
    DICT,
    LIST,
    SET,
    TUPLE,
    Find,
    Machine,
    Named,
    Refused,
    Step,
    Unfinished,
    checked_key,
    fill_dict,
)
from nas.reading.values import VALUES

_MOST_MARKS = 10_000


def run_pickle(machine: Machine, find: Find) -> Any:
    """What the next pickle of a stream holds.

    Args:
        machine: that has the stream.
        find: what a name stands for.

    Raises:
        Refused: it is torn, forged, or holds anything else than plain data.

    Example:
        >>> import io
        >>> run_pickle(Machine(io.BytesIO(pickle.dumps({"width": [1, 2.5]})).read), Named)
        {'width': [1, 2.5]}
    """
    machine.begin(find)
    try:
        while True:
            if machine.at >= machine.soft_end:
                machine.fill()
            at = machine.at
            machine.at = at + 1
            _STEPS[machine.data[at]](machine)
    except _Stop:
        if not machine.stack:
            raise Refused("it holds no data") from None
        found = machine.stack.pop()
    except (LookupError, ValueError, TypeError, ArithmeticError, struct.error) as error:
        ended = machine.at > len(machine.data)
        raise Refused("it ends too early" if ended else f"it is damaged before byte {machine.place:,}") from error
    except MemoryError as error:
        raise Refused("it takes more memory than there is") from error
    if isinstance(found, Named | Unfinished):
        raise Refused("it holds no data")
    return found


# Containers:


def _mark(machine: Machine) -> None:
    if len(machine.marks) >= _MOST_MARKS:
        raise Refused("it is nested too deeply")
    machine.marks.append(len(machine.stack))


def _empty_list(machine: Machine) -> None:
    machine.weight += LIST
    machine.stack.append([])


def _empty_dict(machine: Machine) -> None:
    machine.weight += DICT
    machine.stack.append({})


def _empty_set(machine: Machine) -> None:
    machine.weight += SET
    machine.stack.append(set())


def _list(machine: Machine) -> None:
    machine.weight += LIST
    machine.stack.append(machine.items())


def _tuple(machine: Machine) -> None:
    machine.weight += TUPLE
    machine.stack.append(tuple(machine.items()))


def _tuple_of_1(machine: Machine) -> None:
    machine.weight += TUPLE
    machine.stack[-1] = (machine.stack[-1],)


def _tuple_of_2(machine: Machine) -> None:
    machine.weight += TUPLE
    second = machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], second)


def _tuple_of_3(machine: Machine) -> None:
    machine.weight += TUPLE
    third, second = machine.stack.pop(), machine.stack.pop()
    machine.stack[-1] = (machine.stack[-1], second, third)


def _dict(machine: Machine) -> None:
    machine.weight += DICT
    found: dict[Any, Any] = {}
    fill_dict(found, machine.items())
    machine.stack.append(found)


def _frozenset(machine: Machine) -> None:
    machine.weight += SET
    machine.stack.append(frozenset(map(checked_key, machine.items())))


def _append(machine: Machine) -> None:
    value = machine.stack.pop()
    _target(machine, list).append(value)


def _appends(machine: Machine) -> None:
    values = machine.items()
    _target(machine, list).extend(values)


def _set_item(machine: Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    fill_dict(machine.stack[-1], (key, value))


def _set_items(machine: Machine) -> None:
    items = machine.items()
    fill_dict(machine.stack[-1], items)


def _add_items(machine: Machine) -> None:
    values = machine.items()
    _target(machine, set).update(map(checked_key, values))


# The memory and the stack:


def _remember_next(machine: Machine) -> None:
    machine.remember(len(machine.memory))


def _remember_at_1(machine: Machine) -> None:
    machine.remember(machine.data[machine.at])
    machine.at += 1


def _remember_at_4(machine: Machine) -> None:
    machine.remember(machine.number(4))


def _remember_written(machine: Machine) -> None:
    machine.remember(int(machine.line()[:20]))


def _recall_at_1(machine: Machine) -> None:
    machine.stack.append(machine.memory[machine.data[machine.at]])
    machine.at += 1


def _recall_at_4(machine: Machine) -> None:
    machine.stack.append(machine.memory[machine.number(4)])


def _recall_written(machine: Machine) -> None:
    machine.stack.append(machine.memory[int(machine.line()[:20])])


def _pop(machine: Machine) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.stack.pop()


def _pop_mark(machine: Machine) -> None:
    machine.items()


# Names, and what is made by them:


def _name(machine: Machine) -> None:
    module = machine.line().decode()
    machine.stack.append(machine.find(_full_name(module, machine.line().decode())))


def _name_of_texts(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise Refused("it names what is no text")
    machine.stack.append(machine.find(_full_name(module, name)))


def _call(machine: Machine) -> None:
    arguments, named = machine.stack.pop(), machine.stack.pop()
    if type(named) is not Named or named.make is None or type(arguments) is not tuple:
        raise Refused(f"it calls {named.name if type(named) is Named else 'what it does not name'}")
    machine.put(named.make(arguments))


def _build(machine: Machine) -> None:
    state, target = machine.stack.pop(), machine.stack.pop()
    if type(target) is OrderedDict:  # torch notes there which versions of modules a state dict is of
        if type(state) is not dict or state.keys() - {"_metadata"}:
            raise Refused("it gives state to a dict")
        machine.stack.append(target)
        return
    if not isinstance(target, Unfinished) or target.is_finished:
        raise Refused("it gives state to what takes none")
    target.is_finished = True
    found = target.finish(state)
    for index in target.places:
        machine.memory[index] = found
    machine.put(found)


def _outside(machine: Machine) -> None:
    if machine.stored is None:
        raise Refused("it needs data that lie outside of it")
    machine.put(machine.stored(machine.stack.pop()))


# The stream:


def _protocol(machine: Machine) -> None:
    if (version := machine.number(1)) > 5:
        raise Refused(f"it is a pickle of protocol {version}")


def _frame(machine: Machine) -> None:
    machine.at += 8


def _stop(machine: Machine) -> None:
    raise _Stop


def _unknown(machine: Machine) -> None:
    raise Refused(f"it has the step {machine.data[machine.at - 1]:#04x}, which plain data do not need")


def _target(machine: Machine, kind: type) -> Any:
    found = machine.stack[-1]
    if type(found) is not kind:
        raise Refused(f"it fills what is no {kind.__name__}")
    return found


class _Stop(Exception):  # noqa: N818 - it is no error
    """The pickle has ended."""


_BY_CODE: dict[bytes, Step] = {
    **VALUES,
    pickle.PROTO: _protocol,
    pickle.FRAME: _frame,
    pickle.STOP: _stop,
    pickle.MARK: _mark,
    pickle.EMPTY_LIST: _empty_list,
    pickle.EMPTY_DICT: _empty_dict,
    pickle.EMPTY_SET: _empty_set,
    pickle.LIST: _list,
    pickle.TUPLE: _tuple,
    pickle.TUPLE1: _tuple_of_1,
    pickle.TUPLE2: _tuple_of_2,
    pickle.TUPLE3: _tuple_of_3,
    pickle.DICT: _dict,
    pickle.FROZENSET: _frozenset,
    pickle.APPEND: _append,
    pickle.APPENDS: _appends,
    pickle.SETITEM: _set_item,
    pickle.SETITEMS: _set_items,
    pickle.ADDITEMS: _add_items,
    pickle.MEMOIZE: _remember_next,
    pickle.BINPUT: _remember_at_1,
    pickle.LONG_BINPUT: _remember_at_4,
    pickle.PUT: _remember_written,
    pickle.BINGET: _recall_at_1,
    pickle.LONG_BINGET: _recall_at_4,
    pickle.GET: _recall_written,
    pickle.POP: _pop,
    pickle.POP_MARK: _pop_mark,
    pickle.GLOBAL: _name,
    pickle.STACK_GLOBAL: _name_of_texts,
    pickle.REDUCE: _call,
    pickle.NEWOBJ: _call,
    pickle.BUILD: _build,
    pickle.BINPERSID: _outside,
}
"""What plain data need of the steps that there are; no other one is known."""
_STEPS = [_BY_CODE.get(bytes([code]), _unknown) for code in range(256)]


def _full_name(module: str, name: str) -> str:
    """Python 3 has moved its builtins."""
    return f"{'builtins' if module == '__builtin__' else module}.{name}"
