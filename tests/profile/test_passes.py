"""Models that nobody here wrote are counted as torch's counter counts them in a real pass, and left as they were."""

import collections
import dataclasses
import inspect
import threading
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nas import LayerChoice, ModelSpace, NasTypeError, NasValueError, ValueChoice, draw
from nas.profile import cost, latency, latency_table, profile
from nas.profile.memory import training_peak
from nas.profile.passes import run_first, subject_of

WINDOW = torch.hann_window(8)
SEEN: dict[str, Tensor] = {}
CALLS = 0


def counted(model: nn.Module, *args: Any, **kwargs: Any) -> int:
    """Flops of a real pass on the CPU, in which no module takes a way around its children that the counter misses."""
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.eval()(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    return int(counter.get_total_flops())


class MaskedAttention(nn.Module):
    """Asks for values, as GPT-2, T5, Whisper and BERT do."""

    def __init__(self, width: int = 8, heads: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.head = nn.Linear(width, 3)

    def forward(self, tokens: Tensor, mask: Tensor | None = None, *, scale: float = 1.0) -> Tensor:
        x = self.embed(tokens) * scale
        if mask is not None and not (mask == 1).all():
            x, _ = self.attention(x, x, x, key_padding_mask=mask == 0, need_weights=False)
        return torch.as_tensor(self.head(x))


class Windowed(nn.Module):
    """Tensors made by numpy, before and in the pass, and a global one."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.scale = torch.from_numpy(numpy.ones(8, numpy.float32))
        self.head = nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x * WINDOW * self.scale + torch.from_numpy(numpy.hanning(8).astype(numpy.float32))
        return torch.as_tensor(self.head(x))


class Helper:
    """No module, but it holds parameters."""

    def __init__(self) -> None:
        self.weight = nn.Parameter(torch.ones(4, 8))

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.mT


class Helped(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.helper, self.head = Helper(), nn.Linear(4, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.helper(x)))


class Hooked(nn.Module):
    """Hooks fill a dict, as feature extractors do, and add to an output, as adapters do."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, width)
        self.down, self.up = nn.Linear(8, 2, bias=False), nn.Linear(2, 8, bias=False)
        self.features: dict[str, Tensor] = {}
        self.body.register_forward_hook(lambda module, inputs, out: out + self.up(self.down(inputs[0])))
        self.body.register_forward_hook(self.keep)

    def keep(self, module: nn.Module, inputs: object, out: Tensor) -> None:
        self.features["body"] = out

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return torch.as_tensor(self.head(self.features["body"]))


class HookedGlobally(nn.Module):
    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, width)

        def keep(module: nn.Module, inputs: object, out: Tensor) -> None:
            global CALLS
            CALLS += 1
            SEEN["body"] = out

        self.body.register_forward_hook(keep)

    def forward(self, x: Tensor) -> Tensor:
        self.body(x)
        return torch.as_tensor(self.head(SEEN["body"]))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor, times: int = 1) -> Tensor:
        for _ in range(times):
            x = self.linear(x)
        return x


class AsksForSignatures(nn.Module):
    """Gives a layer what its signature takes; another model looks at the code, or at the names alone."""

    def __init__(self, ask: Callable[[Any], Any] = lambda forward: inspect.signature(forward).parameters) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Scaled(), nn.Linear(8, 8)])
        self.ask = ask

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, times=2) if "times" in self.ask(layer.forward) else layer(x)
        return x


class Patched(nn.Module):
    """A method put in place by hand, which holds on to the one before it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        before = self.linear.forward
        self.linear.forward = lambda x: before(x) + before(x)  # type: ignore[method-assign]

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.linear(x))


class Chooses(nn.Module):
    """How much it computes depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        kept = x[x.sum(1) > 0]
        return torch.as_tensor(self.linear(kept[: max(1, len(kept) // 2)]))


@dataclasses.dataclass
class Answer:
    scores: Tensor


class TakesABatch(nn.Module):
    """A dict in, a dataclass out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, batch: Mapping[str, Tensor | None]) -> Answer:
        assert batch["mask"] is None
        return Answer(self.linear(batch["x"]))


class Graph:
    """As of a library for graphs."""

    def __init__(self, x: Tensor, edges: Tensor) -> None:
        self.store = collections.OrderedDict(x=x, edges=edges)

    def __call__(self) -> None:
        raise AssertionError("nobody asked")


class OnGraphs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, graph: Graph) -> Tensor:
        source, target = graph.store["edges"]
        x = self.linear(graph.store["x"])
        return torch.zeros_like(x).index_add(0, target, x[source])


class Detector(nn.Module):
    """A list of images, of sizes that are read."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)

    def forward(self, images: list[Tensor], targets: None = None) -> list[dict[str, Tensor]]:
        height = int(torch.tensor([image.shape[1] for image in images]).max())
        padded = [nn.functional.pad(image, (0, 0, 0, height - image.shape[1])) for image in images]
        return [{"scores": image} for image in self.convolution(torch.stack(padded)).relu()]


class Normed(nn.Sequential):
    """Weights that are computed, in two old ways and by parametrization."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            layers = [nn.utils.weight_norm(nn.Linear(8, 8)), nn.utils.spectral_norm(nn.Linear(8, 8))]
        super().__init__(*layers, nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))


def fast() -> nn.Module:
    """With numbers, it takes a way around its children where it may."""
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


X = torch.randn(5, 8, generator=torch.Generator().manual_seed(3))
TOKENS, MASK = torch.arange(6)[None], torch.tensor([[1, 1, 1, 1, 0, 0]])
EDGES = torch.tensor([[0, 1, 2], [1, 2, 3]])

CASES: dict[str, tuple[Callable[[], nn.Module], tuple[Any, ...], dict[str, Any], Any]] = {
    "mask": (MaskedAttention, (), {"tokens": TOKENS, "mask": MASK, "scale": 2.0}, None),
    "mask by position": (MaskedAttention, (TOKENS, MASK), {}, (TOKENS, MASK)),
    "no mask": (MaskedAttention, (TOKENS, None), {}, (TOKENS, None)),
    "numpy": (Windowed, (X,), {}, X),
    "helper": (Helped, (X,), {}, X),
    "hooks": (Hooked, (X,), {}, X),
    "global hooks": (HookedGlobally, (X,), {}, X),
    "signatures": (AsksForSignatures, (X,), {}, X),
    "code": (lambda: AsksForSignatures(lambda forward: forward.__code__.co_varnames), (X,), {}, X),
    "names": (lambda: AsksForSignatures(lambda forward: inspect.getfullargspec(forward).args), (X,), {}, X),
    "patched": (Patched, (X,), {}, X),
    "values": (Chooses, (X,), {}, X),
    "batch": (TakesABatch, ({"x": X, "mask": None},), {}, ({"x": X, "mask": None},)),
    "batch by itself": (TakesABatch, ({"x": X, "mask": None},), {}, {"x": X, "mask": None}),
    "graph": (OnGraphs, (Graph(X, EDGES),), {}, (Graph(X, EDGES),)),
    "images": (Detector, ([torch.ones(3, 8, 8), torch.ones(3, 6, 8)],), {}, None),
    "norms": (Normed, (X,), {}, X),
    "fast": (fast, (torch.ones(1, 5, 8),), {}, torch.ones(1, 5, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_counts_are_those_of_a_real_pass(name: str) -> None:
    build, args, kwargs, example = CASES[name]
    model = build()
    found = profile(model, kwargs or args if example is None else example)
    # In its fast path torch 2.10 counts no attention, whatever is switched off.
    if name != "fast" or torch.__version__ >= (2, 11):
        assert found.flops == counted(model, *args, **kwargs) > 0
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert found.activations > 0
    assert found.peak_memory.training >= found.peak_memory.inference > 0
    assert sum(row.flops for row in found.modules) == found.flops


@pytest.mark.parametrize(
    ("name", "ground"),
    [("norms", "meta"), ("hooks", "meta"), ("numpy", "fake"), ("helper", "fake"), ("mask", "real"), ("values", "real")],
)
def test_a_pass_runs_with_no_more_numbers_than_it_needs(name: str, ground: str) -> None:
    build, args, kwargs, _ = CASES[name]
    subject = subject_of(build())
    assert run_first(subject, kwargs or args, lambda run: training_peak(run, nullcontext()), task="")[1] == ground


@pytest.mark.parametrize("name", CASES)
def test_latencies_and_drawings_take_the_same_examples(name: str) -> None:
    build, args, kwargs, example = CASES[name]
    example = kwargs or args if example is None else example
    assert latency(build(), example, repeats=1, warmup=0).median > 0
    pytest.importorskip("igraph")
    (graph,) = draw(build(), example_input=example).graphs
    assert len(graph.boxes) > 2


@pytest.mark.parametrize("kind", [Windowed, Helped, Hooked, HookedGlobally])
def test_a_model_and_what_its_hooks_hold_are_left_as_they_were(kind: type[nn.Module]) -> None:
    model = kind()
    calls = CALLS
    SEEN.clear()
    before = {name: (tensor, tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    profile(model, X)
    assert (CALLS, SEEN, getattr(model, "features", {})) == (calls, {}, {})
    assert all(tensor is before[name][0] for name, tensor in model.state_dict(keep_vars=True).items())
    assert all(torch.equal(tensor, copied) for tensor, copied in before.values())


def test_what_a_hook_holds_and_cannot_be_copied_is_shared() -> None:
    model, lock = nn.Sequential(nn.Linear(8, 8)), threading.Lock()
    seen: list[int] = []

    def keep(module: nn.Module, inputs: object, out: Tensor) -> None:
        with lock:
            seen.append(out.dim())

    model[0].register_forward_hook(keep)
    assert profile(model, X).multiply_adds == 5 * 64
    assert not seen


def test_a_real_pass_keeps_random_numbers_and_buffers() -> None:
    class Draws(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 8)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return torch.as_tensor(self.linear(x)) if torch.rand(()).item() < 2 else x

    model, state = Draws(), torch.get_rng_state()
    assert profile(model, X).flops == 5 * 128
    assert torch.equal(state, torch.get_rng_state())
    assert model.calls == 0


def test_scripted_models_are_counted() -> None:
    plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted, traced = torch.jit.script(plain), torch.jit.trace(plain, X)
    for model in (scripted, nn.Sequential(traced, nn.Linear(8, 8))):
        assert profile(model, X).flops == counted(model, X) > 0


# The same for samples and spaces.


def masked() -> nn.Module:
    width = ValueChoice([8, 16], label="width")
    return MaskedAttention(width, ValueChoice([1, 2], label="heads"))


SPACES: dict[str, tuple[Callable[[], nn.Module], Any]] = {
    "mask": (masked, {"tokens": TOKENS, "mask": MASK}),
    "numpy": (lambda: Windowed(ValueChoice([2, 4], label="width")), X),
    "helper": (lambda: Helped(ValueChoice([2, 4], label="width")), X),
    "hooks": (lambda: Hooked(ValueChoice([2, 4], label="width")), X),
    "values": (lambda: nn.Sequential(LayerChoice([Chooses, Scaled], label="kind")), X),
}


@pytest.mark.parametrize("name", SPACES)
def test_spaces_samples_latencies_and_drawings_agree(name: str) -> None:
    build, example = SPACES[name]
    space = ModelSpace(build)
    costs = profile(space, example)
    own = cost(space, example, lambda run: run.flops)
    table = latency_table(space, example, repeats=1, warmup=0)
    for sample in space.grid():
        with torch.random.fork_rng(devices=[]):
            model = space.build(sample)
        args, kwargs = ((), example) if isinstance(example, dict) else ((example,), {})
        assert costs.flops(sample) == own(sample) == counted(model, *args, **kwargs)
        assert costs.flops(sample) == profile(space, example, sample=sample).flops
        assert table(sample) > 0
        assert table.cost()(sample) == pytest.approx(table(sample), abs=1e-6)
        assert draw(sample, space=space, example_input=example).graphs


# Errors.


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([4, 6], label="width")
        self.inner = nn.Sequential(nn.Linear(8, width), nn.Unflatten(1, (4, -1)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.inner(x))


def test_errors_name_the_sample_the_module_and_the_cause() -> None:
    space = ModelSpace(Fails)
    for found in (
        lambda: profile(space, X),
        lambda: profile(space, X, sample={"width": 6}),
        lambda: latency_table(space, X)({"width": 6}),
        lambda: draw({"width": 6}, space=space, example_input=X),
    ):
        with pytest.raises(
            NasValueError, match=r"Fails \(sample \{'width': 6\}\).* shape \(5, 8\).*RuntimeError: "
        ) as error:
            found()
        assert "inner.1" in str(error.value)
        assert "check the shape" not in str(error.value)
        assert isinstance(error.value.__cause__, RuntimeError)


def test_a_constructor_that_fails_is_named_with_its_sample() -> None:
    space = ModelSpace(lambda: nn.MultiheadAttention(8, ValueChoice([2, 3], label="heads")))
    with pytest.raises(NasValueError, match=r"sample \{'heads': 3\}.*AssertionError: embed_dim must be divisible"):
        profile(space, (X, X, X))


class Factorises(nn.Module):
    """Noise has no such factors."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.linalg.cholesky(x)


class Together(nn.Module):
    """A module that needs another to have run."""

    def __init__(self) -> None:
        super().__init__()
        width = ValueChoice([2, 4], label="width")
        self.first, self.second = nn.Linear(8, width), Reads()

    def forward(self, x: Tensor) -> Tensor:
        self.second.found = [self.first(x)]
        y = torch.as_tensor(self.second(x))
        self.second.found.clear()
        return y


class Reads(nn.Module):
    found: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        return self.found[0].sum() + x


def test_a_module_is_measured_on_what_it_is_given_where_made_up_inputs_fail() -> None:
    space = ModelSpace(lambda: nn.Sequential(LayerChoice([Factorises, nn.Identity], label="kind")))
    table = latency_table(space, torch.eye(4), repeats=1, warmup=0)
    assert table({"kind": 0}) > 0


def test_a_module_that_cannot_run_by_itself_is_named() -> None:
    table = latency_table(ModelSpace(Together), X, repeats=1, warmup=0)
    with pytest.raises(
        NasValueError, match=r"Together \(sample \{'width': 4\}\): called by itself, the module 'second' fails"
    ):
        table({"width": 4})


def test_a_huge_model_is_not_made_real_to_tell_an_error() -> None:
    with torch.device("meta"):
        huge = nn.Sequential(nn.Linear(100_000, 100_000))  # 40 GB
    with pytest.raises(NasValueError, match="more than 4 GiB"):
        profile(huge, (1, 7))


@pytest.mark.parametrize("example", ["text", ("text", None), {}, {"x": 1}, (1.5, 2), [], nn.Linear(2, 2)])
def test_examples_without_tensors_are_refused(example: Any) -> None:
    with pytest.raises(NasTypeError, match="a tuple of all that forward takes, or a dict"):
        profile(nn.Linear(8, 8), example)


# What calls were given.


class ByKeyword(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.gate = nn.Bilinear(8, 4, 3), Gate()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.as_tensor(self.gate(self.layer(input2=y, input1=x), by=y[:, :1]))


class Gate(nn.Module):
    def forward(self, x: Tensor, *, by: Tensor) -> Tensor:
        return x * by


def test_keyword_calls_are_recorded_in_the_order_of_the_signature() -> None:
    given: dict[str, list[tuple[Any, ...]]] = {}

    def note(run: Any) -> float:
        given[run.path] = [tuple(spec.shape for spec in call) for call in run.inputs]
        return 0.0

    cost(ByKeyword(), (torch.ones(2, 8), torch.ones(2, 4)), note)
    assert given["layer"] == [((2, 8), (2, 4))]
    assert given["gate"] == [((2, 3), (2, 1))]
    assert given[""] == [((2, 8), (2, 4))]


def test_keyword_only_calls_are_measured() -> None:
    space = ModelSpace(lambda: nn.Sequential(LayerChoice([ByKeywordOnly, nn.Identity], label="kind")))
    table = latency_table(space, X, repeats=1, warmup=0)
    assert table({"kind": 0}) > 0
    assert any(key.endswith("by=(5, 8) float32") for key in table.entries)


class ByKeywordOnly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Gate()

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.gate(x, by=x))
