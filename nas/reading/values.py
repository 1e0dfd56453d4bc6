"""The steps of a pickle that make numbers, texts and bytes."""

from __future__ import annotations

import codecs
import pickle
import struct

from nas.reading.machine import Machine, Refused, Step

_LONGEST_INT = 1_700
"""Bytes; Python writes no longer ones out."""


def _constant(value: object) -> Step:
    def step(machine: Machine) -> None:
        machine.stack.append(value)

    return step


def _text(size: int, encoding: str, errors: str = "strict") -> Step:
    """A length of so many bytes, and the text."""

    def step(machine: Machine) -> None:
        start = machine.at + size
        end = start + int.from_bytes(machine.data[machine.at : start], "little")
        if end <= len(machine.data):  # as nearly always; pickles of benchmarks have millions of texts
            machine.at = end
            machine.stack.append(machine.data[start:end].decode(encoding, errors))
        else:
            machine.stack.append(machine.take(machine.number(size)).decode(encoding, errors))

    return step


def _bytes(size: int) -> Step:
    def step(machine: Machine) -> None:
        machine.stack.append(machine.take(machine.number(size)))

    return step


def _int_of_1(machine: Machine) -> None:
    machine.stack.append(machine.data[machine.at])
    machine.at += 1


def _int_of_2(machine: Machine) -> None:
    machine.stack.append(machine.number(2))


def _int_of_4(machine: Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(4), "little", signed=True))


def _long_int(machine: Machine) -> None:
    machine.stack.append(int.from_bytes(machine.take(machine.number(1)), "little", signed=True))


def _longer_int(machine: Machine) -> None:
    size = machine.number(4)
    if size > _LONGEST_INT:
        raise Refused(f"it has a number of {size:,} bytes")
    machine.stack.append(int.from_bytes(machine.take(size), "little", signed=True))


def _written_int(machine: Machine) -> None:
    text = machine.line().removesuffix(b"L")
    if len(text) > 2 * _LONGEST_INT:
        raise Refused(f"it has a number of {len(text):,} digits")
    machine.stack.append(text == b"01" if text in (b"00", b"01") else int(text))


def _float(machine: Machine) -> None:
    (value,) = struct.unpack_from(">d", machine.data, machine.at)
    machine.at += 8
    machine.stack.append(value)


def _written_float(machine: Machine) -> None:
    machine.stack.append(float(machine.line()))


def _written_text(machine: Machine) -> None:
    machine.stack.append(machine.line().decode("raw-unicode-escape"))


def _changeable_bytes(machine: Machine) -> None:
    machine.stack.append(bytearray(machine.take(machine.number(8))))


def _written_old_text(machine: Machine) -> None:
    text = machine.line()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise Refused("it has a text without its quotes")
    machine.stack.append(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))


VALUES: dict[bytes, Step] = {
    pickle.NONE: _constant(None),
    pickle.NEWTRUE: _constant(True),
    pickle.NEWFALSE: _constant(False),
    pickle.BININT1: _int_of_1,
    pickle.BININT2: _int_of_2,
    pickle.BININT: _int_of_4,
    pickle.LONG1: _long_int,
    pickle.LONG4: _longer_int,
    pickle.INT: _written_int,
    pickle.LONG: _written_int,
    pickle.BINFLOAT: _float,
    pickle.FLOAT: _written_float,
    pickle.SHORT_BINUNICODE: _text(1, "utf-8", "surrogatepass"),
    pickle.BINUNICODE: _text(4, "utf-8", "surrogatepass"),
    pickle.BINUNICODE8: _text(8, "utf-8", "surrogatepass"),
    pickle.UNICODE: _written_text,
    pickle.SHORT_BINBYTES: _bytes(1),
    pickle.BINBYTES: _bytes(4),
    pickle.BINBYTES8: _bytes(8),
    pickle.BYTEARRAY8: _changeable_bytes,
    pickle.SHORT_BINSTRING: _text(1, "latin-1"),
    pickle.BINSTRING: _text(4, "latin-1"),
    pickle.STRING: _written_old_text,
    pickle.EMPTY_TUPLE: _constant(()),
}
"""The steps by their codes."""
