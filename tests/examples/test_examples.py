"""Every example runs as a user runs it, and prints what it promises."""

import hashlib
import importlib.util
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

pytestmark = pytest.mark.long

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def run(run_script: Callable[..., str]) -> Callable[..., str]:
    return lambda name, *options: run_script(EXAMPLES / name, *options)


def test_an_example_runs_by_itself(tmp_path: Path) -> None:
    """In a process of its own, with nothing on the error stream."""
    script = [sys.executable, "-W", "error", str(EXAMPLES / "repeat.py")]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "best of 5" in done.stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("arithmetic.py", "best of 27: 16.0 with {'first': 'relu', 'addend': 2, 'second': 'relu'}"),
        ("input_choice.py", "best of 6: 48.0 with {'pipelines': [2, 2]}"),
        ("repeat.py", "best of 5: 11.0 with {'depth': 5}"),
    ],
)
def test_grid_examples_find_the_known_optimum(name: str, expected: str, run: Callable[..., str]) -> None:
    assert expected in run(name)


def test_a_pipeline_is_searched(run: Callable[..., str]) -> None:
    out = run("pipeline.py", 4)
    found = re.search(r"^(0\.\d+) with Pipeline\(steps=", out, re.MULTILINE)
    assert found, out
    assert float(found[1]) > 0.85


@pytest.mark.slow
def test_digits_searches_retrains_and_exports(tmp_path: Path, run: Callable[..., str]) -> None:
    out = run("digits.py", "--smoke", "--name", "first")
    assert "864 architectures" in out
    assert "3 trials: 3 complete" in out
    test, onnx = (float(found) for found in re.findall(r"test accuracy[^:]*: ([\d.]+)%", out))
    assert test > 85  # four epochs; the full run passes 97
    assert abs(test - onnx) < 0.5
    assert (tmp_path / "nas-experiments/first/best.json").exists()
    again = run("digits.py", "--smoke", "--name", "first")
    assert "resuming after 3 finished trials" in again


@pytest.mark.slow
def test_resnet18_becomes_a_space(run: Callable[..., str]) -> None:
    out = run("resnet18.py")
    assert "activation: one of 'relu', 'silu'" in out
    assert "10 choices, 1,536 architectures" in out
    assert "output (2, 10)" in out


@pytest.mark.slow
def test_own_strategy_beats_chance_and_keeps_the_rules(run: Callable[..., str]) -> None:
    out = run("own_strategy.py")
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


@pytest.mark.slow
def test_lenet_on_digits(run: Callable[..., str]) -> None:
    out = run("lenet_cifar10.py", "--digits", "--trials", "2")
    assert "2 trials: 2 complete" in out
    assert re.search(r"best validation accuracy: \d+\.\d+%", out)


@pytest.fixture
def tiny_cifar10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with four images in each file of CIFAR-10, in the format of the real ones."""
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
    return tmp_path


def load_example(name: str) -> Any:
    """An example as a module, without running it."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    return example


def test_cifar10_is_read_in_its_own_format(tiny_cifar10: Path) -> None:
    images = load_example("lenet_cifar10").load_cifar10(tiny_cifar10)
    assert len(images) == 20
    image, label = images[3]
    assert (image.shape, image.dtype, label) == ((3, 32, 32), torch.float32, 9)


@pytest.mark.slow
def test_cifar10_of_the_papers(tiny_cifar10: Path) -> None:
    cifar10 = load_example("cifar10")
    words = ["--data", str(tiny_cifar10), "--workers", "0"]
    options = cifar10.parser("", name="", search_epochs=1, retrain_epochs=1).parse_args(words)
    assert len(cifar10.load(options, train=False)) == 4
    weights, architecture = cifar10.split(options, share=0.5, batch=5)
    seen = [{int(i) for i in loader.dataset.indices} for loader in (weights, architecture)]
    assert [len(part) for part in seen] == [10, 10]
    assert not seen[0] & seen[1]
    images, labels = next(iter(weights))
    assert (images.shape, labels.shape) == ((5, 3, 32, 32), (5,))
    blanked = cifar10.Cutout(16)(torch.ones(3, 32, 32))
    assert 64 <= int((blanked[0] == 0).sum()) <= 256  # from a corner to a whole square
    assert torch.equal(blanked[0], blanked[2])


def test_cifar10_that_is_not_there_is_explained(tmp_path: Path) -> None:
    cifar10 = load_example("cifar10")
    words = ["--data", str(tmp_path / "nowhere")]
    options = cifar10.parser("", name="", search_epochs=1, retrain_epochs=1).parse_args(words)
    with pytest.raises(SystemExit, match=r"CIFAR-10 is not in .*nowhere: .* --download, or try --smoke"):
        cifar10.load(options)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["darts", "enas"])
def test_cells_for_cifar10_are_searched_and_trained(name: str, tmp_path: Path, run: Callable[..., str]) -> None:
    out = run(f"{name}_cifar10.py", "--smoke")
    assert "supernet, epoch 1 of 1" in out
    assert "1 trial: 1 complete" in out
    assert re.search(r"Genotype\(normal=.*normal_concat=\(\d.*reduce_concat=", out)
    assert re.search(r"test accuracy: \d+\.\d+%", out)
    folder = tmp_path / "nas-experiments" / f"{name}-cifar10"
    assert (folder / "best.json").exists()
    assert list((folder / "retrained/checkpoints").glob("*.ckpt"))


@pytest.mark.slow
def test_one_shot_beside_multi_trial_search(run: Callable[..., str]) -> None:
    out = run("one_shot_digits.py", "--smoke")
    assert re.search(r"cannot be relaxed.*LayerNorm.*search this space by paths", out, re.S)
    table = out[out.index("Handwritten digits, by one-shot") :]
    lines = re.findall(r"│ ([^│]+?) +│ +\d+ │ +[\d.]+% │ +([\d.]+)% │ +([\d.]+)% │ +(\d+) of (\d+) │", table)
    assert [line[0] for line in lines][:3] == ["DARTS", "ENAS", "single path"]
    assert [line[4] for line in lines] == ["540", "540", "540", "624", "540"]
    assert all(float(line[1]) > 30 for line in lines)  # two epochs; the full run passes 93
    assert "the best of 540 convolutional architectures has 97.89%" in table


@pytest.mark.slow
def test_language_model_beats_the_usual_transformer_and_pairs_of_characters(run: Callable[..., str]) -> None:
    out = run("language_model.py", "--smoke")
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


@pytest.mark.slow
def test_pareto_front_of_digits_is_drawn(tmp_path: Path, run: Callable[..., str]) -> None:
    out = run("pareto_digits.py", "--smoke", "--name", "front")
    assert "6 trials: 6 complete" in out
    assert re.search(r"flops <= 2000000: \d+% of the samples", out)
    assert re.search(r"\d of 6 trials on the front, drawn to", out)
    flops = [int(found.replace(",", "")) for found in re.findall(r"([\d,]+) flops  ", out)]
    assert flops
    assert all(number <= 2_000_000 for number in flops)
    assert (tmp_path / "nas-experiments/front/front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.slow
def test_lightning_digits_loads_its_data_once(tmp_path: Path, run: Callable[..., str]) -> None:
    out = run("lightning_digits.py", "--smoke")
    assert "3 trials: 3 complete" in out
    assert "3 trials, data loaded 1 time(s)" in out
    found = re.search(r"best validation accuracy: ([\d.]+)%", out)
    assert found is not None
    assert float(found.group(1)) > 50  # two epochs; the full run passes 95
    assert re.search(r"its files: checkpoints, events\.out\.\S+, hparams\.yaml", out)
    assert [path.name for path in tmp_path.iterdir()] == ["nas-experiments"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "choices"), [("timm_network.py", 11), ("hugging_face_encoder.py", 7)])
def test_a_foreign_network_becomes_a_space(name: str, choices: int, run: Callable[..., str]) -> None:
    out = run(name, 2, 1)
    assert f"{choices} choices" in out
    assert "2 trials: 2 complete" in out
    assert out.splitlines()[-1].endswith("top/1.onnx")
