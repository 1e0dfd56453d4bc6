"""Arguments of the algorithms that make no sense are refused at once, not in the first step."""

from collections.abc import Callable
from typing import Any

import pytest
from torch.optim import SGD

from nas import NasError
from nas.oneshot import DARTS, ENAS, PCDARTS, GumbelDARTS, ProxylessNAS, RandomOneShot


@pytest.mark.parametrize(
    ("algorithm", "arguments", "message"),
    [
        (DARTS, {"learning_rate": "fast"}, "learning_rate must be a number from 0 on; received 'fast'"),
        (DARTS, {"learning_rate": float("nan")}, "learning_rate must be a finite number from 0 on"),
        (DARTS, {"betas": (0.9, 2)}, r"betas\[1\] must be a number from 0 to below 1; received 2"),
        (DARTS, {"betas": 0.9}, "betas must be a pair of numbers from 0 to below 1; received 0.9"),
        (DARTS, {"unrolled": "yes"}, "unrolled must be True or False; received 'yes'"),
        (DARTS, {"stop": True}, r"stop ends a search early; received True. To mend: CurvatureStop\(\)"),
        (DARTS, {"penalty": 3}, "penalty is a CostPenalty; received 3"),
        (DARTS, {"optimizer": "Adam"}, "optimizer is a function that makes one of parameters; received 'Adam'"),
        (DARTS, {"optimizer": SGD, "betas": (0.1, 0.2)}, r"has its own settings; received {'betas': \(0.1, 0.2\)}"),
        (PCDARTS, {"optimizer": SGD, "learning_rate": 0.1}, "has its own settings; received {'learning_rate': 0.1}"),
        (DARTS, {"extra_loss": 3}, "extra_loss is a function of the architecture; received 3"),
        (RandomOneShot, {"search": DARTS()}, "looks among the paths of this supernet, so it trains none of its own"),
        (ProxylessNAS, {"penalty": 3}, "penalty is a CostPenalty"),
        (GumbelDARTS, {"temperature": 3}, "temperature must be a pair of numbers above 0"),
        (GumbelDARTS, {"temperature": (1, 0)}, r"temperature\[1\] must be a number above 0; received 0"),
        (PCDARTS, {"partial_channels": 0}, "PCDARTS: partial_channels must be an int from 1 on; received 0"),
        (ENAS, {"learning_rate": "fast"}, "learning_rate must be a number above 0; received 'fast'"),
        (ENAS, {"baseline_decay": 1}, "baseline_decay must be a number from 0 to below 1; received 1"),
        (ENAS, {"penalty": 3}, "penalty is a CostPenalty"),
        (RandomOneShot, {"penalty": 3}, "penalty is a CostPenalty"),
    ],
)
def test_bad_arguments_are_explained(algorithm: Callable[..., Any], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(NasError, match=message):
        algorithm(**arguments)
