"""A Hugging Face encoder becomes a model space by two mutators; then costs, a search, an ONNX file.

Run it by `python examples/hugging_face_encoder.py [trials] [epochs]`; it needs transformers and onnx. A BERT, made
from its config, learns to tell from 64 letters which page of Python's documentation they come from, in about a minute.
"""

from __future__ import annotations

import pydoc_data.topics
import sys
import tempfile

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from transformers import BertConfig, BertModel
from transformers.models.bert.modeling_bert import BertLayer

from nas import Experiment, LayerChoice, ModelSpace, Mutator, ValueChoice, replace_module
from nas.evaluators import Classification
from nas.profile import profile
from nas.strategies import TPE

LENGTH = 64
PAGES = ("specialnames", "typesmethods", "formatstrings", "assignment", "debugger", "strings", "class", "import")


class Classifier(nn.Module):
    """A BERT that reads bytes, and a head on the mean of its outputs."""

    def __init__(self, config: BertConfig, classes: int) -> None:
        super().__init__()
        self.encoder = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, classes)

    def forward(self, letters: Tensor) -> Tensor:
        """(batch, length) bytes -> (batch, classes) logits."""
        hidden = self.encoder(input_ids=letters).last_hidden_state
        logits: Tensor = self.head(hidden.mean(1))
        return logits


class Depth(Mutator):
    """The first one, two or three layers."""

    def mutate(self, model: nn.Module) -> None:
        encoder = model.get_submodule("encoder.encoder")
        encoder.layer = encoder.get_submodule("layer")[: ValueChoice([1, 2, 3], label="depth")]  # type: ignore[index]


class FeedForward(Mutator):
    """In each layer that is left: the width between its two linear layers, and the activation."""

    def mutate(self, model: nn.Module) -> None:
        for name, layer in list(model.named_modules()):
            if isinstance(layer, BertLayer):
                size = layer.attention.output.dense.out_features
                width = ValueChoice([32, 64, 128], label=f"{name}.width")
                replace_module(model, f"{name}.intermediate.dense", nn.Linear(size, width))
                replace_module(model, f"{name}.output.dense", nn.Linear(width, size))
                activation = LayerChoice([nn.GELU, nn.ReLU], label=f"{name}.activation")
                replace_module(model, f"{name}.intermediate.intermediate_act_fn", activation)


def pages() -> tuple[TensorDataset, TensorDataset]:
    """Windows of text with the number of their page: of each page the first four fifths to train on."""
    parts: tuple[list[tuple[Tensor, int]], list[tuple[Tensor, int]]] = [], []
    for label, page in enumerate(PAGES):
        text = torch.tensor(list(pydoc_data.topics.topics[page].encode()))
        windows = text[: len(text) // LENGTH * LENGTH].view(-1, LENGTH)
        cut = len(windows) * 4 // 5
        for part, found in zip(parts, (windows[:cut], windows[cut:]), strict=True):
            part.extend((window, label) for window in found)
    train, validation = (
        TensorDataset(torch.stack([window for window, _ in part]), torch.tensor([label for _, label in part]))
        for part in parts
    )
    return train, validation


def main(trials: int = 4, epochs: int = 5) -> None:
    config = BertConfig(
        vocab_size=256, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=LENGTH
    )
    space = ModelSpace(Classifier(config, len(PAGES)), mutators=[Depth(), FeedForward()])
    print(space)
    example = torch.zeros(1, LENGTH, dtype=torch.long)
    costs = profile(space, example)
    print(costs)

    experiment = Experiment(
        space,
        Classification(*pages(), batch_size=64, max_epochs=epochs, learning_rate=3e-3),
        TPE(),
        name="hugging_face",
        directory=tempfile.mkdtemp(),
    )
    experiment.run(trials)
    best = experiment.best_trial
    print(f"best of {len(experiment.trials)}: {best.value:.1%} with {costs.parameters(best.sample):,.0f} parameters")
    print(experiment.export_top_models(formatter="onnx", example_input=example)[0])


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
