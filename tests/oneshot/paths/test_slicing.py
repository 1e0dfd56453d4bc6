"""Where smaller layers lie in larger ones: what they compute is what the larger one computes of the same channels."""

import pytest
import torch
from torch import Tensor, nn

from nas import NasTypeError, NasValueError
from nas.oneshot import register_slicer
from nas.oneshot.paths.slicing import block, indexed, input_dimension, region


def sliced(small: nn.Module, large: nn.Module) -> nn.Module:
    """The small layer with the numbers of the large one."""
    for path, module in small.named_modules():
        whole = large.get_submodule(path)
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None:
                full = getattr(whole, name)
                tensor.data.copy_(indexed(full, region(module, name, full.shape, full_module=whole)))
    return small


def padded(x: Tensor, channels: int) -> Tensor:
    return torch.cat([x, x.new_zeros(x.shape[0], channels - x.shape[1], *x.shape[2:])], dim=1)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("transposed", [False, True])
def test_convolutions_take_leading_channels_and_the_centre_of_the_kernel(dims: int, transposed: bool) -> None:
    kind = getattr(nn, f"Conv{'Transpose' if transposed else ''}{dims}d")
    large, small = kind(6, 8, 5, padding=2), kind(4, 6, 3, padding=1)
    sliced(small, large)
    with torch.no_grad():  # the border of the kernel
        for dim in range(2, 2 + dims):
            large.weight.index_fill_(dim, torch.tensor([0, 4]), 0)
    x = torch.randn(2, 4, *[7] * dims)
    torch.testing.assert_close(small(x), large(padded(x, 6))[:, :6], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("full", "groups"), [(1, 2), (1, 8), (2, 4), (2, 8), (4, 8), (8, 8)])
def test_more_groups_of_the_same_channels_are_a_part_of_fewer(full: int, groups: int) -> None:
    large, small = nn.Conv2d(8, 16, 3, groups=full, bias=False), nn.Conv2d(8, 16, 3, groups=groups, bias=False)
    sliced(small, large)
    x = torch.randn(2, 8, 5, 5)
    # The large one with zeros where the small one has no connection.
    dense = torch.zeros(16, 8, 3, 3)
    for row in range(16):
        group = row // (16 // groups)
        dense[row, group * (8 // groups) : (group + 1) * (8 // groups)] = small.weight[row].detach()
        start = row // (16 // full) * (8 // full)
        kept = dense[row, start : start + 8 // full]
        seen = kept != 0
        torch.testing.assert_close(kept[seen], large.weight[row].detach()[seen])
    torch.testing.assert_close(small(x), nn.functional.conv2d(x, dense), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("large", "small"),
    [
        (nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(4, 4, 3, groups=4)),
        (nn.Conv2d(8, 16, 3, groups=8), nn.Conv2d(4, 8, 3, groups=4)),
        (nn.Conv2d(8, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2)),
        (nn.ConvTranspose2d(8, 8, 3, groups=4), nn.ConvTranspose2d(4, 4, 3, groups=2)),
        (nn.Linear(8, 6), nn.Linear(4, 3)),
        (nn.BatchNorm2d(8), nn.BatchNorm2d(4)),
    ],
)
def test_leading_channels_of_layers_whose_groups_have_a_fixed_width(large: nn.Module, small: nn.Module) -> None:
    large.eval()
    sliced(small, large).eval()
    channels = 4
    x = torch.randn(2, channels, 5, 5) if not isinstance(small, nn.Linear) else torch.randn(2, channels)
    out = small(x)
    torch.testing.assert_close(out, large(padded(x, 8))[:, : out.shape[1]], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("large", "small"),
    [
        (nn.Conv2d(12, 12, 3, groups=2), nn.Conv2d(8, 8, 3, groups=2)),
        (nn.Conv2d(12, 12, 1, groups=2), nn.Conv2d(12, 12, 1, groups=3)),
    ],
)
def test_groups_that_do_not_fit_are_refused(large: nn.Conv2d, small: nn.Conv2d) -> None:
    with pytest.raises(NasValueError, match=r"'weight' of Conv2d.*groups of the smaller.*To mend: keep the channels"):
        region(small, "weight", large.weight.shape, full_module=large)


def test_attention_is_three_matrices_in_one() -> None:
    large, small = nn.MultiheadAttention(8, 2), nn.MultiheadAttention(4, 2)
    sliced(small, large)
    for part, whole in zip(small.in_proj_weight.chunk(3), large.in_proj_weight.chunk(3), strict=True):
        assert torch.equal(part, whole[:4, :4])
    for part, whole in zip(small.in_proj_bias.chunk(3), large.in_proj_bias.chunk(3), strict=True):
        assert torch.equal(part, whole[:4])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_are_sliced_gate_by_gate(kind: type[nn.RNNBase], bidirectional: bool) -> None:
    large, small = (kind(n, n, 2, bidirectional=bidirectional) for n in (6, 4))
    sliced(small, large)
    with torch.no_grad():  # what the hidden units that the small one lacks would read and be
        for name, weight in large.named_parameters():
            if name.startswith("weight_hh"):
                weight[:, 4:] = 0
            if name.startswith("weight_ih") and "_l1" in name:
                for way in weight.split(6, dim=1):
                    way[:, 4:] = 0
    x = torch.randn(5, 2, 4)
    found, expected = small(x)[0], large(torch.cat([x, torch.zeros(5, 2, 2)], dim=2))[0]
    ways = 2 if bidirectional else 1
    torch.testing.assert_close(
        found.unflatten(2, (ways, 4)), expected.unflatten(2, (ways, 6))[..., :4], rtol=1e-5, atol=1e-5
    )


def test_parts_say_where_along_a_dimension() -> None:
    layer, full = nn.Linear(4, 2), torch.arange(12.0).reshape(2, 6)
    found = region(layer, "weight", (2, 6), parts={1: torch.tensor([0, 1, 4, 5])})
    assert indexed(full, found).tolist() == [[0, 1, 4, 5], [6, 7, 10, 11]]


def test_several_indices_are_taken_along_each_dimension() -> None:
    layer, full = nn.MultiheadAttention(2, 1), torch.arange(108.0).reshape(12, 9)[:, :4]
    found = region(layer, "in_proj_weight", (12, 4), parts={1: torch.tensor([0, 3])})
    assert torch.equal(indexed(full, found), full[[0, 1, 4, 5, 8, 9]][:, [0, 3]])


def test_what_is_no_part_is_refused() -> None:
    with pytest.raises(
        NasValueError, match=r"'weight' of Linear: a tensor of shape \(2, 4\) is no part of one of \(2, 3\)"
    ):
        region(nn.Linear(4, 2), "weight", (2, 3))
    with pytest.raises(NasValueError, match="Linear: no such parameter or buffer; received 'wieght'"):
        region(nn.Linear(4, 2), "wieght", (2, 3))


def test_a_class_has_one_slicer() -> None:
    with pytest.raises(NasValueError, match="a class has one slicer; received 'MultiheadAttention'"):
        register_slicer(nn.MultiheadAttention)(lambda *_: ())
    with pytest.raises(NasTypeError, match="registered for nn.Module classes"):
        register_slicer(int)(lambda *_: ())  # type: ignore[arg-type]


def test_blocks_of_grids() -> None:
    assert block((3, 4), (3, 4)) == slice(0, 12)
    assert block((2, 4), (3, 4), start=5) == slice(5, 13)
    index = block((2, 2, 3), (2, 3, 3))
    assert isinstance(index, Tensor)
    assert index.tolist() == [0, 1, 2, 3, 4, 5, 9, 10, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("layer", "dimension"),
    [
        (nn.Linear(2, 2), 1),
        (nn.Conv2d(2, 4, 1), 1),
        (nn.Conv2d(4, 4, 1, groups=4), 0),
        (nn.Conv2d(4, 4, 1, groups=2), None),
        (nn.ConvTranspose1d(2, 4, 1), 0),
        (nn.BatchNorm1d(2), 0),
        (nn.LayerNorm(4), 0),
        (nn.LayerNorm((4, 4)), None),
        (nn.Embedding(4, 4), None),
    ],
)
def test_where_a_layer_reads_its_channels(layer: nn.Module, dimension: int | None) -> None:
    assert input_dimension(layer, "weight") == dimension
