"""What architecture parameters are: logits, concentrations of a Dirichlet distribution, or probabilities themselves."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor


class Parametrisation(ABC):
    """Says how the architecture parameters of a label begin, and which logits they stand for.

    All else is made of the logits, in one place (`Architecture`): their softmax are the probabilities that are shown,
    derived, penalised and mixed by where a mixer knows nothing better. A choice has one row of parameters; each input
    of "any subset" has a row of two, closed and open.
    """

    @abstractmethod
    def initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """The parameters at the beginning, of this shape: (answers,), or (inputs, 2)."""

    @abstractmethod
    def logits(self, parameters: Tensor) -> Tensor:
        """Differentiable logits of the same shape: of the probabilities, whatever is added to a whole row."""


@final
class Logits(Parametrisation):
    """The parameters are the logits, 1e-3 times normal noise at the beginning: DARTS (arXiv 1806.09055).

    Example:
        >>> Logits().logits(torch.tensor([0.0, 1.0])).softmax(-1)
        tensor([0.2689, 0.7311])
    """

    def initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Nearly uniform."""
        return 1e-3 * torch.randn(shape, generator=generator)

    def logits(self, parameters: Tensor) -> Tensor:
        """Themselves."""
        return parameters


@final
class Concentrations(Parametrisation):
    """`elu(parameters) + 1` are the concentrations of a Dirichlet distribution: DrNAS (arXiv 2006.10355).

    The logits are the logarithms of the concentrations, so that the probabilities are the mean of the distribution.

    Example:
        >>> Concentrations().logits(torch.tensor([0.0, 1.0])).exp()
        tensor([1., 2.])
    """

    def initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Nearly 1 each, where all probabilities are equally likely."""
        return 1e-3 * torch.randn(shape, generator=generator)

    def logits(self, parameters: Tensor) -> Tensor:
        """The logarithm of `elu(parameters) + 1`, without its cancellation below 0."""
        return torch.where(parameters > 0, parameters.clamp(min=0).log1p(), parameters)


@final
class Simplex(Parametrisation):
    """The parameters are the probabilities: for optimizers that keep them so, as GAEA (arXiv 2004.07802).

    A gradient in them is that of the normalised weights: what is added to a whole row is left out.

    Example:
        >>> Simplex().logits(torch.tensor([0.25, 0.75])).softmax(-1)
        tensor([0.2500, 0.7500])
    """

    def initial(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Uniform."""
        return torch.full(shape, 1 / shape[-1])

    def logits(self, parameters: Tensor) -> Tensor:
        """Their logarithms."""
        return parameters.clamp(min=torch.finfo(parameters.dtype).tiny).log()
