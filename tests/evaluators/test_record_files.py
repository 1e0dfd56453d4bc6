"""TFRecord files and protobuf messages."""

import struct
from pathlib import Path

import pytest

from nas import NasValueError
from nas.evaluators.record_files import masked_crcs, read_message, read_records


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


@pytest.mark.parametrize("data", [b"\x0a\x05ab", b"\x09\x00", b"\x0b", b"\x08" + b"\xff" * 11, b"\x08"])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(NasValueError, match="not a protobuf message"):
        read_message(data)
