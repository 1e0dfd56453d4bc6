"""Every example runs as a user runs it, and prints what it promises."""

import hashlib
import importlib.util
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, folder: Path, *options: str) -> str:
    """What the example prints; it must leave nothing on the error stream but warnings of others."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *options], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arithmetic.py", "best of 27: 16.0 with {'first': 'relu', 'addend': 2, 'second': 'relu'}"),
        ("input_choice.py", "best of 6: 48.0 with {'pipelines': [2, 2]}"),
        ("repeat.py", "best of 5: 11.0 with {'depth': 5}"),
    ],
)
def test_grid_examples_find_the_known_optimum(name: str, expected: str, tmp_path: Path) -> None:
    assert expected in run(name, tmp_path)


def test_digits_searches_retrains_and_exports(tmp_path: Path) -> None:
    out = run("digits.py", tmp_path, "--smoke", "--name", "first")
    assert "864 architectures" in out
    assert "3 trials: 3 complete" in out
    test, onnx = (float(found) for found in re.findall(r"test accuracy[^:]*: ([\d.]+)%", out))
    assert test > 85  # four epochs; the full run passes 97
    assert abs(test - onnx) < 0.5
    assert (tmp_path / "nas-experiments/first/best.json").exists()
    again = run("digits.py", tmp_path, "--smoke", "--name", "first")
    assert "resuming after 3 finished trials" in again


def test_resnet18_becomes_a_space(tmp_path: Path) -> None:
    out = run("resnet18.py", tmp_path)
    assert "activation: one of 'relu', 'silu'" in out
    assert "10 choices, 1,536 architectures" in out
    assert "output (2, 10)" in out


def test_own_strategy_beats_chance_and_keeps_the_rules(tmp_path: Path) -> None:
    out = run("own_strategy.py", tmp_path)
    regrets = [float(found) for found in re.findall(r"mean regret ([\d.]+)", out)]
    assert regrets[1] < 0.7 * regrets[0]
    assert "60 trials: 60 complete" in out
    source = (EXAMPLES / "own_strategy.py").read_text()
    strategy = source[source.index("class Elites") : source.index("@model_space")]
    code = [line for line in strategy.splitlines() if line.strip() and '"""' not in line]
    assert len(code) <= 15


def test_the_mutators_of_resnet18_take_under_thirty_lines() -> None:
    source = (EXAMPLES / "resnet18.py").read_text()
    space = source[source.index("class Activation") : source.index("def main")]
    assert len([line for line in space.splitlines() if line.strip()]) < 30


def test_lenet_on_digits(tmp_path: Path) -> None:
    out = run("lenet_cifar10.py", tmp_path, "--digits", "--trials", "2")
    assert "2 trials: 2 complete" in out
    assert re.search(r"best validation accuracy: \d+\.\d+%", out)


def test_cifar10_is_read_in_its_own_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    rng = numpy.random.default_rng(0)

    def write(name: str, content: dict[str, object]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    batch = {"data": rng.integers(0, 256, (4, 3072), dtype=numpy.uint8), "labels": [0, 1, 2, 9]}
    names = [name for name, _ in CIFAR10.train_list]
    monkeypatch.setattr(CIFAR10, "train_list", [[name, write(name, batch)] for name in names])
    monkeypatch.setattr(CIFAR10, "test_list", [[name, write(name, batch)] for name, _ in CIFAR10.test_list])
    meta = {**CIFAR10.meta, "md5": write("batches.meta", {"label_names": list("abcdefghij")})}
    monkeypatch.setattr(CIFAR10, "meta", meta)

    spec = importlib.util.spec_from_file_location("lenet_cifar10", EXAMPLES / "lenet_cifar10.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    images = example.load_cifar10(tmp_path)
    assert len(images) == 20
    image, label = images[3]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 9)


def test_language_model_beats_the_usual_transformer_and_pairs_of_characters(tmp_path: Path) -> None:
    out = run("language_model.py", tmp_path, "--smoke")
    assert "22,140 architectures" in out
    assert "3 trials: 3 complete" in out
    limit = int(re.findall(r"at most ([\d,]+) parameters", out)[0].replace(",", ""))
    spent = [int(found.replace(",", "")) for found in re.findall(r"with ([\d,]+) parameters", out)]
    assert spent[0] == limit >= spent[1]
    pairs, usual, best = (float(found) for found in re.findall(r": +(\d\.\d+)(?: with|\n)", out)[:3])
    assert 3 < pairs < 4
    assert best <= usual
    unseen = [float(found) for found in re.findall(r"(\d\.\d+), the mean of", out)]
    assert len(unseen) == 2
    assert max(unseen) < 5  # chance is 6.7


def test_pareto_front_of_digits_is_drawn(tmp_path: Path) -> None:
    out = run("pareto_digits.py", tmp_path, "--smoke", "--name", "front")
    assert "6 trials: 6 complete" in out
    assert re.search(r"flops <= 2000000: \d+% of the samples", out)
    assert re.search(r"\d of 6 trials on the front, drawn to", out)
    flops = [int(found.replace(",", "")) for found in re.findall(r"([\d,]+) flops  ", out)]
    assert flops
    assert all(number <= 2_000_000 for number in flops)
    assert (tmp_path / "nas-experiments/front/front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_lightning_digits_loads_its_data_once(tmp_path: Path) -> None:
    out = run("lightning_digits.py", tmp_path, "--smoke")
    assert "3 trials: 3 complete" in out
    assert "3 trials, data loaded 1 time(s)" in out
    found = re.search(r"best validation accuracy: ([\d.]+)%", out)
    assert found is not None
    assert float(found.group(1)) > 50  # two epochs; the full run passes 95
    assert re.search(r"its files: checkpoints, events\.out\.\S+, hparams\.yaml", out)
    assert [path.name for path in tmp_path.iterdir()] == ["nas-experiments"]
