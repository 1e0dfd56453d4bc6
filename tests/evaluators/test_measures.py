"""The default accuracy: labels, several labels at once, ignored targets, and shapes that do not fit."""

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset
from torchmetrics.functional.classification import multiclass_accuracy, multilabel_accuracy

from nas import Job
from nas.evaluators import Classification, Regression
from nas.evaluators.measures import Accuracy, MeanOf, ignored_by
from tests.oneshot.conftest import TapeRecorder

pytestmark = pytest.mark.filterwarnings("ignore")  # what Lightning says of torch, and of small data


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def measured(scores: Tensor, target: Tensor, sizes: list[int], ignored: int = -100) -> float:
    measure = Accuracy(ignored)
    for some, these in zip(scores.split(sizes), target.split(sizes), strict=True):
        measure.update(some, these)
    return float(measure.compute())


def test_several_labels_are_judged_each_for_itself_however_batches_fall() -> None:
    scores = drawn(6, 4)
    # The first batch looks like one-hot targets; the epoch decides.
    target = torch.tensor([[1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0]])
    expected = float(multilabel_accuracy(scores, target, 4, average="micro", threshold=0.5))
    for kind in (torch.float32, torch.int64):
        assert measured(scores, target.to(kind), [2, 1, 3]) == pytest.approx(expected)
    assert measured(scores, target.float(), [6]) != pytest.approx(
        float((scores.argmax(1) == target.argmax(1)).float().mean())
    )


def test_one_hot_and_soft_targets_are_classes() -> None:
    scores, labels = drawn(8, 5), torch.arange(8) % 5
    expected = float(multiclass_accuracy(scores, labels, 5, average="micro"))
    hot = functional.one_hot(labels, 5)
    for target in (hot, hot.float(), hot * 0.8 + 0.04, (hot * 0.8 + 0.04).half()):
        assert measured(scores, target, [3, 5]) == pytest.approx(expected)


def test_ignored_pixels_do_not_count_and_batches_weigh_what_counted() -> None:
    scores, labels = drawn(4, 3, 5, 5), torch.randint(3, (4, 5, 5), generator=torch.Generator().manual_seed(1))
    for ignored in (-100, 255):
        target = labels.clone()
        target[0] = ignored
        target[1, :4] = ignored
        expected = float(multiclass_accuracy(scores, target, 3, average="micro", ignore_index=ignored))
        assert measured(scores, target, [1, 1, 2], ignored) == pytest.approx(expected)
    assert torch.tensor(measured(scores, torch.full_like(labels, -100), [4])).isnan()


def test_two_classes_by_one_score() -> None:
    scores, target = drawn(10, 1), (torch.arange(10) % 2)
    expected = float(((scores[:, 0] > 0) == (target == 1)).float().mean())
    for given in (target, target.float(), target[:, None]):
        assert measured(scores, given, [4, 6]) == pytest.approx(expected)
        assert measured(scores[:, 0], given.reshape(-1), [4, 6]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "target"),
    [((8, 3), (8, 2)), ((8, 3), (4,)), ((8, 3, 5), (8, 4)), ((8,), (8, 2)), ((8, 3), (8, 3, 1))],
)
def test_shapes_that_do_not_belong_together_are_answered_in_words(
    scores: tuple[int, ...], target: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"accuracy is that of scores.*for targets"):
        Accuracy().update(torch.zeros(scores), torch.zeros(target, dtype=torch.int64))


def test_targets_of_a_column_are_labels_too() -> None:
    scores, labels = drawn(8, 3), torch.arange(8) % 3
    assert measured(scores, labels[:, None], [8]) == measured(scores, labels, [8])


def test_the_loss_weighs_batches_by_what_counted() -> None:
    scores, target = drawn(6, 3), torch.tensor([0, 1, 2, -100, -100, -100])
    loss = MeanOf(functional.cross_entropy, -100)
    for some, these in zip(scores.split([2, 2, 2]), target.split([2, 2, 2]), strict=True):
        loss.update(some, these)
    assert float(loss.compute()) == pytest.approx(float(functional.cross_entropy(scores, target)))


@pytest.mark.parametrize(
    ("criterion", "ignored"),
    [
        (nn.CrossEntropyLoss(ignore_index=7), 7),
        (nn.CrossEntropyLoss(), -100),
        (functools.partial(functional.cross_entropy, ignore_index=3), 3),
        (functional.cross_entropy, -100),
        (nn.BCEWithLogitsLoss(), None),
        (nn.MSELoss(), None),
        (lambda prediction, target: prediction.sum(), None),
    ],
)
def test_what_a_criterion_ignores_is_ignored(criterion: Any, ignored: int | None) -> None:
    assert ignored_by(criterion) == ignored


class Constant(nn.Module):
    """Says the same of each input: class or label 0."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(shape))
        self.first = torch.zeros(shape)
        self.first[0] = 100.0

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.scores + self.first
        return scores.expand(len(inputs), *scores.shape)


def judged(data: TensorDataset, model: nn.Module, **arguments: Any) -> float:
    evaluator = Classification(data, data, batch_size=2, max_epochs=1, learning_rate=0.0, **arguments)
    found = evaluator.evaluate(Job(number=0, sample={}, build=lambda sample, seed: (model, sample)))
    return found["accuracy"]


def test_a_number_to_be_predicted_is_never_ignored() -> None:
    inputs, target = torch.zeros(4, 1), torch.tensor([[-100.0], [0.0], [-100.0], [0.0]])
    evaluator = Regression(
        TensorDataset(inputs, target), TensorDataset(inputs, target), max_epochs=1, learning_rate=0.0
    )
    found = evaluator.evaluate(Job(number=0, sample={}, build=lambda sample, seed: (Constant(1), sample)))
    assert found["mse"] == found["loss"] == pytest.approx((200.0**2 + 100.0**2) / 2)


def test_classification_measures_them_by_itself() -> None:
    inputs = torch.zeros(5, 1)
    several = torch.tensor([[1.0, 0, 0], [1, 1, 1], [0, 0, 0], [1, 0, 0], [1, 0, 1]])
    assert judged(TensorDataset(inputs, several), Constant(3), criterion=nn.BCEWithLogitsLoss) == pytest.approx(11 / 15)
    pixels = torch.zeros(5, 2, 2, dtype=torch.int64)
    pixels[1:, 0] = 1
    pixels[2:, 1] = 9
    criterion = nn.CrossEntropyLoss(ignore_index=9)
    assert judged(TensorDataset(inputs, pixels), Constant(2, 2, 2), criterion=criterion) == pytest.approx(6 / 14)


def test_no_measure_waits_for_a_device() -> None:
    """What would is refused while it is recorded."""
    for target in (torch.zeros(2, dtype=torch.int64), torch.rand(2, 3).round()):
        measure = Accuracy()

        def validate(measure: Accuracy = measure, target: torch.Tensor = target) -> torch.Tensor:
            measure.reset()
            measure.update(torch.ones(2, 3), target)
            return measure.compute()

        expected = validate()
        found, replay = TapeRecorder().record(validate)
        replay()
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
