"""Runs a file that rebuilds an architecture in a fresh process in another folder, and compares what it builds."""

from __future__ import annotations

import dis
import hashlib
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, SimpleNamespace
from typing import Any, TypeAlias

import numpy
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from nas.errors import ExperimentError, NasError, explain
from nas.export.code_places import is_installed
from nas.files import read_json

_HERE = Path(__file__).resolve().parents[2]
_PATIENCE = 600.0
"""Seconds."""
_CHILD = "import sys; sys.path.append(sys.argv[3]); from nas.export.code_check import main; main()"
"""This library is found though it is not installed: every such file needs it."""
_SILENT = frozenset({"PUSH_NULL", "PRECALL", "CACHE", "RESUME", "NOP", "EXTENDED_ARG", "COPY_FREE_VARS", "MAKE_CELL"})
_PLAIN = (bool, int, float, str, bytes, type(None))

Facts: TypeAlias = dict[str, dict[str, Any]]
"""What can be compared of two modules: their tensors, the sums of these, and what their modules are."""


def facts_of(model: nn.Module) -> Facts:
    """What can be compared of a module, as JSON."""
    tensors: dict[str, Any] = {}
    sums: dict[str, Any] = {}
    for name, tensor in tensors_of(model).items():
        lazy = is_lazy(tensor)
        tensors[name] = "lazy" if lazy else [str(tensor.dtype), list(tensor.shape)]
        if not lazy and tensor.numel() and not tensor.is_meta:
            sums[name] = _sums(tensor)
    modules = dict(_described(model))
    return {"tensors": tensors, "sums": sums, "modules": modules}


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and buffers by name, tied ones under each of theirs."""
    parameters = model.named_parameters(remove_duplicate=False)
    return dict(parameters) | dict(model.named_buffers(remove_duplicate=False))


def _sums(tensor: Tensor) -> list[float]:
    flat = tensor.detach().to("cpu").reshape(-1)
    numbers = flat.abs().double() if flat.is_complex() else flat.double()
    places = torch.linspace(0, 1, len(numbers), dtype=torch.float64)
    return [float(numbers.sum()), float(numbers.abs().sum()), float((numbers * places).sum())]


def _described(model: nn.Module) -> Iterator[tuple[str, str]]:
    usual = vars(nn.Module()).keys() | {"nas_architecture"}
    for kind in dict.fromkeys(map(type, model.modules())):
        yield from _methods(kind)
    for name, module in model.named_modules(remove_duplicate=False):
        yield f"{name}: class", type(module).__qualname__
        yield f"{name}: text", re.sub(r"0x[0-9a-fA-F]+", "", module.extra_repr())
        for key, value in vars(module).items():
            if key not in usual and _is_plain(value):
                yield f"{name}.{key}", repr(value)


def _methods(kind: type) -> Iterator[tuple[str, str]]:
    """What the methods of a class do, and the globals that they look up.

    They differ where a source was edited since it was loaded, or a global was set since then.
    """
    seen: set[FunctionType] = set()
    bases = [base for base in kind.__mro__ if not is_installed(base.__module__)]
    left: list[Any] = [method for base in bases for method in vars(base).values()]
    while left:
        method = left.pop()
        method = inspect.unwrap(method) if inspect.isfunction(method) else None
        if method is None or method in seen or is_installed(method.__module__):
            continue
        seen.add(method)
        if not sys.flags.optimize and not _is_rewritten(method.__code__):
            digest = hashlib.sha256(repr(_steps(method.__code__)).encode()).hexdigest()[:12]
            yield f"code of {method.__qualname__}", digest
        for name in _globals_of(method.__code__):
            value = method.__globals__.get(name)
            left.append(value)
            yield f"global {name} of {method.__qualname__}", _in_words(value)


def _globals_of(code: CodeType) -> set[str]:
    steps = (step for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    names = {str(step.argval) for step in steps if not str(step.argval).startswith("__")}
    return names.union(*(_globals_of(inner) for inner in code.co_consts if isinstance(inner, CodeType)))


def _in_words(value: object, depth: int = 4) -> str:
    """A value as far as it is the same in each process."""
    kind = type(value)
    if isinstance(value, ModuleType | SimpleNamespace) or not depth:
        return "a module"
    if isinstance(value, Tensor | numpy.ndarray):
        tensor = torch.as_tensor(value) if isinstance(value, Tensor) or value.dtype.kind in "biufc" else torch.empty(0)
        return f"{kind.__name__} {tensor.dtype} {tuple(tensor.shape)}"
    if isinstance(value, list | tuple):
        return f"{kind.__name__}({', '.join(_in_words(item, depth - 1) for item in value)})"
    if isinstance(value, set | frozenset):
        return f"{kind.__name__}({', '.join(sorted(_in_words(item, depth - 1) for item in value))})"
    if isinstance(value, dict):
        return f"{kind.__name__}({', '.join(f'{k}: {_in_words(v, depth - 1)}' for k, v in value.items())})"
    if isinstance(getattr(value, "__qualname__", None), str):
        return str(getattr(value, "__qualname__", None))
    if isinstance(value, _PLAIN):
        return repr(value)
    if hasattr(value, "__dict__") and not is_installed(kind.__module__) and not isinstance(value, nn.Module):
        return f"{kind.__qualname__} {_in_words(vars(value), depth - 1)}"
    return kind.__qualname__


def _is_rewritten(code: CodeType) -> bool:
    """Whether pytest has put other assertions in its place, in this process alone."""
    return any("@py" in name for name in (*code.co_names, *code.co_varnames))


def _steps(code: CodeType) -> list[object]:
    """What a function does, without where it stands, and without what Python makes of a name that is imported."""
    found: list[object] = []
    for step in dis.get_instructions(code):
        name = step.opname.replace("LOAD_METHOD", "LOAD_ATTR")
        if name in _SILENT:
            continue
        jumps = step.opcode in dis.hasjrel or step.opcode in dis.hasjabs  # their targets move with the rest
        found.append((name, None if jumps else _constant(step.argval)))
    return found


def _constant(value: object) -> object:
    if isinstance(value, CodeType):
        return _steps(value)
    if isinstance(value, frozenset):
        return sorted(map(repr, value))  # their order is another one in each process
    return [_constant(item) for item in value] if isinstance(value, tuple) else repr(value)


def _is_plain(value: object) -> bool:
    if type(value) in (list, tuple, set, frozenset):
        return all(map(_is_plain, value))  # type: ignore[call-overload]  # it is one of these
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return type(value) in _PLAIN


def differences(here: Facts, again: Facts, there: Facts, trained: Facts | None) -> list[str]:
    """In what the module that a file builds is another one.

    Args:
        here, again: of the architecture, built twice in this process, with other random numbers; what differs between
            them is left to chance.
        there: of what the file builds.
        trained: of the module whose weights the file takes along.

    Returns:
        Sentences; none where nothing differs.
    """
    tensors = here["tensors"] if trained is None else trained["tensors"]
    found = [
        f"{name!r} is {there['tensors'].get(name, 'missing')} in place of {wanted}"
        for name, wanted in tensors.items()
        if there["tensors"].get(name) != wanted
    ]
    found += [f"{name!r} is too much" for name in there["tensors"] if name not in tensors]
    certain = {name for name, sums in here["sums"].items() if _alike(sums, again["sums"].get(name, []))}
    for name, sums in (here if trained is None else trained)["sums"].items():
        known = trained is not None or name in certain
        if known and not found and not _alike(sums, there["sums"].get(name, [])):
            found.append(f"{name!r} holds other numbers")
    for name, text in here["modules"].items():
        if again["modules"].get(name) == text != there["modules"].get(name):
            found.append(
                f"the {name} is another one in this process: the source was edited since"
                if name.startswith("code of ")
                else f"the {name} is {there['modules'].get(name, 'missing')} in place of {text}"
            )
    return found


def _alike(one: list[float], other: list[float]) -> bool:
    return len(one) == len(other) and bool(numpy.allclose(one, other, rtol=1e-5, atol=1e-6, equal_nan=True))


def run_file(path: Path) -> Facts:
    """Runs a file in a fresh process in another folder, and calls its `build`.

    Returns:
        The facts of what it builds.

    Raises:
        ExperimentError: the process fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "facts.json"
        try:
            done = subprocess.run(
                [sys.executable or "python", "-c", _CHILD, os.path.abspath(path), str(found), str(_HERE)],
                capture_output=True,
                text=True,
                errors="replace",
                cwd=folder,
                stdin=subprocess.DEVNULL,
                timeout=_PATIENCE,
                check=False,
            )
            said = done.stderr.strip()
        except (OSError, subprocess.TimeoutExpired) as error:
            done, said = None, str(error)
        if done is not None and done.returncode == 0 and found.exists():
            return _facts_in(found, path)
    raise ExperimentError(
        explain(
            "the file that rebuilds the architecture was run in a fresh process from another folder, and failed there: "
            + (said.splitlines() or ["it said nothing"])[-1],
            mend="let the class, and what it uses, be importable from everywhere (pip install -e .), or be in one file",
        )
    )


def _facts_in(found: Path, path: Path) -> Facts:
    """What the process has written; the file that it ran may have written it too."""
    try:
        facts = read_json(found)
    except NasError as error:
        raise ExperimentError(explain(f"the check of the file wrote no facts ({error})", got=str(path))) from error
    parts = ("tensors", "sums", "modules")
    if not isinstance(facts, dict) or not all(isinstance(facts.get(part), dict) for part in parts):
        raise ExperimentError(explain("the check of the file wrote no facts", got=str(path)))
    if not all(
        isinstance(sums, list) and all(type(n) in (int, float) for n in sums) for sums in facts["sums"].values()
    ):
        raise ExperimentError(explain("the check of the file wrote no sums", got=str(path)))
    return facts


def main() -> None:
    """In the fresh process: builds, and writes the facts."""
    path, found = sys.argv[1:3]
    torch.manual_seed(2)
    model = runpy.run_path(path, run_name="nas_export")["build"]()
    repr(model)
    Path(found).write_text(json.dumps(facts_of(model)), encoding="utf-8")
