"""NATS-Bench's space of sizes: as the topologies where the widths are theirs."""

import pytest

from nas import ModelSpace, NasValueError
from nas.model_zoo import NASBench201, NATSBenchSize, nasbench201
from nas.model_zoo.nats_bench import sample_of, size_string


def parameters(space: ModelSpace, sample: dict[str, object]) -> int:
    return sum(p.numel() for p in space.build(sample, device="meta").parameters())


def test_all_32_768_strings_lead_back() -> None:
    space = ModelSpace(NATSBenchSize)
    assert space.size == 8**5 == 32_768
    sample = space.sample(3)
    assert sample_of(size_string(sample)) == sample
    assert space.contains(sample_of("8:16:24:32:64"))


def test_at_the_widths_of_the_topologies_it_is_one_of_them() -> None:
    cell = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"
    topology = parameters(ModelSpace(NASBench201, cells=1), nasbench201.sample_of(cell))
    assert parameters(ModelSpace(NATSBenchSize), sample_of("16:32:32:64:64")) == topology


def test_a_skip_between_widths_is_a_convolution() -> None:
    space = ModelSpace(NATSBenchSize)
    narrow, wide = (parameters(space, sample_of(f"8:{width}:16:8:8")) for width in (16, 24))
    # The block: a shortcut from 8, two convolutions and their norms. The cell: two convolutions of the input are wider,
    # and the skip connection, none before, has become a 1x1 convolution with its norm.
    block = 8 * 8 + 8 * 8 * 9 + (24 * 24 - 16 * 16) * 9 + 2 * 2 * 8
    cell = 2 * 8 * 16 * 9 + (24 * 16 + 2 * 16)
    assert wide - narrow == block + cell


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_of("8:16"), "five numbers"),
        (lambda: sample_of("8:16:24:32:x"), "five numbers"),
        (lambda: size_string({"channels_0": 8}), "channels_1, channels_2"),
        (lambda: ModelSpace(NATSBenchSize).build(sample_of("8:16:24:32:65")), "channels_4"),
    ],
)
def test_other_strings_and_samples_are_refused(call: object, message: str) -> None:
    with pytest.raises(NasValueError, match=message):
        call()  # type: ignore[operator]
