"""What a layer means to a search, said by its class: that it is no connection, or that it is a skip connection.

Neither the name of a class nor that of an answer says so: a user's layer may be called `Zero`, and an answer "none".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_int


@explained()
class Zero(nn.Module):
    """No connection: zeros. Subclass it for zeros of another shape.

    On the edge of a cell whose nodes read distinct states it means that there is no edge: it takes part in the mixture,
    and no derived architecture has it, as in DARTS (arXiv 1806.09055, section 2.4). In mixtures its zeros are not
    computed.

    Args:
        stride: 2 halves height and width.

    Example:
        >>> Zero(stride=2)(torch.ones(1, 8, 4, 4)).shape
        torch.Size([1, 8, 2, 2])
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        check_int("stride", stride, least=1, where="Zero")
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, ...) to zeros of (batch, channels, ...), all sides after the channels divided by stride."""
        if self.stride == 1:
            return torch.zeros_like(x)
        every = (slice(None, None, self.stride),) * (x.dim() - 2)
        return torch.zeros_like(x[(slice(None), slice(None), *every)])

    def extra_repr(self) -> str:
        """What `print(model)` shows."""
        return f"stride={self.stride}"


class Skip(nn.Module):
    """A skip connection, as `nn.Identity` is one. Subclass it for skips that change a shape, as those of a reduction.

    The trust report of one-shot search counts them: a search that has collapsed proposes little else.

    Example:
        >>> class Halves(Skip):
        ...     def forward(self, x):
        ...         return x[:, :, ::2, ::2]
        >>> is_skip(Halves()), is_skip(nn.Identity()), is_skip(nn.ReLU())
        (True, True, False)
    """

    def forward(self, x: Tensor) -> Tensor:
        """Any tensor, as it is."""
        return x


def is_zero(module: nn.Module) -> bool:
    """Whether a layer is no connection."""
    return isinstance(module, Zero)


def is_skip(module: nn.Module) -> bool:
    """Whether a layer is a skip connection."""
    return isinstance(module, nn.Identity | Skip)
