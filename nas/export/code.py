"""Writes an architecture as a small Python file: its sample, and the import that rebuilds it."""

from __future__ import annotations

import ast
import os
import pprint
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nas.domains import Answer
from nas.errors import NasTypeError, explain
from nas.space import ARCHITECTURE, ModelSpace

_TEMPLATE = '''"""One architecture of {name}, written by torch-nas; `build()` makes it, with fresh weights."""

{imports}

SAMPLE = {sample}
{hyperparameters}

def build() -> nn.Module:
    """The architecture as an ordinary module."""
    return ModelSpace({arguments}).build(SAMPLE)


if __name__ == "__main__":
    print(build())
'''


def to_code(
    space: ModelSpace,
    sample: Mapping[str, Answer],
    path: str | os.PathLike[str],
    *,
    hyperparameters: Collection[str] = (),
) -> Path:
    """Writes a Python file that rebuilds one architecture.

    Args:
        space: made from a class or function that can be imported, with literal arguments.
        sample: label -> answer; hyperparameters of the evaluator in it are written down beside the architecture.
        path: the file to write; its folder is made where needed.
        hyperparameters: labels of the evaluator's in the sample, besides those that the space knows of.

    Returns:
        The path.

    Raises:
        NasValueError: the sample is not of this space.
        NasTypeError: the source, an argument or a mutator cannot be written as code.
    """
    architecture = {label: answer for label, answer in sample.items() if label not in hyperparameters}
    found = vars(space.build(architecture, device="meta"))[ARCHITECTURE]["sample"]
    others = {label: answer for label, answer in sample.items() if label not in found}
    imports = ["from nas import ModelSpace", "from torch import nn"]
    where = _import_line(space.program.source, imports)
    parts = [where, *(_literal(value) for value in space.program.args)]
    if space.mutators:
        parts.append(f"mutators=[{', '.join(_mutator(m, imports) for m in space.mutators)}]")
    parts += [f"{name}={_literal(value)}" for name, value in space.program.kwargs.items()]
    text = _TEMPLATE.format(
        name=space.name,
        imports="\n".join(sorted(set(imports), key=lambda line: (not line.startswith("import "), line))),
        sample=pprint.pformat(found, sort_dicts=False, width=100),
        hyperparameters=f"HYPERPARAMETERS = {pprint.pformat(others, sort_dicts=False)}\n" if others else "",
        arguments=", ".join(parts),
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, target)
    return target


def _import_line(source: object, imports: list[str]) -> str:
    """The expression that names the source; adds what must be imported for it."""
    name, module = getattr(source, "__qualname__", ""), getattr(source, "__module__", "")
    if isinstance(source, nn.Module) or not name or "<" in name or not module:
        raise NasTypeError(
            explain(
                "code can only be written for a space whose source can be imported",
                got=source,
                mend="make the space from a class or function at the top of a module",
            )
        )
    if module == "__main__":
        script = getattr(sys.modules["__main__"], "__file__", None)
        if script is None:
            raise NasTypeError(
                explain(
                    "a class made in an interactive session cannot be imported", got=source, mend="put it in a file"
                )
            )
        imports.append("import runpy")
        return f'runpy.run_path({str(Path(script).resolve())!r})["{name}"]'
    imports.append(f"from {module} import {name.partition('.')[0]}")
    return str(name)


def _mutator(mutator: object, imports: list[str]) -> str:
    fields = vars(mutator)
    arguments = ", ".join(f"{key}={_literal(value)}" for key, value in fields.items())
    return f"{_import_line(type(mutator), imports)}({arguments})"


def _literal(value: Any) -> str:
    text = repr(value)
    try:
        if ast.literal_eval(text) == value:
            return text
    except (ValueError, SyntaxError):
        pass
    raise NasTypeError(
        explain(
            "code can only be written for literal arguments (numbers, texts, lists, dicts)",
            got=value,
            mend="wrap the class in a function without arguments, and make the space from that",
        )
    )
