"""Writes an architecture as a small Python file: its sample, and the program that rebuilds it."""

from __future__ import annotations

import ast
import os
import pprint
import shutil
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nas.calls import explained
from nas.domains import Answer, check_sample
from nas.errors import ExperimentError, NasTypeError, explain, told_if_full
from nas.export.code_check import differences, facts_of, run_file, tensors_of
from nas.export.code_writer import Writer, arguments_of
from nas.files import named_by_user
from nas.random_state import seeded
from nas.space import ARCHITECTURE, ModelSpace

_TEMPLATE = '''"""One architecture of {name}, written by torch-nas; `build()` makes it, {which}."""

{future}{imports}
{definitions}

SAMPLE = {sample}
{hyperparameters}

def build() -> nn.Module:
    """The architecture as an ordinary module{mode}."""
{body}


if __name__ == "__main__":
    print(build())
'''
_RESERVED: dict[str, object] = {
    "SAMPLE": object(),
    "HYPERPARAMETERS": object(),
    "build": object(),
    "_restored": object(),
    "ModelSpace": ModelSpace,
    "nn": nn,
    "torch": torch,
    "Path": Path,
}


@explained()
def to_code(
    space: ModelSpace,
    sample: Mapping[str, Answer],
    path: str | os.PathLike[str],
    *,
    hyperparameters: Collection[str] = (),
    weights: nn.Module | None = None,
) -> Path:
    """Writes a Python file that rebuilds one architecture, wherever it is moved to and run from.

    What a fresh process can import the file imports. What it cannot, because it stands in a script, a notebook or a
    module that is not installed, is written into the file, with what it uses, and nothing else of the script is run.
    Before it is reported, the file is run once in a fresh process, in another folder, and what it builds is compared:
    names, shapes and types of all parameters and buffers, their numbers where they are not random, and the modules with
    their attributes.

    Args:
        space: made from a class or function at the top of a module.
        sample: label -> answer; hyperparameters of the evaluator in it are written down beside the architecture.
        path: the file to write; its folder is made where needed.
        hyperparameters: labels of the evaluator's in the sample, besides those that the space knows of.
        weights: a module of this architecture whose weights go along, in a file beside it: NAME.pt for NAME.py.

    Returns:
        The path.

    Raises:
        NasValueError: the sample is not of this space.
        NasTypeError: the source, an argument or a mutator cannot be written as code; nothing is written then.
        ExperimentError: the file does not run elsewhere, or builds another module; nothing is written then.
    """
    if not isinstance(space, ModelSpace):
        raise NasTypeError(
            explain(
                "code is written for an architecture of a ModelSpace",
                got=space,
                where="to_code",
                mend="to_code(ModelSpace(Net), sample, path)",
            )
        )
    check_sample(sample)
    if not space.program.modules:
        raise NasTypeError(explain("code is written for spaces of modules, and this one builds none", got=space))
    architecture = {label: answer for label, answer in sample.items() if label not in hyperparameters}
    with seeded(0):
        built = space.build(architecture)
    found = vars(built)[ARCHITECTURE]["sample"]
    others = {label: answer for label, answer in sample.items() if label not in found}
    target = named_by_user(Path(path).expanduser())
    text = _text(space, found, others, target.stem, None if weights is None else _loading(built, weights, target.stem))
    with told_if_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        # It is tried where it has neither its place nor its neighbours.
        folder = Path(tempfile.mkdtemp(prefix=f".{target.stem}-", dir=target.parent))
        try:
            draft = folder / target.name
            draft.write_text(text, encoding="utf-8")
            if weights is not None:
                _save(weights, draft.with_suffix(".pt"))
            _compare(space, architecture, built, weights, draft)
            for file in sorted(folder.iterdir(), reverse=True):  # the weights first
                os.replace(file, target.with_name(file.name))
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return target


def _compare(
    space: ModelSpace, architecture: dict[str, Answer], built: nn.Module, weights: nn.Module | None, draft: Path
) -> None:
    """Runs a draft, and refuses it where it builds something else.

    Raises:
        ExperimentError: it does, or fails.
    """
    here = facts_of(built)
    with seeded(1):
        again = facts_of(space.build(architecture))
    found = differences(here, again, run_file(draft), None if weights is None else facts_of(weights))
    if found:
        raise ExperimentError(
            explain(
                "the file that rebuilds the architecture was run in a fresh process, and builds another module: "
                + "; ".join(found[:3]),
                mend="let the class depend on its arguments and on nothing that changes while a program runs",
            )
        )


def _text(
    space: ModelSpace,
    sample: Mapping[str, Answer],
    others: Mapping[str, Answer],
    name: str,
    loading: list[str] | None,
) -> str:
    writer = Writer(_RESERVED)
    source = _source(space, writer)
    positional = [writer.expression(value) for value in space.program.args]
    keywords = {key: writer.expression(value) for key, value in space.program.kwargs.items()}
    mutators = [writer.expression(mutator) for mutator in space.mutators]
    imports = {"from torch import nn"}
    if space.search_space.choices and len(space.hyperparameters) < len(space.search_space.domains):
        imports.add("from nas import ModelSpace")
        keywords |= {"mutators": f"[{', '.join(mutators)}]"} if mutators else {}
        made = f"ModelSpace({arguments_of([source, *positional], keywords)}).build(SAMPLE)"
        body = [f"return {made}"] if loading is None else [f"model = {made}", *loading]
    else:  # a space without choices has nothing to answer
        body = [f"model = {source}({arguments_of(positional, keywords)})"]
        body += [f"model = {mutator}.mutate(model) or model" for mutator in mutators]
        body += ["return model"] if loading is None else loading
    if loading is not None:
        imports |= {"import torch", "from pathlib import Path"}
    lines = sorted(imports | set(writer.imports), key=lambda line: (not line.startswith("import "), line))
    return _TEMPLATE.format(
        name=_said(space.name),
        which="with fresh weights" if loading is None else f"with the weights of {_said(name)}.pt beside it",
        future=writer.future,
        imports="\n".join(lines),
        definitions=writer.definitions,
        sample=_laid_out(sample, writer),
        hyperparameters=f"HYPERPARAMETERS = {_laid_out(others, writer)}\n" if others else "",
        mode="" if loading is None else ", in evaluation mode",
        body="\n".join(f"    {line}" for line in body),
    )


def _source(space: ModelSpace, writer: Writer) -> str:
    source = space.program.source
    if not isinstance(source, nn.Module):
        try:
            return writer.expression(source)
        except NasTypeError as error:
            reason: BaseException | None = error
    else:
        reason = None
    raise NasTypeError(
        explain(
            "code can only be written for a space whose source can be imported, or is at the top of a script"
            + ("" if reason is None else f" ({reason})"),
            got=source,
            mend="make the space from a class or function at the top of a module",
        )
    ) from reason


def _said(text: str) -> str:
    """A name inside a docstring."""
    return text.replace("\\", "/").replace('"', "'")


def _laid_out(answers: Mapping[str, Answer], writer: Writer) -> str:
    """A dict of answers, over several lines where it is long."""
    text = pprint.pformat(dict(answers), sort_dicts=False, width=100)
    try:
        same = ast.literal_eval(text) == dict(answers)
    except (ValueError, SyntaxError):
        same = False
    return text if same else writer.expression(dict(answers))


# Weights.


def _loading(built: nn.Module, weights: nn.Module, name: str) -> list[str]:
    """The lines that give a module its weights from the file beside."""
    mine, others = tensors_of(built), tensors_of(weights)
    kinds = {key: tensor.dtype for key, tensor in others.items() if key in mine and mine[key].dtype != tensor.dtype}
    hidden = _hidden(weights)
    lines = [f'state = torch.load(Path(__file__).with_name({f"{name}.pt"!r}), map_location="cpu", weights_only=True)']
    if kinds:
        lines += [
            "for name, tensor in [*model.named_parameters(), *model.named_buffers()]:",
            "    tensor.data = tensor.data.to(state[name].dtype)",
        ]
    if hidden:
        lines += [
            f"for name in {sorted(hidden)}:  # buffers that a state dict leaves out",
            "    model.get_buffer(name).copy_(state.pop(name))",
        ]
    return [*lines, "model.load_state_dict(state)", "return model.eval()"]


def _hidden(model: nn.Module) -> dict[str, Tensor]:
    state = model.state_dict()
    return {name: buffer for name, buffer in model.named_buffers(remove_duplicate=False) if name not in state}


def _save(weights: nn.Module, path: Path) -> None:
    state: dict[str, Any] = {**weights.state_dict(), **_hidden(weights)}
    with path.open("xb") as file:  # A file of Python's, for torch's own does not say that the disk is full.
        torch.save({k: v.detach().cpu() if isinstance(v, Tensor) else v for k, v in state.items()}, file)
