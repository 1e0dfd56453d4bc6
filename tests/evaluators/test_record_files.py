"""TFRecord files and protobuf messages."""

import os
import struct
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from nas import NasValueError
from nas.evaluators.record_files import masked_crcs, read_message, read_records
from nas.testing import mutants, survives_mutants


def crc32c(data: bytes) -> int:
    """Bit after bit, by the book."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def tf_record(data: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        crc = crc32c(part)
        return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def test_checksums_are_those_of_the_standard() -> None:
    # RFC 3720, appendix B.4
    vectors = {bytes(32): 0x8A9136AA, b"\xff" * 32: 0x62A8AB43, bytes(range(32)): 0x46DD794E, b"": 0}
    expected = [((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF for crc in vectors.values()]
    assert masked_crcs(list(vectors)) == expected


def test_records_of_all_lengths_over_several_batches(tmp_path: Path) -> None:
    records = [bytes([i % 251]) * (i % 7) for i in range(5000)]
    path = tmp_path / "many.tfrecord"
    path.write_bytes(b"".join(map(tf_record, records)))
    assert list(read_records(path)) == records


def test_records_of_very_different_lengths_take_little_memory(tmp_path: Path) -> None:
    short, long = b"a", bytes(30_000)
    records = [short] * 4095 + [long]  # filled up to the longest of them they would be 120 MiB, twice
    path = tmp_path / "uneven.tfrecord"
    path.write_bytes(tf_record(short) * 4095 + tf_record(long))
    tracemalloc.start()
    try:
        assert list(read_records(path)) == records
        assert tracemalloc.get_traced_memory()[1] < 190 << 20
    finally:
        tracemalloc.stop()


def test_a_length_is_no_longer_than_records_are(tmp_path: Path) -> None:
    path = tmp_path / "long.tfrecord"
    for length in (1 << 18, 1 << 63):
        path.write_bytes(struct.pack("<QI", length, 0) + b"a" * 100)
        with pytest.raises(NasValueError, match=rf"a record of {length} bytes.*long\.tfrecord"):
            list(read_records(path))
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "none", "."):
        with pytest.raises(NasValueError, match="must be there"):
            list(read_records(tmp_path / name))


def test_damaged_record_files(tmp_path: Path) -> None:
    records = [tf_record(bytes([i]) * (i * 7)) for i in range(20)]
    survives_mutants(lambda path: list(read_records(path)), [b"".join(records)], count=300, folder=tmp_path)


def test_damaged_messages() -> None:
    for data in mutants([b"\x0a\x05abcde\x10\x96\x01\x19" + bytes(8) + b"\x25" + bytes(4)], 3000):
        with suppress(NasValueError):
            read_message(data)


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x09\x00", b"\x0b", b"\x08" + b"\xff" * 11, b"\x08"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(NasValueError, match="not a protobuf message"):
        read_message(data)
