"""TFRecord files and protobuf messages, read without TensorFlow."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy
import rich.progress
from numpy.typing import NDArray

from nas.errors import ExperimentError, NasValueError, explain
from nas.files import open_file

_BATCH, _BATCH_BYTES = 4096, 1 << 26
"""So many records are checked together, and so many bytes, filled up to the longest of them."""
_LONGEST = 1 << 17
"""Bytes of a record; those of benchmarks have some hundreds."""
_LONG = 100_000_000
"""A file of more bytes is read with a bar of progress."""
_POLYNOMIAL = 0x82F63B78


def read_records(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """The records of a TFRecord file, one after the other, each checked.

    A record is its length (8 bytes), a checksum of the length (4), the data, and a checksum of the data (4); numbers
    are little-endian, and the checksum is a masked CRC-32C.

    Raises:
        NasValueError: no such file, a torn one, or a checksum that does not fit.
    """
    try:
        file = open_file(path, follow=True)
    except (OSError, ExperimentError) as error:
        raise NasValueError(explain(f"a TFRecord file must be there ({error})", got=str(path))) from error
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    name = f"reading {Path(path).name}"
    with file, rich.progress.wrap_file(file, total=size, description=name, disable=size < _LONG) as content:
        while batch := _next_batch(content, path):
            lengths = masked_crcs([length for length, _, _, _ in batch])
            contents = masked_crcs([data for _, _, data, _ in batch])
            for (_, length_crc, data, data_crc), first, second in zip(batch, lengths, contents, strict=True):
                if length_crc != first or data_crc != second:
                    raise _damaged(path, "a checksum does not fit")
                yield data


def _next_batch(file: BinaryIO, path: str | os.PathLike[str]) -> list[tuple[bytes, int, bytes, int]]:
    batch: list[tuple[bytes, int, bytes, int]] = []
    while len(batch) < _BATCH and (header := file.read(12)):
        if len(header) < 12:
            raise _damaged(path, "its last record is torn")
        length, length_crc = struct.unpack("<QI", header)
        if length > _LONGEST:
            raise _damaged(path, f"a record of {length} bytes")
        rest = file.read(length + 4)
        if len(rest) < length + 4:
            raise _damaged(path, "its last record is torn")
        batch.append((header[:8], length_crc, rest[:-4], struct.unpack("<I", rest[-4:])[0]))
    return batch


def masked_crcs(contents: list[bytes]) -> list[int]:
    """The checksum of each, as TFRecord files have it: a CRC-32C (Castagnoli), rotated, plus a constant.

    Example:
        >>> [hex(crc) for crc in masked_crcs([b"123456789"])]
        ['0xc78ab0e5']
    """
    found = [0] * len(contents)
    left = sorted(range(len(contents)), key=lambda place: len(contents[place]))
    while left:  # the longest first, with as many of the next ones as can be filled up to it
        together = max(_BATCH_BYTES // max(len(contents[left[-1]]), 1), 1)
        group = left[-together:]
        del left[-together:]
        for place, crc in zip(group, _crcs([contents[place] for place in group]), strict=True):
            found[place] = crc
    return found


def _crcs(contents: list[bytes]) -> list[int]:
    lengths = numpy.array([len(data) for data in contents])
    width = int(lengths.max(initial=0))
    joined = b"".join(data.ljust(width, b"\0") for data in contents)
    # All of them at a time, byte after byte: in plain Python it would take minutes for a benchmark's file.
    columns = numpy.frombuffer(joined, numpy.uint8).reshape(len(contents), width).T
    table = _crc_table()
    crcs = numpy.full(len(contents), 0xFFFFFFFF, numpy.uint32)
    for place, column in enumerate(columns):
        crcs = numpy.where(place < lengths, table[(crcs ^ column) & 0xFF] ^ (crcs >> 8), crcs)
    crcs ^= numpy.uint32(0xFFFFFFFF)
    return [(((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF for crc in crcs.tolist()]


@cache
def _crc_table() -> NDArray[numpy.uint32]:
    table = numpy.arange(256, dtype=numpy.uint32)
    for _ in range(8):
        odd = numpy.where(table & 1, _POLYNOMIAL, 0)
        table = ((table >> 1) ^ odd).astype(numpy.uint32)
    return table


def read_message(data: bytes) -> dict[int, list[int | float | bytes]]:
    """The fields of a protobuf message: number -> its values in order.

    Varints come as unsigned ints, 64-bit and 32-bit fields as floats, strings and inner messages as bytes.

    Raises:
        NasValueError: torn data, or a kind of field that protobuf does not have any more.

    Example:
        >>> read_message(bytes([0x10, 0x96, 0x01]))  # field 2, varint 150
        {2: [150]}
    """
    fields: dict[int, list[int | float | bytes]] = {}
    place = 0
    try:
        while place < len(data):
            tag, place = _varint(data, place)
            number, kind = tag >> 3, tag & 7
            value: int | float | bytes
            if kind == 0:
                value, place = _varint(data, place)
            elif kind == 1:
                (value,), place = struct.unpack_from("<d", data, place), place + 8
            elif kind == 2:
                length, place = _varint(data, place)
                value, place = data[place : place + length], place + length
                if place > len(data):
                    raise ValueError("a field is longer than the message")
            elif kind == 5:
                (value,), place = struct.unpack_from("<f", data, place), place + 4
            else:
                raise ValueError(f"field {number} is of kind {kind}")
            fields.setdefault(number, []).append(value)
    except (ValueError, IndexError, struct.error) as error:
        raise NasValueError(explain(f"not a protobuf message ({error})", got=data[:40])) from error
    return fields


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return value, place
        if shift > 63:
            raise ValueError("a varint of more than 10 bytes")


def _damaged(path: str | os.PathLike[str], reason: str) -> NasValueError:
    return NasValueError(
        explain(f"not a whole TFRecord file: {reason}", got=str(path), mend="fetch it again from its publisher")
    )
