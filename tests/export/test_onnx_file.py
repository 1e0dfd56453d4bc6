"""ONNX export: the file runs at any batch size, agrees with torch, says what it is, and leaves the model as it was."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nas import ExperimentError, MissingDependency, NasTypeError, NasValueError
from nas.export import OnnxReport, read_metadata, to_onnx
from nas.testing import survives_mutants

pytestmark = pytest.mark.long

SAMPLE = {"width": 8, "size": (3, (5, 7)), "ops": ["a", "b"], "rate": 0.5, "bias": None}
LABELS = {"width": "one of 8, 16", "size": "one of 2 tuples"}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def convnet() -> nn.Sequential:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    net(torch.randn(4, 3, 8, 8) * 3 + 1)  # running statistics that are not the initial ones
    return net


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))


def run(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), inputs, strict=True)}
    return list(session.run(None, feed))


def names(path: Path) -> tuple[list[str], list[str]]:
    graph = onnx.load(path).graph
    return [value.name for value in graph.input], [value.name for value in graph.output]


def leftovers(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


# --- what the file computes


def test_conv_net_agrees_with_torch_at_other_batch_sizes(tmp_path: Path) -> None:
    net = convnet()
    report = to_onnx(net, torch.randn(4, 3, 8, 8), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert report.fixed_batch_reason is None
    assert report.max_difference is not None
    assert report.max_difference < 1e-5
    net.eval()
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        torch.testing.assert_close(torch.from_numpy(run(report.path, x)[0]), net(x).detach(), atol=1e-5, rtol=1e-5)
    assert names(report.path) == (["input"], ["output"])


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(4, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return {"sum": self.left(x) + self.right(y), "features": x * 2}


class AnyNumberOfInputs(nn.Module):
    def forward(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, dim=1)


def test_two_inputs_and_two_outputs(tmp_path: Path) -> None:
    net = TwoInputs()
    report = to_onnx(net, (torch.randn(2, 4), torch.randn(2, 5)), tmp_path / "two.onnx")
    assert report.dynamic_batch
    assert names(report.path) == (["input_0", "input_1"], ["output_0", "output_1"])
    x, y = torch.randn(6, 4), torch.randn(6, 5)
    expected = net(x, y)
    total, features = run(report.path, x, y)
    np.testing.assert_allclose(total, expected["sum"].detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(features, expected["features"].numpy(), atol=1e-5)


def test_forward_of_any_number_of_inputs(tmp_path: Path) -> None:
    report = to_onnx(AnyNumberOfInputs(), (torch.randn(2, 4), torch.randn(2, 5)), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert run(report.path, torch.randn(3, 4), torch.randn(3, 5))[0].shape == (3, 9)


class MixesRows(nn.Module):
    """Its outputs depend on the whole batch, so a check on equal rows would see nothing."""

    def forward(self, x: Tensor) -> Tensor:
        x += 1
        return x - x.mean(0)


def test_example_of_one_row_with_rows_that_depend_on_each_other(tmp_path: Path) -> None:
    example = torch.randn(1, 6)
    before = example.clone()
    report = to_onnx(MixesRows(), example, tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert torch.equal(example, before)
    for batch in (1, 4):
        x = torch.randn(batch, 6)
        np.testing.assert_allclose(run(report.path, x)[0], (x - x.mean(0)).numpy(), atol=1e-5)


class UsesOneOfTwo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        used, _ = self.used(x), self.idle(x)
        return torch.relu(used)


def test_an_unused_branch_is_not_exported(tmp_path: Path) -> None:
    report = to_onnx(UsesOneOfTwo(), torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")
    graph = onnx.load(report.path).graph
    assert [node.op_type for node in graph.node] == ["Conv", "Relu"]
    assert sorted(weight.name for weight in graph.initializer) == ["used.bias", "used.weight"]
    assert report.nodes == 2
    assert str(Path(__file__).parent).encode() not in report.path.read_bytes()  # no traces of the machine it is from


# --- models that are out of the ordinary


def test_weight_norm_and_kept_activations_can_be_copied(tmp_path: Path) -> None:
    net = torch.nn.utils.parametrizations.weight_norm(nn.Linear(6, 3))
    net.last = net(torch.randn(2, 6))  # a computed tensor, which copy.deepcopy refuses
    assert to_onnx(net, torch.randn(2, 6), tmp_path / "net.onnx").dynamic_batch


def test_recurrent_net_stays_usable(tmp_path: Path) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.LSTM(4, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.cell(x)[0][:, -1]

    net = Recurrent()
    report = to_onnx(net, torch.randn(2, 5, 4), tmp_path / "net.onnx")
    x = torch.randn(3, 5, 4)
    np.testing.assert_allclose(run(report.path, x)[0], net(x).detach().numpy(), atol=1e-5)


def test_compiled_model_exports_as_the_built_model_it_wraps(tmp_path: Path) -> None:
    net = mlp()
    net.nas_architecture = {"sample": SAMPLE, "labels": LABELS}
    report = to_onnx(torch.compile(net), torch.randn(2, 6), tmp_path / "net.onnx", labels={"width": "any"})
    assert report.dynamic_batch
    assert read_metadata(report.path)["sample"] == SAMPLE
    assert read_metadata(report.path)["labels"] == {"width": "any"}


# --- a fixed batch


class HardCodedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.reshape(2, 12))


def test_hard_coded_batch_falls_back_to_a_fixed_one(tmp_path: Path) -> None:
    net = HardCodedBatch()
    report = to_onnx(net, torch.randn(2, 3, 4), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert "batch of 1 (shape '[2, 12]' is invalid for input of size 12)" in str(report.fixed_batch_reason)
    assert str(report.fixed_batch_reason) in str(report)
    assert "\n" not in str(report)
    x = torch.randn(2, 3, 4)
    np.testing.assert_allclose(run(report.path, x)[0], net(x).detach().numpy(), atol=1e-5)
    with pytest.raises(Exception, match="Expected: 2"):
        onnxruntime.InferenceSession(str(report.path)).run(None, {"input": np.zeros((3, 3, 4), np.float32)})


class FreezesBatch(nn.Module):
    """Runs at every batch size, but the size is a constant of the traced graph."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[i] * i for i in range(x.shape[0])])


class TurnsAtThree(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > 3 else x + 1


@pytest.mark.parametrize(
    ("net", "reason"),
    [(FreezesBatch(), "static shape of 2"), (TurnsAtThree(), "at batch 5: onnxruntime differs from torch by")],
)
def test_graph_that_holds_for_some_batch_sizes_only_is_fixed(net: nn.Module, reason: str, tmp_path: Path) -> None:
    report = to_onnx(net, torch.randn(2, 4), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert reason in str(report.fixed_batch_reason)
    x = torch.randn(2, 4)
    np.testing.assert_allclose(run(report.path, x)[0], net(x).numpy(), atol=1e-6)


# --- what stays as it was


def test_the_model_stays_as_it_was(tmp_path: Path) -> None:
    net = convnet().train()
    net[1].eval()  # a frozen BatchNorm
    net[6].requires_grad_(False)
    net(torch.randn(2, 3, 8, 8)).sum().backward()
    modes = [module.training for module in net.modules()]
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    identities = [(id(weight), weight.data_ptr(), weight.requires_grad) for weight in net.parameters()]
    gradients = [None if weight.grad is None else weight.grad.clone() for weight in net.parameters()]
    attributes = [set(vars(module)) for module in net.modules()]

    to_onnx(net, torch.randn(2, 3, 8, 8), tmp_path / "net.onnx")

    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [(id(weight), weight.data_ptr(), weight.requires_grad) for weight in net.parameters()] == identities
    for weight, gradient in zip(net.parameters(), gradients, strict=True):
        assert (weight.grad is None) == (gradient is None)
        assert gradient is None or torch.equal(weight.grad, gradient)
    assert [set(vars(module)) for module in net.modules()] == attributes


def test_nothing_is_printed_warned_or_logged(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    class DependsOnData(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1 if x.sum() > 0 else x - 1

    with caplog.at_level(logging.WARNING), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        to_onnx(mlp(), torch.randn(2, 6), tmp_path / "net.onnx")
        with pytest.raises(ExperimentError, match="torch cannot export the model"):
            to_onnx(DependsOnData(), torch.randn(2, 6), tmp_path / "other.onnx")
    assert capfd.readouterr() == ("", "")
    assert caught == []
    assert caplog.records == []
    assert logging.root.manager.disable == logging.NOTSET
    assert leftovers(tmp_path) == ["net.onnx"]


def test_import_is_light() -> None:
    code = "import sys, nas.export; print([m for m in sys.modules if m.split('.')[0].startswith('onnx')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


# --- metadata


def test_metadata_round_trip(tmp_path: Path) -> None:
    report = to_onnx(mlp(), torch.randn(2, 6), tmp_path / "net.onnx", sample=SAMPLE, labels=LABELS)
    found = read_metadata(report.path)
    assert found["sample"] == SAMPLE
    assert found["labels"] == LABELS
    assert isinstance(found["version"], str)
    assert found["version"]
    keys = {note.key for note in onnx.load(report.path).metadata_props}
    assert keys == {"nas.sample", "nas.labels", "nas.version"}


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("nas.sample", "{"),
        ("nas.sample", "[1]"),
        ("nas.sample", "[" * 100_000),
        ("nas.sample", '{"a": NaN}'),
        ("nas.sample", '{"a": 1, "a": 2}'),
        ("nas.labels", "{"),
        ("nas.labels", "[" * 100_000),
        ("nas.labels", '{"a": 5}'),
        ("nas.labels", "5"),
    ],
)
def test_damaged_metadata_is_refused_by_the_name_of_its_file(tmp_path: Path, key: str, text: str) -> None:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {key: text})
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(NasValueError, match=r"net\.onnx"):
        read_metadata(tmp_path / "net.onnx")


def small_files() -> list[bytes]:
    model = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    onnx.helper.set_model_props(model, {"nas.sample": '{"width": 16}', "nas.labels": '{"width": "one of 16, 32"}'})
    return [model.SerializeToString()]


def test_damaged_files(tmp_path: Path) -> None:
    survives_mutants(read_metadata, small_files(), count=300, folder=tmp_path)


@pytest.mark.slow
@pytest.mark.fuzz
def test_a_hundred_thousand_damaged_files(tmp_path: Path) -> None:
    survives_mutants(read_metadata, small_files(), count=100_000, folder=tmp_path)


def test_file_with_its_weights_inside_and_no_metadata(tmp_path: Path) -> None:
    report = to_onnx(nn.Linear(100, 200), torch.randn(2, 100), tmp_path / "new" / "folder" / "net.onnx")
    assert leftovers(tmp_path / "new" / "folder") == ["net.onnx"]
    assert report.size_bytes == report.path.stat().st_size > 100 * 200 * 4
    found = read_metadata(report.path)
    assert (found["sample"], found["labels"]) == (None, None)
    foreign = onnx.load(report.path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    assert read_metadata(tmp_path / "foreign.onnx") == {"sample": None, "labels": None, "version": None}


@pytest.mark.parametrize("content", [None, b"", b"no onnx, only text"])
def test_metadata_of_what_is_no_onnx_file(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "net.onnx"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(NasValueError, match=r"must be a readable ONNX file .*net\.onnx"):
        read_metadata(file)


# --- the report


def report_of(**changes: object) -> OnnxReport:
    values: dict[str, object] = {
        "path": Path("folder/best.onnx"), "size_bytes": 120_400, "nodes": 34, "opset": 20, "dynamic_batch": True,
        "fixed_batch_reason": None, "max_difference": 3.1e-7,
    }  # fmt: skip
    return OnnxReport(**{**values, **changes})  # type: ignore[arg-type]  # the test picks fields by name


def test_report_is_one_line() -> None:
    assert str(report_of()) == (
        "best.onnx: 34 nodes, 120 kB, opset 20, dynamic batch, largest difference to torch 3.1e-07 (onnxruntime)"
    )
    assert "fixed batch (it reshapes)" in str(report_of(dynamic_batch=False, fixed_batch_reason="it reshapes"))
    assert "not compared with torch (onnxruntime is not installed)" in str(report_of(max_difference=None))


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (812, "812 bytes"), (3_400_000, "3.4 MB"), (2_100_000_000, "2.1 GB")]
)
def test_report_says_sizes_in_readable_units(size: int, text: str) -> None:
    assert f"34 nodes, {text}, opset" in str(report_of(size_bytes=size))


# --- failures


@pytest.mark.parametrize(
    ("net", "example", "error", "message"),
    [
        ("a model", torch.randn(2, 3), NasTypeError, r"must be a torch\.nn\.Module; received 'a model'"),
        (nn.Linear, torch.randn(2, 3), NasTypeError, r"must be a torch\.nn\.Module"),
        (nn.Linear(3, 2), np.zeros((2, 3)), NasTypeError, r"tensor or a tuple of tensors; received \['ndarray'\]"),
        (nn.Linear(3, 2), (), NasTypeError, r"tensor or a tuple of tensors; received \[\]"),
        (nn.Linear(3, 2), (torch.zeros(2, 3), None), NasTypeError, r"received \['Tensor', 'NoneType'\]"),
        (nn.Linear(3, 2), torch.tensor(1.0), NasValueError, r"must be the batch.*received \[\(\)\]"),
        (nn.Linear(3, 2), torch.zeros(0, 3), NasValueError, r"must be the batch.*received \[\(0, 3\)\]"),
        (TwoInputs(), (torch.zeros(2, 4), torch.zeros(3, 5)), NasValueError, "the same in each tensor"),
        (nn.Linear(3, 2), torch.randn(2, 4), NasValueError, r"must run on a batch of 2 \(.*mat1 and mat2"),
        (nn.Linear(3, 2, device="meta"), torch.randn(2, 3), NasValueError, "on the meta device or lazy"),
        (nn.LazyLinear(2), torch.randn(2, 3), NasValueError, "on the meta device or lazy"),
    ],
)
def test_bad_input_is_refused(
    net: nn.Module, example: Tensor, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        to_onnx(net, example, tmp_path / "net.onnx")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("tolerance", [-1.0, float("nan"), "small"])
def test_bad_tolerance_is_refused(tolerance: object, tmp_path: Path) -> None:
    with pytest.raises((NasValueError, NasTypeError), match="tolerance must be a number from 0 on"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "net.onnx", tolerance=tolerance)  # type: ignore[arg-type]


def test_output_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Speaks(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, str]:
            return x, "done"

    with pytest.raises(NasTypeError, match=r"a tuple, list or dict of tensors; received .*'str'"):
        to_onnx(Speaks(), torch.randn(2, 3), tmp_path / "net.onnx")


@pytest.mark.parametrize(
    ("notes", "message"),
    [
        ({"sample": ["width"]}, "sample must be a dict label -> answer"),
        ({"sample": {"width": object()}}, "must be a value that JSON can hold"),
        ({"labels": {"width": 3}}, "labels must be a dict label -> text"),
        ({"labels": "width"}, "labels must be a dict label -> text"),
    ],
)
def test_bad_notes_are_refused(notes: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(NasTypeError, match=message):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "net.onnx", **notes)  # type: ignore[arg-type]


def test_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match=r"path must be a file, not a folder.*model\.onnx"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path)
    with pytest.raises(NasTypeError, match="path must be the path of a file; received None"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), None)  # type: ignore[arg-type]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NasValueError, match="the folder of path must be one that can be written"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "file" / "net.onnx")
    assert (tmp_path / "file").read_text() == "mine"


def test_folder_without_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")  # the superuser, who may run the tests, is never refused

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(NasValueError, match="Permission denied"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "net.onnx")


class Random(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


def test_file_that_differs_from_torch_is_refused_and_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match=r"differs from torch by \d\.\d+, beyond 0\.001 times"):
        to_onnx(Random(), torch.randn(8, 64), tmp_path / "net.onnx")
    assert leftovers(tmp_path) == []


def test_tolerance_is_the_callers_choice(tmp_path: Path) -> None:
    report = to_onnx(Random(), torch.randn(8, 64), tmp_path / "net.onnx", tolerance=1.0)
    assert report.max_difference == pytest.approx(0.9, abs=0.2)
    assert report.path.is_file()


def test_infinite_and_undefined_outputs_agree_with_themselves(tmp_path: Path) -> None:
    class Divides(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x / (x - x)

    example = torch.tensor([[1.0, -1.0, 0.0], [2.0, 0.0, 1.0]])
    assert to_onnx(Divides(), example, tmp_path / "net.onnx").max_difference == 0.0


def test_operation_that_onnx_lacks_is_named_and_an_earlier_file_stays(tmp_path: Path) -> None:
    class Airy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.special.airy_ai(x)

    earlier = tmp_path / "net.onnx"
    earlier.write_bytes(b"an earlier file")
    with pytest.raises(ExperimentError, match=r"torch cannot export the model: No ONNX function found for .*airy_ai"):
        to_onnx(Airy(), torch.randn(2, 3), earlier)
    assert leftovers(tmp_path) == ["net.onnx"]
    assert earlier.read_bytes() == b"an earlier file"


def test_without_onnxruntime_the_file_is_written_and_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "net.onnx")
    assert report.max_difference is None
    assert report.path.is_file()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_missing_onnx_says_how_to_install_it(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=f"pip install {package}"):
        to_onnx(nn.Linear(3, 2), torch.randn(2, 3), tmp_path / "net.onnx")
    assert leftovers(tmp_path) == []
