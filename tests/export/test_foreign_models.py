"""ONNX files of models as other people write them: verified against the very model, at any batch, with any inputs."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from nas import ExperimentError, NasValueError
from nas.export import to_onnx
from nas.export.onnx_call import outputs_of

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield
    GLOBAL.clear()


def run(path: Path, **inputs: Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return list(session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()}))


def agree(found: np.ndarray, wanted: Tensor) -> None:
    np.testing.assert_allclose(found, wanted.detach().numpy(), atol=1e-5, rtol=1e-4)


# --- against the model that was given


class Features(nn.Module):
    """Returns what hooks have put into a dict that they have in common with it."""

    def __init__(self, found: dict[str, Tensor]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
        self.found = found
        for name, layer in self.body.named_children():
            layer.register_forward_hook(lambda _, inputs, output, name=name: found.__setitem__(name, output))

    def forward(self, x: Tensor) -> list[Tensor]:
        self.found.clear()
        self.body(x)
        return list(self.found.values())


class Notes:
    """Somebody's object that takes notes, and is no part of the model."""

    def __init__(self) -> None:
        self.found: dict[str, Tensor] = {}

    def write(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        self.found["x"] = output


def with_notes_outside() -> nn.Module:
    notes = Notes()

    class Reads(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            return notes.found["x"] * 2

    net = Reads(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    net[0].register_forward_hook(notes.write)
    return net


def with_a_dict_outside() -> nn.Module:
    found: dict[str, Tensor] = {}

    class Reads(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            super().forward(x)
            return found["x"] * 2

    net = Reads(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))
    net[1].register_forward_hook(lambda module, inputs, output: found.update(x=output))
    return net


def with_forward_replaced() -> nn.Module:
    net = nn.Linear(6, 4)
    net.forward = lambda x: nn.functional.linear(x, net.weight) * 2  # type: ignore[method-assign]
    return net


def with_calls_counted() -> nn.Module:
    net, calls = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 4)), 0

    def more(module: nn.Module, inputs: object, output: Tensor) -> None:
        nonlocal calls
        calls += 1

    net[0].register_forward_hook(more)
    return net


@pytest.mark.parametrize(
    "make", [lambda: Features({}), with_notes_outside, with_a_dict_outside, with_forward_replaced, with_calls_counted]
)
@pytest.mark.parametrize("used", [False, True])
def test_hooks_and_functions_that_keep_something_outside(
    make: Callable[[], nn.Module], used: bool, tmp_path: Path
) -> None:
    net = make()
    if used:
        net(torch.randn(2, 6))
    before = {name: dict(value) for name, value in vars(net).items() if isinstance(value, dict)}
    report = to_onnx(net, torch.randn(2, 6), tmp_path / "net.onnx")
    assert report.nodes > 0
    assert report.dynamic_batch
    assert report.verified_by == "onnxruntime"
    assert report.verified_batches == (1, 2, 3, 5)
    assert {name: dict(value) for name, value in vars(net).items() if isinstance(value, dict)} == before
    x = torch.randn(7, 6)
    for found, wanted in zip(run(report.path, input=x), outputs_of(net(x)).values(), strict=True):
        agree(found, wanted)


GLOBAL: dict[str, Tensor] = {}


class FeaturesInAGlobal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)
        self.layer.register_forward_hook(lambda _, inputs, output: GLOBAL.__setitem__("x", output))

    def forward(self, x: Tensor) -> Tensor:
        self.layer(x)
        return GLOBAL["x"] * 2


def test_hooks_that_fill_a_global_dict_leave_numbers_in_it(tmp_path: Path) -> None:
    net = FeaturesInAGlobal()
    x = torch.randn(3, 6)
    report = to_onnx(net, x, tmp_path / "net.onnx")
    assert type(GLOBAL["x"]) is Tensor, "no tensor of the tracing"
    agree(run(report.path, input=x)[0], net(x))


class CopiesToAnother(nn.Module):
    """What is copied computes something else, as every copy may that its author has forgotten about."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.offset = offset

    def __deepcopy__(self, memo: object) -> CopiesToAnother:
        return CopiesToAnother(0.0)

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 + self.offset


class CannotBeCopied(CopiesToAnother):
    def __deepcopy__(self, memo: object) -> CannotBeCopied:
        raise TypeError("cannot pickle '_thread.lock' object")


@pytest.mark.parametrize("net", [CopiesToAnother(1e-4), CannotBeCopied(1e-4)])
def test_a_model_whose_copy_is_another_is_traced_itself(net: nn.Module, tmp_path: Path) -> None:
    report = to_onnx(net.train(), torch.randn(2, 3), tmp_path / "net.onnx")
    assert net.training
    agree(run(report.path, input=torch.randn(4, 3))[0], torch.full((4, 3), 1e-4))


class PretendsWhenTraced(nn.Module):
    """The exporter sees something else than those who call it."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x * 0 if torch.compiler.is_compiling() else x * self.size


@pytest.mark.parametrize("size", [1e-9, 1e-4, 1.0])
def test_a_file_of_something_else_is_refused(size: float, tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="differs from torch by"):
        to_onnx(PretendsWhenTraced(size), torch.randn(2, 3), tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [1e-5, 1e3])
def test_outputs_of_any_size_agree(size: float, tmp_path: Path) -> None:
    class Scaled(nn.Sequential):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x) * size

    report = to_onnx(Scaled(nn.Linear(6, 8), nn.Tanh()), torch.zeros(2, 6), tmp_path / "net.onnx")
    assert report.max_difference is not None
    assert report.max_difference < 1e-5 * size


def test_only_values_of_the_example_is_not_verified(tmp_path: Path) -> None:
    class Picky(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, x: Tensor) -> Tensor:
            if not torch.compiler.is_compiling() and x.unique(dim=0).tolist() != [[2, 3, 4]]:
                raise ValueError("not what it is used to")
            return self.table(x)

    report = to_onnx(Picky(), torch.tensor([[2, 3, 4], [2, 3, 4]]), tmp_path / "net.onnx")
    assert report.max_difference is None
    assert report.verified_by is None
    assert "not compared with torch (the model runs on no other values than those of the example)" in str(report)


# --- the batch


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of images, as ConvNeXt and Swin V2 have it: torch sees a batch of 2 and above."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_norm_over_channels_keeps_the_batch_dynamic(batch: int, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), ChannelNorm(8), nn.Conv2d(8, 8, 2, stride=2))
    report = to_onnx(net, torch.randn(batch, 3, 16, 16), tmp_path / "net.onnx")
    assert report.dynamic_batch, report
    assert report.verified_batches == tuple(sorted({1, 2, 3, 5, batch}))
    x = torch.randn(6, 3, 16, 16)
    agree(run(report.path, input=x)[0], net(x))


class TurnsAt(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] > self.size else x + 1


@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_a_graph_for_some_batches_is_fixed(size: int, tmp_path: Path) -> None:
    report = to_onnx(TurnsAt(size), torch.randn(3, 4), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert "differs from torch" in str(report.fixed_batch_reason)
    assert report.verified_batches == (3,)
    assert report.dynamic == {}


@pytest.mark.slow
def test_without_onnxruntime_the_limits_that_torch_sees_decide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = to_onnx(TurnsAt(100), torch.randn(3, 4), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert report.verified_batches == ()
    assert "where nothing can run it to see" in str(report.fixed_batch_reason)


# --- other dynamic dimensions


class Encoder(nn.Module):
    """A language model in small, with a mask and a dataclass as output."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(50, 8), nn.Embedding(16, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

    def forward(self, ids: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Said:
        x = self.embed(ids) * scale + self.position(torch.arange(ids.shape[1], device=ids.device))
        x = self.layer(x, src_key_padding_mask=None if mask is None else mask == 0)
        return Said(logits=x @ self.embed.weight.T, hidden=(x,))


@dataclass
class Said:
    logits: Tensor
    hidden: tuple[Tensor, ...] = ()
    loss: Tensor | None = None


@pytest.mark.slow
def test_tokens_by_name_keywords_and_a_dataclass(tmp_path: Path) -> None:
    net = Encoder().eval()
    example = {"ids": torch.randint(50, (2, 7)), "mask": torch.ones(2, 7, dtype=torch.long), "scale": 2.0}
    tokens = {"ids": {1: "tokens"}, "mask": {1: "tokens"}}
    report = to_onnx(net, example, tmp_path / "net.onnx", dynamic=tokens)
    assert report.dynamic_batch
    assert report.dynamic == {"ids": {0: "batch", 1: "tokens"}, "mask": {0: "batch", 1: "tokens"}}
    assert report.outputs == {"output_0": "logits", "output_1": "hidden.0"}
    assert report.constants == {"scale": 2.0}
    assert "dynamic batch, dynamic tokens, constant scale=2.0" in str(report)
    dims = [[dim.dim_param for dim in value.type.tensor_type.shape.dim] for value in onnx.load(report.path).graph.input]
    assert dims == [["batch", "tokens"]] * 2
    ids, mask = torch.randint(50, (3, 11)), torch.ones(3, 11, dtype=torch.long)
    mask[1, 4:] = 0
    wanted = net(ids, mask, scale=2.0)
    for found, output in zip(run(report.path, ids=ids, mask=mask), [wanted.logits, *wanted.hidden], strict=True):
        agree(found, output)


def test_a_single_input_with_tokens(tmp_path: Path) -> None:
    report = to_onnx(nn.Linear(4, 3), torch.zeros(2, 7, 4), tmp_path / "net.onnx", dynamic={"input": {1: "tokens"}})
    assert report.dynamic == {"input": {0: "batch", 1: "tokens"}}
    assert run(report.path, input=torch.randn(5, 3, 4))[0].shape == (5, 3, 3)


def test_a_dynamic_dimension_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(28, 3))
    with pytest.raises(
        NasValueError, match="'tokens' can only be a dynamic dimension if the model runs at another size"
    ):
        to_onnx(flat, torch.zeros(2, 7, 4), tmp_path / "net.onnx", dynamic={"input": {1: "tokens"}})

    class Unrolls(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x[:, i] * i for i in range(x.shape[1])], 1)

    with pytest.raises(ExperimentError, match="torch cannot export the model|must hold for every size"):
        to_onnx(Unrolls(), torch.zeros(2, 7, 4), tmp_path / "net.onnx", dynamic={"input": {1: "tokens"}})
    assert list(tmp_path.iterdir()) == []


# --- inputs of every kind


class Graph(nn.Module):
    """One graph convolution: nodes and edges, and no batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Linear(4, 3)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        source, target = edge_index[0], edge_index[1]
        messages = self.weight(x).index_select(0, source)
        return torch.zeros(x.shape[0], 3).index_add(0, target, messages)


EDGES = torch.tensor([[0, 1, 2, 3, 4, 0, 2], [1, 2, 3, 4, 0, 2, 2]])


def test_a_graph_network_has_fixed_sizes(tmp_path: Path) -> None:
    net, x = Graph(), torch.randn(5, 4)
    report = to_onnx(net, (x, EDGES), tmp_path / "net.onnx")
    assert not report.dynamic_batch
    assert str(report.fixed_batch_reason).startswith("the inputs have no first dimension in common, and the model must")
    assert report.max_difference is not None
    agree(run(report.path, input_0=x, input_1=EDGES.flip(1))[0], net(x, EDGES.flip(1)))


def test_a_graph_network_with_sizes_by_name(tmp_path: Path) -> None:
    net, names = Graph(), {"x": {0: "nodes"}, "edge_index": {1: "edges"}}
    report = to_onnx(net, {"x": torch.randn(5, 4), "edge_index": EDGES}, tmp_path / "net.onnx", dynamic=names)
    assert report.dynamic == names
    x, edges = torch.randn(9, 4), torch.randint(9, (2, 20))
    agree(run(report.path, x=x, edge_index=edges)[0], net(x, edges))


class Detector(nn.Module):
    """A list of images of different sizes in, a list of dicts out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        return [
            {"scores": self.layer(image[None]).mean((2, 3))[0], "best": image.flatten().argmax()} for image in images
        ]


def test_a_list_of_images(tmp_path: Path) -> None:
    net, images = Detector(), [torch.rand(3, 8, 8), torch.rand(3, 6, 9)]
    report = to_onnx(net, (images,), tmp_path / "net.onnx")
    assert report.outputs == {
        "output_0": "0.scores", "output_1": "0.best", "output_2": "1.scores", "output_3": "1.best"
    }  # fmt: skip
    found = run(report.path, input_0=images[0], input_1=images[1])
    agree(found[2], net(images)[1]["scores"])
    assert found[3] == images[1].argmax().item()


class Denoiser(nn.Module):
    def forward(self, x: Tensor, time: Tensor, power: int, flip: bool = False) -> OrderedDict[str, Any]:
        y = x * time**power
        return OrderedDict(y=-y if flip else y, none=None, power=power)


def test_scalars_as_tensors_are_inputs_and_as_numbers_constants(tmp_path: Path) -> None:
    report = to_onnx(Denoiser(), (torch.randn(2, 3), torch.tensor(0.5), 2, True), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert report.constants == {"input_2": 2, "input_3": True}
    assert report.outputs == {"output_0": "y", "output_1": "power"}
    x = torch.randn(4, 3)
    y, power = run(report.path, input_0=x, input_1=torch.tensor(3.0))
    agree(y, -x * 9)
    assert power == 2


class SaysItsSize(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, int, float]:
        return x * x.shape[0], x.shape[0], x.shape[0] / 2


def test_sizes_among_the_outputs(tmp_path: Path) -> None:
    report = to_onnx(SaysItsSize(), torch.randn(2, 3), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert [value.item() for value in run(report.path, input=torch.randn(7, 3))[1:]] == [7, 3.5]


def test_a_dict_as_the_one_argument(tmp_path: Path) -> None:
    class Adds(nn.Module):
        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return batch["left"] + batch["right"]

    report = to_onnx(Adds(), {"left": torch.randn(2, 3), "right": torch.randn(2, 3)}, tmp_path / "net.onnx")
    x, y = torch.randn(4, 3), torch.randn(4, 3)
    agree(run(report.path, left=x, right=y)[0], x + y)


def test_names_of_inputs_that_the_graph_uses_itself(tmp_path: Path) -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3))

        def forward(self, weight: Tensor, add: Tensor, relu: Tensor) -> Tensor:
            return torch.relu(weight * self.weight + add).sigmoid() - relu

    net, inputs = Named(), {name: torch.randn(2, 3) for name in ("weight", "add", "relu")}
    report = to_onnx(net, inputs, tmp_path / "net.onnx")
    agree(run(report.path, **inputs)[0], net(**inputs))


# --- operators and precision


def net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.LayerNorm(8), nn.Linear(8, 5), nn.Softmax(-1),
    )  # fmt: skip


@pytest.mark.parametrize("opset", [18, 21])
def test_the_opset_that_was_asked_for(opset: int, tmp_path: Path) -> None:
    report = to_onnx(nn.Sequential(nn.Linear(4, 3), nn.ReLU()), torch.randn(2, 4), tmp_path / "net.onnx", opset=opset)
    assert report.opset == opset
    assert onnx.load(report.path).opset_import[0].version == opset


@pytest.mark.parametrize(
    ("opset", "message"), [(999, "opset must be one that onnx knows"), (3, "opset 3, and it has wr")]
)
def test_an_opset_that_cannot_be_is_refused(opset: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(NasValueError, match=message):
        to_onnx(nn.LayerNorm(4), torch.randn(2, 4), tmp_path / "net.onnx", opset=opset)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_bfloat16_is_compared_in_float32_and_says_so(tmp_path: Path) -> None:
    report = to_onnx(net().bfloat16(), torch.randn(2, 3, 8, 8).bfloat16(), tmp_path / "net.onnx")
    assert report.dynamic_batch
    assert report.max_difference is not None
    assert report.max_difference < 0.02
    assert report.verified_by == "onnxruntime in float32, as it cannot run this graph in bfloat16"
    assert str(report.verified_by) in str(report)
    weights = onnx.load(report.path).graph.initializer
    assert onnx.TensorProto.BFLOAT16 in {weight.data_type for weight in weights}


@pytest.mark.slow
def test_half_and_double_precision(tmp_path: Path) -> None:
    half = to_onnx(net().half(), torch.randn(2, 3, 8, 8).half(), tmp_path / "half.onnx")
    assert (half.verified_by, half.dynamic_batch) == ("onnxruntime", True)
    double = to_onnx(net().double(), torch.randn(2, 3, 8, 8).double(), tmp_path / "double.onnx")
    assert double.max_difference is not None
    assert double.max_difference < 1e-6


def test_bfloat16_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExperimentError, match="in bfloat16 differs from torch"):
        to_onnx(PretendsWhenTraced(1.0), torch.randn(2, 3).bfloat16(), tmp_path / "net.onnx")
