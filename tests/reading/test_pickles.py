"""Pickles of strangers: plain data come back, and nothing else happens."""

from __future__ import annotations

import bz2
import os
import pickle
import pickletools
import random
import struct
import time
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy
import pytest

from nas import NasError, NasValueError
from nas.evaluators import read_nats_bench
from nas.reading import Refused, pickled_data
from nas.testing import survives_mutants

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def read(content: bytes, folder: Path) -> Any:
    path = folder / "some.pickle"
    path.write_bytes(content)
    return pickled_data(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    content = {"meta_archs": ["a"], "arch2infos": {0: Malicious(tmp_path / "owned")}}
    path = tmp_path / "evil.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol)))
    with pytest.raises(NasValueError, match=r"must hold plain data.*mkdir"):
        read_nats_bench(path)
    assert not (tmp_path / "owned").exists()
    assert pickle.loads(bz2.decompress(path.read_bytes()))  # the attack does work on others
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cbuiltins\nlist\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.",
        b"ccodecs\nopen\n.",
        b"c_codecs\nencode\n(S'a'\nS'hex'\ntR.",
        b"ctorch.storage\n_load_from_bytes\n.",
        b"cnumpy\nndarray\n((I1\ntS'O'\ntR.",
        b"cbuiltins\nbytearray\n(I3000000000\ntR.",
        b"cbuiltins\nbytes\n(I3000000000\ntR.",
        b"(S'a'\nios\nmkdir\n.",  # INST
        b"(cos\nmkdir\nS'a'\no.",  # OBJ
        b"\x82\x01.",  # EXT1
        b"S'a'\n2.",  # DUP
        b"\x97.",  # a buffer from outside
        b".",  # it ends with nothing made
        b"N0.",
        b"P1\n.",
        b"K\x01Q.",
        b"c_codecs\nencode\n}S'__defaults__'\nNsb.",
        b"c_codecs\nencode\n(S'a'\nS'latin1'\nt}b.",  # state for a function
        b"]}b.",  # state for a list
        b"ccollections\nOrderedDict\n)R}S'items'\nK\x01sb.",  # state that hides a method
        pickle.dumps(numpy.array([None, "object"])),
        pickle.dumps(numpy.dtype("O")),
        pickle.dumps(numpy.zeros(2, "i4,f8")),
        pickle.dumps(numpy.zeros(2, "M8[s]")),
    ],
)
def test_what_is_no_plain_data_is_refused(tmp_path: Path, attack: bytes) -> None:
    with pytest.raises(Refused):
        read(attack, tmp_path)


def numpy_pickle(*, shape: bytes = b"K\x04\x85", data: bytes, after: bytes = b"", kind: bytes = b"f8") -> bytes:
    """An array whose state is written by hand, and what is done after it."""
    dtype = (
        b"cnumpy\ndtype\n(U"
        + bytes([len(kind)])
        + kind
        + b"\x89\x88tRq\x02(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    made = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btRq\x01"
    return b"\x80\x02" + made + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb" + after + b"."


def test_an_array_is_built_once_and_shares_its_memory_with_nothing(tmp_path: Path) -> None:
    zeros = b"U\x20" + bytes(32)
    plain = read(numpy_pickle(data=zeros), tmp_path)
    assert (plain == 0).all()
    assert plain.base is None
    assert plain.flags.writeable
    again = b"(K\x01K\x00\x85h\x02\x89U\x00tb"  # the array gets another state, while another one looks at its memory
    with pytest.raises(Refused, match="state"):
        read(numpy_pickle(data=zeros, after=again), tmp_path)
    view = b"0cnumpy.core.numeric\n_frombuffer\n(h\x01h\x02K\x04\x85U\x01CtR"
    with pytest.raises(Refused, match="no bytes"):
        read(numpy_pickle(data=zeros, after=view), tmp_path)


@pytest.mark.parametrize(
    "forged",
    [
        numpy_pickle(data=b"U\x20" + bytes(32), shape=b"K\x05\x85"),
        numpy_pickle(data=b"U\x20" + bytes(32), shape=b"J\xff\xff\xff\xff\x85"),
        numpy_pickle(data=b"U\x20" + bytes(32), shape=b"]"),
        numpy_pickle(data=b"U\x00", shape=b"K\x05\x85"),
        numpy_pickle(data=b"U\x00", shape=b"J\xff\xff\xff\x7f\x85", kind=b"S0"),
        numpy_pickle(data=b"h\x02"),
        numpy_pickle(data=b"N"),
        numpy_pickle(data=b"U\x10" + b"\xff" * 16, kind=b"U1"),
        numpy_pickle(data=b"U\x20" + bytes(32), kind=b"O8"),
        numpy_pickle(data=b"U\x20" + bytes(32), kind=b"f8,f8"),
    ],
)
def test_an_array_has_as_many_numbers_as_its_shape(tmp_path: Path, forged: bytes) -> None:
    with pytest.raises(Refused):
        read(forged, tmp_path)


def test_what_a_forged_dtype_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    forged = pickle.dumps(numpy.arange(3.0), 2)
    # The state of a dtype ends with its size, alignment and flags; 63 would make references to objects of numbers.
    assert forged.count(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t") == 1
    forged = forged.replace(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", b"J\xff\xff\xff\x00J\xff\xff\xff\xffK\x3ft")
    assert list(read(forged, tmp_path)) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["<f8", ">f4", ">i2", "u1", "?", "c8", "U3", ">U3", "S2", "f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_plain_dtype(tmp_path: Path, name: str, order: str) -> None:
    array = numpy.array([[0, 1, 1], [1, 0, 1]]).astype(name, order=order)  # type: ignore[call-overload]
    for protocol in PROTOCOLS:
        content = [array, array[0, 1], array[:, ::2], array[:0], array, numpy.asfortranarray(array)]
        found = read(pickle.dumps(content, protocol), tmp_path)
        for mine, theirs in zip(found, content, strict=True):
            assert numpy.array_equal(mine, theirs)
            assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
        assert found[0] is found[4]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_data_come_back_whole(tmp_path: Path, protocol: int) -> None:
    shared = ["once"]
    content = {
        "sets": [{1, 2}, frozenset({"a", 3.5}), set(), {(1, "a")}],
        ("tuple", 777): OrderedDict(a=numpy.float64(0.5), b=numpy.float32(1.5), c=numpy.int64(3), d=numpy.bool_(True)),
        "numbers": [None, True, False, 0, 255, 256, 65535, 65536, -1, -(2**31), 2**31, 10**30, -(10**300), 2.5, 1e-300],
        "others": [float("inf"), 1j, "text", "Übung \u20ac \U0001f600", "\ud800", b"bytes \xff", b"", bytearray(b"ab")],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), tuple(range(50))],
        "nested": {"list": [[], {}, [[1], {2: 3}]], 1: {2: {3: 4}}},
        "long": ["x" * 300, "x" * 70_000, b"y" * 70_000, list(range(3000)), {i: str(i) for i in range(3000)}],
        "shared": [shared, shared],
        "default": defaultdict(list, {"a": [1]}),
    }
    found = read(pickle.dumps(content, protocol), tmp_path)
    assert found == pickle.loads(pickle.dumps(content, protocol))
    assert found["shared"][0] is found["shared"][1]
    assert read(bz2.compress(pickle.dumps(content, protocol)), tmp_path) == found
    assert read(pickletools.optimize(pickle.dumps(content, protocol)), tmp_path) == found


def test_pickles_of_python_2(tmp_path: Path) -> None:
    assert read(b"(dp1\nS'width'\np2\nI16\nsS'rate'\np3\nF0.5\nsS'big'\nL5L\nsS'yes'\nI01\ns.", tmp_path) == {
        "width": 16,
        "rate": 0.5,
        "big": 5,
        "yes": True,
    }
    assert read(b"\x80\x02}q\x01U\x04seenc__builtin__\nset\nq\x03]q\x04K\x01a\x85Rq\x05s.", tmp_path) == {"seen": {1}}
    assert list(read(numpy_pickle(data=b"U\x20" + struct.pack("<4d", 0, 1, 2, -3.5)), tmp_path)) == [0, 1, 2, -3.5]


BOMBS = {
    "a length": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"a.",
    "a text": b"\x80\x04X" + struct.pack("<I", (1 << 32) - 1) + b"a.",
    "changeable bytes": b"\x80\x05\x96" + struct.pack("<Q", 3 << 30) + b"a.",
    "a number": b"\x80\x04\x8b" + struct.pack("<I", 1 << 20) + b"\1" * (1 << 20) + b".",
    "digits": b"L" + b"9" * 100_000 + b"L\n.",
    "a place in the memory": b"K\x01r\xff\xff\xff\xffj\xff\xff\xff\xff\x81.",
    "empty sets": b"\x80\x04" + b"\x8f" * 3_000_000 + b".",
    "marks": b"(" * 30_000_000,
    "copies": b"\x80\x04B"
    + struct.pack("<I", 1 << 20)
    + bytes(1 << 20)
    + b"\x94c__builtin__\nbytearray\n\x94"
    + b"h\x01h\x00\x85R" * 5000
    + b".",
    "keys of one hash": pickle.dumps({(2**61 - 1) * i: 1 for i in range(1, 20)}, 2),
    "a deep key": b"\x80\x02)" + b"q\x00h\x00\x86" * 60 + b"q\x01}h\x01K\x01s.",
    "a deep set": b"\x80\x04(K\x01\x91" + b"q\x00(h\x00h\x00\x86\x91" * 60 + b".",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_soon(tmp_path: Path, bomb: str) -> None:
    start = time.process_time()
    with pytest.raises(Refused):
        read(BOMBS[bomb], tmp_path)
    assert time.process_time() - start < 10


def test_what_bz2_has_packed_too_well_is_refused(tmp_path: Path) -> None:
    packed = bz2.compress(b"\x80\x04B" + struct.pack("<I", 1 << 25) + bytes(1 << 25) + b".")
    assert len(packed) < 1000
    with pytest.raises(Refused, match="unpack to more than"):
        read(packed, tmp_path)
    for torn in (packed[:-20], b"BZh9" + b"a" * 20, bz2.compress(pickle.dumps(list(range(9999))))[:-30]):
        with pytest.raises(Refused):
            read(torn, tmp_path)


def test_nesting_has_no_end_and_does_no_harm(tmp_path: Path) -> None:
    depth = 200_000
    found = read(b"]" * depth + b"a" * (depth - 1) + b".", tmp_path)
    assert type(found) is list
    assert type(read(b")" + b"\x85" * depth + b".", tmp_path)) is tuple
    path = tmp_path / "deep.pickle.pbz2"
    path.write_bytes(b"]" * depth + b"a" * (depth - 1) + b".")
    with pytest.raises(NasError, match="no 'meta_archs' in it"):
        read_nats_bench(path)


def test_the_end_of_the_file_is_found_wherever_it_is_torn(tmp_path: Path) -> None:
    whole = pickle.dumps({"a": [1, 2.5, "text", b"bytes", numpy.arange(3)]}, 4)
    for length in range(len(whole)):
        with pytest.raises(Refused):
            read(whole[:length], tmp_path)


def some_data(seed: int) -> Any:
    """Of the kinds that benchmarks have."""
    rng = random.Random(seed)
    return {
        "meta_archs": ["|nor_conv_3x3~0|", "8:16"],
        "arch2infos": {
            i: {
                "12": {
                    "dataset_seed": {"cifar10": [777, 888]},
                    "all_results": {
                        ("cifar10", s): OrderedDict(
                            params=rng.random(), curve=numpy.arange(3.0), last=numpy.float64(0.5), sizes=(1, 2, {3})
                        )
                        for s in (777, 888)
                    },
                }
            }
            for i in range(2)
        },
        "rest": [b"bytes", None, True, 10**30, 1j, bytearray(b"x"), frozenset({1})],
    }


def originals() -> list[bytes]:
    whole = [pickle.dumps(some_data(protocol), protocol) for protocol in PROTOCOLS]
    return [*whole, *map(bz2.compress, whole[2:4])]


def read_data(path: Path) -> None:
    try:
        pickled_data(path)
    except Refused as error:
        raise NasValueError(str(error)[:1000]) from error


def test_damaged_pickles(tmp_path: Path) -> None:
    survives_mutants(read_data, originals(), count=1500, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_pickles(tmp_path: Path) -> None:
    survives_mutants(read_data, originals(), count=100_000, folder=tmp_path)
