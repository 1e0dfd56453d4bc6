"""The contract of evaluators, for ours and for one that breaks the rules."""

import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule
from sklearn.datasets import load_diabetes, load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import nas
from nas import Categorical, Evaluator, Job, LayerChoice, Real, ValueChoice
from nas.evaluators import Classification, FunctionalEvaluator, LightningEvaluator, Regression
from nas.testing import EvaluatorContract


def digits() -> tuple[TensorDataset, TensorDataset]:
    images, labels = load_digits(return_X_y=True)
    inputs, targets = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    return TensorDataset(inputs[:400], targets[:400]), TensorDataset(inputs[400:610], targets[400:610])


def network(inputs: int, outputs: int) -> nn.Module:
    width = ValueChoice([16, 32], label="width")
    activation = LayerChoice({"relu": nn.ReLU, "tanh": nn.Tanh}, label="activation")
    return nn.Sequential(nn.Linear(inputs, width), activation, nn.Dropout(0.2), nn.Linear(width, outputs))


class Digits(EvaluatorContract):
    def space(self) -> object:
        return lambda: network(64, 10)


class TestFunctional(Digits):
    def make(self) -> Evaluator:
        train, _ = digits()
        images, labels = train.tensors

        def fit(model: nn.Module, rate: float) -> float:
            optimizer = torch.optim.SGD(model.parameters(), lr=rate)
            loss = 0.0
            for chosen in torch.randperm(len(labels)).split(100):
                found = cross_entropy(model(images[chosen]), labels[chosen])
                optimizer.zero_grad()
                found.backward()
                optimizer.step()
                loss = found.item()
                nas.report(-loss)
            return -loss

        return FunctionalEvaluator(fit, rate=Real(0.1, 0.5))


class TestClassification(Digits):
    def make(self) -> Evaluator:
        return Classification(*digits(), max_epochs=2, batch_size=Categorical([50, 100]), learning_rate=Real(0.01, 0.1))


class TestClassificationThatLoads(Digits):
    def make(self) -> Evaluator:
        return Classification(digits, max_epochs=1, optimizer=Categorical(["SGD", "AdamW"]))


class TestClassificationByLoaders(Digits):
    """The loader's own generator goes on from trial to trial; the evaluator begins it anew."""

    def make(self) -> Evaluator:
        train, validation = digits()
        shuffled = DataLoader(train, 50, shuffle=True, generator=torch.Generator().manual_seed(1))
        return Classification(shuffled, DataLoader(validation, 100), max_epochs=1)


class TestRegression(EvaluatorContract):
    def make(self) -> Evaluator:
        x, y = load_diabetes(return_X_y=True)
        data = TensorDataset(torch.tensor(x, dtype=torch.float32) * 20, torch.tensor(y, dtype=torch.float32) / 100)
        return Regression(data, folds=2, max_epochs=1, learning_rate=0.01)

    def space(self) -> object:
        return lambda: network(10, 1)

    def test_the_last_report_is_the_result(self) -> None:
        """Not here: the reports are those of the first fold."""


class Fit(LightningModule):
    def __init__(self, model: nn.Module, rate: float) -> None:
        super().__init__()
        self.model, self.rate = model, rate

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        hits = (self.model(batch[0]).argmax(1) == batch[1]).float()
        self.log("val_acc", hits.mean(), batch_size=len(hits))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.model.parameters(), lr=self.rate)


class DigitsModule(LightningDataModule):
    def setup(self, stage: str) -> None:
        self.train, self.validation = digits()

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.train, 50, shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        return DataLoader(self.validation, 100)


class TestLightning(Digits):
    def make(self) -> Evaluator:
        return LightningEvaluator(Fit, DigitsModule(), metric="val_acc", rate=Real(0.001, 0.01), max_epochs=2)


class Leaky(Evaluator):
    """Breaks the rules: it remembers."""

    def __init__(self) -> None:
        self.evaluated = 0

    def evaluate(self, job: Job) -> float:
        self.evaluated += 1
        return float(self.evaluated)


def test_the_suite_notices_an_evaluator_that_remembers() -> None:
    class Contract(Digits):
        def make(self) -> Evaluator:
            return Leaky()

    with pytest.raises(AssertionError):
        Contract().test_the_same_seed_gives_the_same_result()
