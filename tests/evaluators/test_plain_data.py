"""Pickles and torch files from elsewhere: plain data comes back, code does not run."""

import bz2
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from nas import NasValueError
from nas.evaluators import read_nasbench201, read_nats_bench
from nas.evaluators.plain_data import read_pickle, read_torch


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, protocol: int) -> None:
    content = {"meta_archs": ["a"], "arch2infos": {0: Malicious(tmp_path / "owned")}}
    path = tmp_path / "evil.pickle.pbz2"
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol)))
    with pytest.raises(NasValueError, match=r"must hold plain data.*mkdir"):
        read_nats_bench(path)
    assert not (tmp_path / "owned").exists()
    assert pickle.loads(bz2.decompress(path.read_bytes()))  # the attack does work on others
    assert (tmp_path / "owned").exists()


@pytest.mark.parametrize("as_zip", [True, False])
def test_a_malicious_torch_file_is_refused_and_runs_nothing(tmp_path: Path, as_zip: bool) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"meta_archs": Malicious(tmp_path / "owned")}, path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(NasValueError, match="must hold plain data"):
        read_nasbench201(path)
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    "attack",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x0ddict.fromkeys\x93.",
        b"ccodecs\nopen\n.",
        b"c_codecs\nencode\n(S'a'\nS'hex'\ntR.",
        b"ctorch.storage\n_load_from_bytes\n.",
        b"cnumpy\nndarray\n((I1\ntS'O'\ntR.",
        pickle.dumps(numpy.array([None, "object"])),
        pickle.dumps(numpy.dtype("O")),
        pickle.dumps(numpy.zeros(2, "i4,f8")),
    ],
)
def test_names_that_are_no_plain_data_are_refused(tmp_path: Path, attack: bytes) -> None:
    path = tmp_path / "evil.pickle"
    path.write_bytes(attack)
    with pytest.raises(NasValueError, match="must hold plain data"):
        read_pickle(path)


def test_what_a_forged_dtype_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    forged = pickle.dumps(numpy.arange(3.0), 2)
    # The state of a dtype ends with its size, alignment and flags; 63 would make references to objects of numbers.
    assert forged.count(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t") == 1
    forged = forged.replace(b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t", b"J\xff\xff\xff\x00J\xff\xff\xff\xffK\x3ft")
    path = tmp_path / "forged.pickle"
    path.write_bytes(forged)
    assert list(read_pickle(path)) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("name", ["<f8", ">f4", ">i2", "u1", "?", "c8", "U3", "S2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_every_plain_dtype(tmp_path: Path, name: str, order: str) -> None:
    array = numpy.array([[0, 1, 1], [1, 0, 1]]).astype(name, order=order)  # type: ignore[call-overload]
    for protocol in (2, 4, 5):
        path = tmp_path / "array.pickle"
        path.write_bytes(pickle.dumps([array, array[0, 1]], protocol))
        found, scalar = read_pickle(path)
        assert (found == array).all()
        assert (scalar, found.shape) == (array[0, 1], array.shape)
        assert found.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_comes_back_whole(tmp_path: Path, protocol: int) -> None:
    content = {
        "set": {1, 2},
        ("tuple", 777): OrderedDict(a=numpy.float64(0.5), b=numpy.float32(1.5), c=numpy.int64(3)),
        "array": numpy.arange(6.0).reshape(2, 3),
        "rest": [None, True, 2.5, "text", b"bytes", 10**30, 1j],
    }
    path = tmp_path / "plain.pickle"
    for data in (pickle.dumps(content, protocol), bz2.compress(pickle.dumps(content, protocol))):
        path.write_bytes(data)
        found = read_pickle(path)
        assert (found.pop("array") == numpy.arange(6.0).reshape(2, 3)).all()
        assert found == {key: value for key, value in content.items() if key != "array"}
    torch.save(content["set"], tmp_path / "set.pth")
    assert read_torch(tmp_path / "set.pth") == {1, 2}
