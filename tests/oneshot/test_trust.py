"""The trust report: what it counts, and what it shows."""

from nas import ModelSpace
from nas.model_zoo import space
from nas.oneshot.trust import skip_share


def test_skip_connections_are_counted_where_there_are_any() -> None:
    darts = space("darts", channels=4, cells=3, none=True)
    domains, sample = darts.search_space.domains, dict(darts.sample(seed=0))
    operations = [label for label in sample if "/op" in label]
    assert skip_share(sample | dict.fromkeys(operations, "skip_connect"), domains) == 1
    assert skip_share(sample | dict.fromkeys(operations, "none"), domains) == 0
    half = dict.fromkeys(operations[::2], "skip_connect") | dict.fromkeys(operations[1::2], "sep_conv_3x3")
    assert skip_share(sample | half, domains) == 0.5


def test_a_space_without_skip_connections_has_no_share_of_them() -> None:
    lenet: ModelSpace = space("lenet")
    assert skip_share(lenet.sample(seed=0), lenet.search_space.domains) is None
