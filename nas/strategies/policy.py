"""The controller: the decisions that make a sample, and a recurrent network that takes one after the other."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.checks import check_int
from nas.domains import Answer, Choose, Sample
from nas.random_state import as_rng
from nas.space import Choice, SearchSpace

IMPOSSIBLE = -1e9
"""The score of an option that cannot be taken."""


@final
@dataclass(frozen=True, kw_only=True)
class Decision:
    """One decision that was taken."""

    place: int
    """Which of the space's decisions it was."""
    options: tuple[int, ...]
    """What was possible."""
    option: int
    """What was taken."""


@final
class Decisions:
    """The decisions of a space, as its domains say: a choice is one among its answers, or several.

    Args:
        space: of the samples.

    Raises:
        NasValueError: a domain that knows no decisions; its label is named.

    Example:
        >>> from nas import Categorical, Subset
        >>> decisions = Decisions(SearchSpace.of({"act": Categorical(["relu", "gelu"]), "inputs": Subset(3, 2)}))
        >>> decisions.arity
        [2, 3, 3]
        >>> decisions.walk(lambda place, options: options[-1], random.Random(0))
        {'act': 'gelu', 'inputs': [1, 2]}
    """

    def __init__(self, space: SearchSpace) -> None:
        space.require(
            lambda domain: bool(domain.decisions),
            "a controller takes decisions among few options, and this domain knows none",
            "list the candidates, or give the domain the methods `decisions`, `decide` and `decided`",
        )
        self._space = space
        self.arity: list[int] = []
        """The number of options of each decision."""
        self._first: dict[str, int] = {}
        for variable, domain in space.variables.items():
            self._first[variable] = len(self.arity)
            self.arity += domain.decisions

    def walk(self, decide: Choose, rng: random.Random) -> Sample:
        """The sample that `decide` leads to; active choices alone are decided.

        Args:
            decide: is asked in the order of the tree.
            rng: draws what the decisions leave open: a number inside an interval.
        """
        return self._space.walk(lambda choice: self._answer(choice, decide, rng))

    def of(self, sample: Sample) -> list[Decision]:
        """The decisions that lead to a sample."""
        found: list[Decision] = []

        def recall(choice: Choice) -> Answer:
            answer = sample[choice.label]
            wanted = iter(choice.domain.decided(answer))

            def decide(place: int, options: tuple[int, ...]) -> int:
                found.append(Decision(place=place, options=options, option=next(wanted)))
                return found[-1].option

            self._answer(choice, decide, random.Random(0))
            return answer

        self._space.walk(recall)
        return found

    def _answer(self, choice: Choice, decide: Choose, rng: random.Random) -> Answer:
        first = self._first[self._space.variable(choice)]
        return choice.domain.decide(lambda place, options: decide(first + place, options), rng)


@final
@dataclass(frozen=True, kw_only=True)
class Walks:
    """Several samples as sequences of decisions, padded to the longest."""

    places: Tensor
    """(walks, steps), long: which decision is taken at each step."""
    options: Tensor
    """(walks, steps), long: what was taken."""
    possible: Tensor
    """(walks, steps, options), bool: what could have been."""
    real: Tensor
    """(walks, steps), bool: False where a shorter walk is padded."""


@explained()
@final
class Policy(nn.Module):
    """An autoregressive distribution over the samples of a space (Zoph and Le 2017, arXiv 1611.01578).

    An LSTM walks the choices of the search tree in their order. At each step it sees which decision is to be taken and
    what was decided before; inactive choices are skipped, and what is impossible has probability 0. The parameters
    are made so that at first every option of a decision is equally likely.

    Args:
        space: of the samples.
        hidden: width of the network.
        seed: of its first weights.

    Example: plain REINFORCE, whose loss is minus the reward times the log probability.
        >>> from nas import Categorical
        >>> policy = Policy(SearchSpace.of({"act": Categorical(["relu", "gelu"])}), seed=0)
        >>> optimizer = torch.optim.Adam(policy.parameters(), lr=0.05)
        >>> for step in range(30):
        ...     samples = [policy.sample(10 * step + i) for i in range(10)]
        ...     rewards = torch.tensor([1.0 if sample["act"] == "gelu" else -1.0 for sample in samples])
        ...     loss = -(rewards * policy.log_prob(samples)).mean()
        ...     optimizer.zero_grad(); loss.backward(); optimizer.step()
        >>> bool(policy.log_prob([{"act": "gelu"}]).exp() > 0.9)
        True
    """

    def __init__(self, space: SearchSpace, *, hidden: int = 64, seed: int = 0) -> None:
        super().__init__()
        hidden, seed = check_int("hidden", hidden, least=1, where="Policy"), check_int("seed", seed, where="Policy")
        self.decisions = Decisions(space)
        arity = self.decisions.arity
        self.widest = max(arity, default=1)
        # Option 0 of place p has the token `first[p]`; one more token stands for the beginning.
        self._first = [sum(arity[:place]) for place in range(len(arity) + 1)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.taken = nn.Embedding(self._first[-1] + 1, hidden)
            self.asked = nn.Embedding(len(arity) + 1, hidden)
            self.lstm = nn.LSTM(hidden, hidden, batch_first=True)
            self.score = nn.Embedding(self._first[-1] + self.widest, hidden + 1)
        nn.init.zeros_(self.score.weight)
        self._offset = torch.tensor(self._first)

    def sample(self, seed: int | random.Random) -> Sample:
        """Draws a sample.

        Args:
            seed: an int, or a `random.Random` that goes on from where it is.
        """
        rng = as_rng(seed)
        token, state = self._first[-1], None

        def decide(place: int, options: tuple[int, ...]) -> int:
            nonlocal token, state
            hidden, state = self._step(torch.tensor([[token]]), torch.tensor([[place]]), state)
            scores = self.scores(hidden, torch.tensor([[place]]))[0, 0, list(options)]
            weights = torch.softmax(scores, 0).tolist()
            option = rng.choices(options, weights)[0]
            token = self._first[place] + option
            return option

        with torch.inference_mode():
            return self.decisions.walk(decide, rng)

    def log_prob(self, samples: list[Sample]) -> Tensor:
        """The logarithm of each sample's probability, (samples,); differentiable."""
        walks = self.walks(samples)
        return self.step_log_probs(walks).sum(1)

    def step_log_probs(self, walks: Walks) -> Tensor:
        """The logarithm of the probability of what was taken at each step, (walks, steps); 0 where there is none."""
        logits: Tensor = self(walks)
        return logits.log_softmax(-1).gather(-1, walks.options[..., None])[..., 0] * walks.real

    def walks(self, samples: list[Sample]) -> Walks:
        """The samples as tensors."""
        return stack_walks([self.decisions.of(sample) for sample in samples], self.widest)

    def forward(self, walks: Walks) -> Tensor:
        """The scores of all options before each decision, (walks, steps, options); impossible ones are very low."""
        return self.scores(self.features(walks), walks.places).masked_fill(~walks.possible, IMPOSSIBLE)

    def features(self, walks: Walks) -> Tensor:
        """What the network knows before each decision, (walks, steps, hidden)."""
        tokens = self._offset[walks.places] + walks.options
        first = torch.full_like(tokens[:, :1], self._first[-1])
        hidden, _ = self._step(torch.cat([first, tokens[:, :-1]], 1), walks.places, None)
        return hidden

    def _step(
        self, tokens: Tensor, places: Tensor, state: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, following = self.lstm(self.taken(tokens) + self.asked(places), state)
        return hidden, following

    def scores(self, hidden: Tensor, places: Tensor) -> Tensor:
        """The scores at features (..., hidden) of the options of decisions (...): (..., options), masked by nothing."""
        # One weight vector and one bias for each option of each decision.
        index = self._offset[places][..., None] + torch.arange(self.widest)
        weight: Tensor = self.score(index)
        return (weight[..., :-1] @ hidden[..., None])[..., 0] + weight[..., -1]


def stack_walks(walks: list[list[Decision]], widest: int) -> Walks:
    """Pads the decisions of several samples to the longest, and at least to one step."""
    steps = max((len(walk) for walk in walks), default=0) or 1
    shape = len(walks), steps
    lengths = [(walk, steps - len(walk)) for walk in walks]
    places = [[decision.place for decision in walk] + [0] * missing for walk, missing in lengths]
    options = [[decision.option for decision in walk] + [0] * missing for walk, missing in lengths]
    real = [[True] * len(walk) + [False] * missing for walk, missing in lengths]
    none = [True] + [False] * (widest - 1)
    possible = [
        [[option in decision.options for option in range(widest)] for decision in walk] + [none] * missing
        for walk, missing in lengths
    ]
    return Walks(
        places=torch.tensor(places, dtype=torch.long).reshape(shape),
        options=torch.tensor(options, dtype=torch.long).reshape(shape),
        possible=torch.tensor(possible, dtype=torch.bool).reshape(*shape, widest),
        real=torch.tensor(real, dtype=torch.bool).reshape(shape),
    )
