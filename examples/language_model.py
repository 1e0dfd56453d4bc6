"""A language model of characters: which transformer learns most in a few seconds, with no more parameters than usual?

Run it by `python examples/language_model.py`; it takes about two minutes on two cores and needs nothing but what is
installed: the text is the reference that Python's own `help()` shows. `--smoke` does the same in seconds.

A search finds what it was asked for: the best after so many steps. Trained twice as long, the usual one catches up.
"""

from __future__ import annotations

import argparse
import datetime
import math
import random
import statistics
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nas import Experiment, ModelSpace, Sample
from nas.evaluators import FunctionalEvaluator
from nas.model_zoo import TransformerLMSpace
from nas.profile import profile
from nas.strategies import GaussianProcess

CONTEXT, BATCH, LEARNING_RATE = 32, 32, 1e-2

USUAL: Sample = {"width": 64, "depth": 2} | {
    label: 4 for layer in (1, 2) for label in (f"layer{layer}/heads", f"layer{layer}/mlp_ratio")
}
"""What one would write down without a search: 2 layers of 4 heads, 4 times as wide inside."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """Characters as numbers, below `vocabulary`: each paragraph is in one of the three parts alone."""

    train: Tensor
    valid: Tensor
    test: Tensor
    vocabulary: int


def load() -> Text:
    """Eight, one and one tenth of the language reference; the search never sees the last."""
    paragraphs = list(dict.fromkeys(paragraph for topic in topics.values() for paragraph in topic.split("\n\n")))
    random.Random(0).shuffle(paragraphs)
    text = "\n\n".join(paragraphs)
    numbers = {character: number for number, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([numbers[character] for character in text])
    tenth = len(codes) // 10
    train, valid, test = codes.split([len(codes) - 2 * tenth, tenth, tenth])
    return Text(train=train, valid=valid, test=test, vocabulary=len(numbers))


def fit(model: nn.Module, text: Tensor, steps: int, seed: int) -> None:
    """Trains on random excerpts, the same for the same seed, with AdamW and a one-cycle schedule."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(steps):
        starts = torch.randint(len(text) - CONTEXT, (BATCH, 1), generator=generator)
        excerpts = text[starts + torch.arange(CONTEXT + 1)]
        optimizer.zero_grad()
        cross_entropy(model(excerpts[:, :-1]).transpose(1, 2), excerpts[:, 1:]).backward()
        optimizer.step()
        schedule.step()


def bits_per_character(model: nn.Module, text: Tensor) -> float:
    """How many bits the model needs for a character of the text; less is better."""
    model.eval()
    excerpts = text.unfold(0, CONTEXT + 1, CONTEXT)
    with torch.no_grad():
        losses = [
            cross_entropy(model(part[:, :-1]).transpose(1, 2), part[:, 1:], reduction="sum")
            for part in excerpts.split(256)
        ]
    return float(sum(losses)) / math.log(2) / (len(excerpts) * CONTEXT)


def bits_of_pairs(text: Text) -> float:
    """The same for a table that knows how often which character follows which in the training text."""
    counts = torch.ones(text.vocabulary, text.vocabulary)
    pairs = (text.train[:-1], text.train[1:])
    counts.index_put_(pairs, torch.ones(len(text.train) - 1), accumulate=True)
    likely = counts / counts.sum(1, keepdim=True)
    return -float(likely[text.valid[:-1], text.valid[1:]].log2().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--steps", type=int, default=300, help="of training, in each trial and after")
    parser.add_argument("--directory", type=Path, default=Path("nas-experiments"))
    parser.add_argument(
        "--name", default=f"language-{datetime.datetime.now():%Y%m%d-%H%M%S}", help="resumes if it exists"
    )
    parser.add_argument("--smoke", action="store_true", help="3 trials of 20 steps")
    options = parser.parse_args()
    if options.smoke:
        options.trials, options.steps = 3, 20

    text = load()
    every = ModelSpace(TransformerLMSpace, vocabulary=text.vocabulary, context=CONTEXT)

    parameters = profile(every, torch.zeros(1, CONTEXT, dtype=torch.long)).parameters
    most = round(parameters(USUAL))
    space = every.where(parameters <= most)
    print(f"{len(text.train):,} characters to learn from, {space.size:,} architectures, at most {most:,} parameters")

    def evaluate(model: nn.Module, steps: int) -> float:
        fit(model, text.train, steps, seed=0)
        return bits_per_character(model, text.valid)

    experiment = Experiment(
        space,
        FunctionalEvaluator(evaluate, steps=options.steps),
        GaussianProcess(initial=8),
        name=options.name,
        directory=options.directory,
        objective="minimize",
        resume=True,
    )
    experiment.enqueue(USUAL)
    experiment.run(options.trials)
    usual, best = experiment.trials[0], experiment.best_trial
    assert usual.value is not None
    assert best.value is not None

    print(f"\nvalidation bits per character after {options.steps} steps")
    print(f"  counting pairs of characters: {bits_of_pairs(text):.3f}")
    print(f"  the usual transformer:        {usual.value:.3f} with {parameters(usual.sample):,} parameters")
    print(f"  the best that was found:      {best.value:.3f} with {parameters(best.sample):,} parameters")
    print(f"  it is {best.sample}")

    print("\nbits per character of a text that the search never saw, trained afresh three times")
    for name, sample in (("the usual transformer:", usual.sample), ("the best that was found:", best.sample)):
        bits = []
        for seed in range(1, 4):
            torch.manual_seed(seed)
            model = every.build(sample)
            fit(model, text.train, options.steps, seed)
            bits.append(bits_per_character(model, text.test))
        print(f"  {name:<29} {statistics.fmean(bits):.3f}, the mean of", *(f"{found:.3f}" for found in bits))


if __name__ == "__main__":
    main()
