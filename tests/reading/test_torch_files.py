"""Files of `torch.save` from strangers: tensors come back as they were, forged ones are refused before torch looks."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

from nas import NasValueError
from nas.evaluators import read_nasbench201
from nas.reading import Refused, torch_data, torch_notes, torch_tensors
from nas.testing import survives_mutants

FORMATS = [True, False]


class Malicious:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


class Allowed:
    """Of the user's, who has told torch that it is safe."""

    def __init__(self) -> None:
        self.width = 16


def saved(content: object, *, as_zip: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=as_zip)
    return file.getvalue()


def written(content: bytes, folder: Path) -> Path:
    path = folder / "some.pt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("as_zip", FORMATS)
def test_a_malicious_torch_file_is_refused_and_runs_nothing(tmp_path: Path, as_zip: bool) -> None:
    path = written(saved({"meta_archs": Malicious(tmp_path / "owned")}, as_zip=as_zip), tmp_path)
    with pytest.raises(NasValueError, match="must hold plain data"):
        read_nasbench201(path)
    for read in (torch_data, torch_tensors, torch_notes):
        with pytest.raises(Refused, match="mkdir"):
            read(path)
    assert not (tmp_path / "owned").exists()


def tensors() -> Iterator[tuple[str, Any]]:
    for value in vars(torch).values():
        if isinstance(value, torch.dtype):
            try:
                yield str(value), torch.tensor([0, 1, 1]).to(value)
            except (RuntimeError, TypeError, NotImplementedError):
                continue
    grid = torch.arange(24.0).reshape(4, 6)
    yield "a part", grid[1:3, ::2]
    yield "two views", (grid[0], grid.t(), grid)
    yield "expanded", torch.ones(1).expand(3, 1000)
    yield "empty", torch.empty(0, 3)
    yield "a number", torch.tensor(3)
    yield "conjugated", torch.ones(3, dtype=torch.complex64).conj()
    yield "a parameter", nn.Parameter(torch.ones(3), requires_grad=False)
    yield "sparse", torch.eye(4).to_sparse()
    yield "compressed", torch.eye(4).to_sparse_csr()
    yield "quantized", torch.quantize_per_tensor(torch.arange(3.0), 0.5, 1, torch.qint8)
    yield (
        "quantized by channel",
        torch.quantize_per_channel(
            torch.ones(2, 3), torch.ones(2).double(), torch.zeros(2, dtype=torch.long), 0, torch.qint8
        ),
    )
    yield "meta", torch.empty(3, device="meta")
    marked = torch.ones(2)
    marked.of_whom = "the user"  # type: ignore[attr-defined]
    yield "marked", marked
    yield "named", OrderedDict(a=torch.ones(2), b=torch.Size([1, 2]), c=torch.float16, d=torch.device("cpu"))
    yield "counted", Counter("hello")
    yield "plain", {"set": {1, 2}, "n": 1j, "b": bytearray(b"ab"), "big": 2**70, 3: (1, "a", None, True, b"x")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("as_zip", FORMATS)
def test_whatever_torch_reads_is_read_as_before(tmp_path: Path, as_zip: bool) -> None:
    seen = 0
    for name, value in tensors():
        path = written(saved({"value": value}, as_zip=as_zip), tmp_path)
        try:
            expected = torch.load(path, weights_only=True)
        except (pickle.UnpicklingError, AttributeError):
            continue  # torch does not either
        found, seen = torch_tensors(path), seen + 1
        torch_notes(path)
        assert repr(found) == repr(expected), name
        assert type(found["value"]) is type(expected["value"]), name
    assert seen > 30


def test_a_state_dict_keeps_what_it_notes_of_its_modules(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 1, 4, 4)).sum().backward()
    optimizer.step()
    path = written(saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()}), tmp_path)
    found = torch_tensors(path)
    assert found["model"]._metadata == model.state_dict()._metadata  # type: ignore[attr-defined]
    nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).load_state_dict(found["model"])


def test_what_the_user_allows_torch_is_allowed(tmp_path: Path) -> None:
    path = written(saved({"mine": Allowed()}), tmp_path)
    with pytest.raises(Refused, match="Allowed"):
        torch_tensors(path)
    with torch.serialization.safe_globals([Allowed]):
        assert torch_tensors(path)["mine"].width == 16
    with pytest.raises(Refused, match="Allowed"):
        torch_data(path)


def test_benchmarks_have_numpy_and_no_weights(tmp_path: Path) -> None:
    content = {"n": numpy.float64(0.5), "a": numpy.arange(3), "w": torch.ones(2, 3)}
    for as_zip in FORMATS:
        found = torch_data(written(saved(content, as_zip=as_zip), tmp_path))
        assert (found["n"], list(found["a"]), found["w"].shape) == (0.5, [0, 1, 2], (2, 3))


def repacked(content: bytes, change: Callable[[str, bytes], bytes | None], *, packed: bool = False) -> bytes:
    """A zip file whose records are others."""
    file, kind = io.BytesIO(), zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w", kind) as new:
        for entry in old.infolist():
            data = change(entry.filename.partition("/")[2], old.read(entry))
            if data is not None:
                new.writestr(entry.filename, data)
    return file.getvalue()


def with_pickle(code: bytes) -> bytes:
    """A file of torch with another pickle in it, beside the numbers of one tensor of four floats."""
    return repacked(saved(torch.ones(4)), lambda name, data: code if name == "data.pkl" else data)


STORED = b"((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ"
REBUILD = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
NO_HOOKS = b"\x89ccollections\nOrderedDict\n)RtR."


def test_a_tensor_written_by_hand_is_read(tmp_path: Path) -> None:
    good = with_pickle(REBUILD + STORED + b"K\x00K\x04\x85K\x01\x85" + NO_HOOKS)
    assert torch.equal(torch_tensors(written(good, tmp_path)), torch.ones(4))


@pytest.mark.parametrize(
    "code",
    [
        REBUILD + STORED + b"K\x01K\x04\x85K\x01\x85" + NO_HOOKS,  # begins too late
        REBUILD + STORED + b"K\x00K\x05\x85K\x01\x85" + NO_HOOKS,  # is too long
        REBUILD + STORED + b"K\x00K\x02\x85K\x04\x85" + NO_HOOKS,  # goes too far
        REBUILD + STORED + b"K\x00K\x04\x85J\xff\xff\xff\xff\x85" + NO_HOOKS,  # goes backwards
        REBUILD + STORED + b"J\xff\xff\xff\xffK\x04\x85K\x01\x85" + NO_HOOKS,
        REBUILD + STORED + b"K\x00J\xff\xff\xff\x7f\x85K\x00\x85" + NO_HOOKS,  # the same number 2 ** 31 times
        REBUILD + STORED + b"K\x00K\x04\x85)" + NO_HOOKS,
        REBUILD + STORED.replace(b"K\x04tQ", b"K\x40tQ") + b"K\x00K\x40\x85K\x01\x85" + NO_HOOKS,
        REBUILD + STORED.replace(b"Float", b"Double") + b"K\x00K\x04\x85K\x01\x85" + NO_HOOKS,
        REBUILD + STORED.replace(b"\x000X", b"\x009X") + b"K\x00K\x04\x85K\x01\x85" + NO_HOOKS,
        REBUILD + STORED + b"K\x00K\x04\x85K\x01\x85\x89}K\x01K\x02stR.",  # hooks
        b"\x80\x02ctorch\nTensor\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch\nFloatTensor\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02ctorch.storage\nUntypedStorage\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        REBUILD + STORED + b"K\x00K\x04\x85K\x01\x85" + NO_HOOKS[:-1] + b"(K\x00K\x04tb.",  # state for a tensor
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x0c\0\0\0__defaults__Nsb.",
        b"\x80\x02ctorch\nFloatStorage\n}X\x05\0\0\0dtypeNsb.",
        b"\x80\x02K\x01.K\x02",
        b"\x80\x02ccollections\nOrderedDict\n)R}X\x04\0\0\0keysNsb.",
        b"\x80\x02X\x01\0\0\0aQ.",
    ],
)
def test_a_forged_tensor_is_refused(tmp_path: Path, code: bytes) -> None:
    path = written(with_pickle(code), tmp_path)
    if code.endswith(b"K\x02"):
        assert torch_tensors(path) == 1  # what follows the end is nobody's
        return
    for read in (torch_tensors, torch_data, torch_notes):
        with pytest.raises(Refused):
            read(path)


def test_records_are_what_they_seem(tmp_path: Path) -> None:
    whole = saved(torch.zeros(1_000_000))
    packed = repacked(whole, lambda _, data: data, packed=True)
    assert len(packed) < 20_000
    shorter = repacked(whole, lambda name, data: data[:-4] if name == "data/0" else data)
    missing = repacked(whole, lambda name, data: None if name == "data/0" else data)
    no_pickle = repacked(whole, lambda name, data: None if name == "data.pkl" else data)
    script = repacked(whole, lambda name, data: data)
    with zipfile.ZipFile(file := io.BytesIO(script), "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    for forged in (
        packed,
        shorter,
        missing,
        no_pickle,
        file.getvalue(),
        whole + b"\0",
        whole[:-1],
        whole[: len(whole) // 2],
    ):
        with pytest.raises(Refused):
            torch_tensors(written(forged, tmp_path))


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    whole = saved(torch.ones(1000))
    place = whole.index(b"\0\0\x80\x3f" * 9)
    flipped = bytearray(whole)
    flipped[place + 100] ^= 1
    torch.load(io.BytesIO(bytes(flipped)), weights_only=True)  # torch does not see it
    with pytest.raises(Refused, match="CRC"):
        torch_tensors(written(bytes(flipped), tmp_path))


def test_records_do_not_lie_over_each_other(tmp_path: Path) -> None:
    """One record that counts a hundred times, as in a zip bomb."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", pickle.dumps(1, 2))
        archive.writestr("a/data/0", bytes(1000))
        entry = archive.getinfo("a/data/0")
        for number in range(1, 100):
            again = zipfile.ZipInfo(f"a/data/{number:02}"[: len(entry.filename) + 1])
            again.header_offset, again.file_size, again.compress_size = entry.header_offset, 1000, 1000
            again.CRC = entry.CRC
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with pytest.raises(Refused):
        torch_tensors(written(file.getvalue(), tmp_path))


def test_the_older_format_announces_no_more_than_it_has(tmp_path: Path) -> None:
    whole = saved({"a": torch.ones(4), "b": [torch.ones(2, 2)]}, as_zip=False)
    assert torch_tensors(written(whole, tmp_path))["a"].tolist() == [1.0] * 4
    place = whole.index(b"K\x04", whole.index(b"cpu"))
    more = whole[:place] + b"J\xff\xff\xff\x7f" + whole[place + 2 :]
    for forged in (more, whole + b"\0", whole[:-1], whole[:-9], whole[:100], whole[1:], b""):
        with pytest.raises(Refused):
            torch_tensors(written(forged, tmp_path))


def test_a_link_and_a_pipe_are_refused(tmp_path: Path) -> None:
    real = written(saved(1), tmp_path)
    (tmp_path / "link.pt").symlink_to(real)
    os.mkfifo(tmp_path / "pipe.pt")
    for name in ("link.pt", "pipe.pt"):
        with pytest.raises(RuntimeError, match="ordinary file"):
            torch_tensors(tmp_path / name)
    assert torch_tensors(tmp_path / "link.pt", follow=True) == 1


def originals() -> list[bytes]:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    content = {
        "model": model.state_dict(),
        "sparse": torch.eye(3).to_sparse(),
        "shared": [torch.ones(4)[1:]],
        "plain": {"epoch": 3, ("a", 1): {1, 2}, "text": "x" * 300},
    }
    return [saved(content), saved(content, as_zip=False), saved({"epoch": 1})]


def read_both(path: Path) -> None:
    try:
        torch_data(path)
        for value in torch_tensors(path).values():
            repr(value)
    except Refused as error:
        raise NasValueError(str(error)[:1000]) from error
    except AttributeError:
        return  # it is another kind of data


@pytest.mark.filterwarnings("ignore")
def test_damaged_torch_files(tmp_path: Path) -> None:
    survives_mutants(read_both, originals(), count=500, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_torch_files(tmp_path: Path) -> None:
    survives_mutants(read_both, originals(), count=100_000, folder=tmp_path)
