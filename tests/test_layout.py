"""The layout rule: one package out of five folders, imports downwards only, small files that say what they are for."""

from __future__ import annotations

import ast
import graphlib
import os
import tomllib
import types
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LONGEST_FILE = 400

FOLDERS = {
    "nas": "nas",
    "evaluators": "nas.evaluators",
    "model_zoo": "nas.model_zoo",
    "oneshot": "nas.oneshot",
    "strategies": "nas.strategies",
}
"""Folder at the top of the repository -> its import name."""

SIDES = tuple(name for name in FOLDERS.values() if name != "nas")
"""The folders around the core. They import the core and themselves, never each other."""

BORROWED = {"nas.oneshot": ("nas.evaluators", "nas.strategies.policy")}
"""The exceptions: folder -> what else it may import."""

CHAIN = ("nas.choices", "nas.mutables", "nas.space")
"""Each may use those before it, and none after it."""

ABOVE_THE_CHAIN = (
    *SIDES,
    "nas.trial",
    "nas.evaluation",
    "nas.experiment",
    "nas.objectives",
    "nas.strategy",
    "nas.storage",
    "nas.execution",
    "nas.export",
    "nas.profile",
    "nas.report_page",
    "nas.cli",
    "nas.testing",
)
"""What runs a search: none of it may be needed to say what the search space is."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module, where it is asked for and whether importing the file already runs it."""

    target: str
    line: int
    deferred: bool


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file of the package."""

    name: str
    path: Path
    source: str = field(repr=False)
    imports: tuple[Import, ...] = field(repr=False)

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


Modules = dict[str, Module]
Rule = Callable[[Modules], list[str]]


def within(name: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return name == package or name.startswith(package + ".")


def source_files(folder: Path) -> Iterator[Path]:
    """Every .py file of a folder; the links in nas/ are not followed, so each file comes once."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".py"))


def import_name(root: Path, path: Path) -> str:
    """`strategies/random.py` -> `nas.strategies.random`; a folder's `__init__.py` is the folder."""
    folder, *rest = path.relative_to(root).with_suffix("").parts
    return ".".join([FOLDERS[folder], *(part for part in rest if part != "__init__")])


class ImportReader(ast.NodeVisitor):
    """Collects the imports of one file, those inside functions and `if TYPE_CHECKING` as deferred."""

    def __init__(self, package: str, known: Iterable[str]) -> None:
        self.package = package
        self.known = frozenset(known)
        self.deferred = False
        self.found: list[Import] = []

    def _add(self, target: str, node: ast.stmt) -> None:
        self.found.append(Import(target=target, line=node.lineno, deferred=self.deferred))

    def _later(self, nodes: Iterable[ast.AST]) -> None:
        before, self.deferred = self.deferred, True
        for node in nodes:
            self.visit(node)
        self.deferred = before

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        base = node.module or ""
        if node.level:
            parents = self.package.split(".")
            base = ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            self._add(full if full in self.known else base, node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._later(node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._later(node.body)

    def visit_If(self, node: ast.If) -> None:
        if "TYPE_CHECKING" in ast.unparse(node.test):
            self._later(node.body)
        else:
            for statement in node.body:
                self.visit(statement)
        for statement in node.orelse:
            self.visit(statement)


def read_imports(source: str, *, package: str, known: Iterable[str]) -> tuple[Import, ...]:
    """The imports of one source text that lies in `package`."""
    reader = ImportReader(package, known)
    reader.visit(ast.parse(source))
    return tuple(reader.found)


def read_package(root: Path) -> Modules:
    """Every module of the package, by import name."""
    paths = {import_name(root, path): path for folder in FOLDERS for path in source_files(root / folder)}
    modules = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = path.read_text(encoding="utf-8")
        imports = read_imports(source, package=package, known=paths)
        modules[name] = Module(name=name, path=path.relative_to(root), source=source, imports=imports)
    return modules


def side_of(name: str) -> str | None:
    """The folder around the core that a module belongs to; None for the core itself."""
    return next((side for side in SIDES if within(name, side)), None)


def folders_keep_apart(modules: Modules) -> list[str]:
    """The folders around the core never import each other, and the core imports none of them."""
    problems = []
    for module in modules.values():
        home = side_of(module.name)
        allowed = () if home is None else (home, *BORROWED.get(home, ()))
        for found in module.imports:
            if side_of(found.target) and not any(within(found.target, name) for name in allowed):
                where = "the core" if home is None else home
                problems.append(f"{module.at(found.line)}: {where} must not import {found.target}")
    return problems


def route(modules: Modules, start: str) -> dict[str, list[str]]:
    """What a module imports, directly or through others: each with the modules passed on the way."""
    routes = {start: [start]}
    waiting = [start]
    while waiting:
        name = waiting.pop(0)
        for found in modules[name].imports:
            if found.target in modules and found.target not in routes:
                routes[found.target] = [*routes[name], found.target]
                waiting.append(found.target)
    return routes


def chain_points_down(modules: Modules) -> list[str]:
    """`nas.choices` <- `nas.mutables` <- `nas.space` <- everything, also through other modules."""
    problems = []
    for position, low in enumerate(CHAIN):
        above = (*CHAIN[position + 1 :], *ABOVE_THE_CHAIN)
        for target, steps in route(modules, low).items() if low in modules else ():
            if any(within(target, name) for name in above):
                problems.append(f"{modules[low].path}: must not reach upwards: {' -> '.join(steps)}")
    return problems


def no_cycles(modules: Modules) -> list[str]:
    """No import cycle among the imports that run when a file is imported, the packages on the way included."""
    graph: dict[str, set[str]] = {}
    for module in modules.values():
        needs = graph.setdefault(module.name, set())
        for found in module.imports:
            if found.deferred:
                continue
            parts = found.target.split(".")
            passed = {".".join(parts[:count]) for count in range(1, len(parts))}
            needs.update(name for name in passed if name in modules and not within(module.name, name))
            if found.target in modules and found.target != module.name:
                needs.add(found.target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["import cycle: " + " <- ".join(error.args[1])]
    return []


def no_stray_names(modules: Modules) -> list[str]:
    """The folders at the top are imported as parts of `nas`, never by their own names."""
    return [
        f"{module.at(found.line)}: write nas.{found.target}, not {found.target}"
        for module in modules.values()
        for found in module.imports
        if found.target.split(".")[0] in FOLDERS and not within(found.target, "nas")
    ]


def files_stay_short(modules: Modules) -> list[str]:
    """A reader should hold one file in the head."""
    lengths = {module.path: len(module.source.splitlines()) for module in modules.values()}
    return [f"{path}: {length} lines, over {LONGEST_FILE}" for path, length in lengths.items() if length > LONGEST_FILE]


def files_say_their_purpose(modules: Modules) -> list[str]:
    """A module's first statement is its docstring."""
    return [f"{m.path}: must open with a docstring" for m in modules.values() if not ast.get_docstring(m.tree)]


def only_re_exports(statement: ast.stmt, *, lazy: bool) -> bool:
    """Whether a statement belongs in an `__init__.py`; `lazy`: the file has a `__getattr__`, which may need a table."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.Expr(value=ast.Constant(value=str())):
            return True
        case ast.If():
            return "TYPE_CHECKING" in ast.unparse(statement.test) and all(
                only_re_exports(inner, lazy=lazy) for inner in statement.body + statement.orelse
            )
        case ast.FunctionDef(name=name):
            return name in ("__getattr__", "__dir__")
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in ("__all__", "__version__") or (lazy and name.startswith("_"))
    return False


def inits_only_re_export(modules: Modules) -> list[str]:
    """A folder's `__init__.py` is the map: a docstring, imports, `__all__`, and perhaps a lazy `__getattr__`."""
    problems = []
    for module in modules.values():
        if module.path.name == "__init__.py":
            body = module.tree.body
            lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in body)
            strangers = [node for node in body if not only_re_exports(node, lazy=lazy)]
            problems += [f"{module.at(node.lineno)}: an __init__.py only re-exports" for node in strangers]
    return problems


RULES: tuple[Rule, ...] = (
    folders_keep_apart,
    chain_points_down,
    no_cycles,
    no_stray_names,
    files_stay_short,
    files_say_their_purpose,
    inits_only_re_export,
)


@pytest.fixture(scope="module")
def modules() -> Modules:
    return read_package(ROOT)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_the_package_keeps(rule: Rule, modules: Modules) -> None:
    problems = rule(modules)
    assert not problems, "\n".join([str(rule.__doc__), *problems])


@pytest.mark.parametrize("folder", ["tests", "examples"])
def test_tests_and_examples_import_nas_only_by_its_name(folder: str, modules: Modules) -> None:
    strangers: Modules = {}
    for path in source_files(ROOT / folder):
        source = path.read_text(encoding="utf-8")
        imports = read_imports(source, package="", known=modules)
        strangers[str(path)] = Module(name=str(path), path=path.relative_to(ROOT), source=source, imports=imports)
    assert no_stray_names(strangers) == []


def test_packages_listed_are_the_packages_on_disk() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for folder in FOLDERS for path in source_files(ROOT / folder)}
    assert sorted(setuptools["packages"]) == sorted(import_name(ROOT, folder) for folder in folders)
    assert setuptools["package-dir"] == {name: folder for folder, name in FOLDERS.items()}
    assert [folder for folder in folders if not (folder / "__init__.py").is_file()] == [], "mypy would skip these"


@pytest.mark.parametrize("folder", [folder for folder in FOLDERS if folder != "nas"])
def test_folder_is_linked_into_the_package(folder: str) -> None:
    link = ROOT / "nas" / folder
    assert link.is_symlink(), f"nas/{folder} must be a symbolic link; to mend: ln -s ../{folder} nas/{folder}"
    assert Path(os.readlink(link)) == Path("..") / folder
    assert link.resolve() == ROOT / folder
    assert link.is_dir()


BAD_TREE = {
    "nas/__init__.py": '"""The map."""\nfrom nas.space import ModelSpace\nHANDLERS = {}\n',
    "nas/choices.py": '"""Choices."""\nfrom nas.domains import Real\n',
    "nas/domains.py": '"""Domains."""\ndef late():\n    from nas.space import ModelSpace\n',
    "nas/mutables.py": "import nas.choices\n",
    "nas/space.py": '"""Space."""\nfrom . import mutables\nfrom .execution.inline import run\n',
    "nas/experiment.py": '"""Experiment."""\nif TYPE_CHECKING:\n    from nas.strategies import Random\n',
    "nas/execution/__init__.py": '"""Executors."""\nfrom nas.execution.inline import run\n',
    "nas/execution/inline.py": '"""Inline."""\nfrom ..space import ModelSpace\n',
    "strategies/__init__.py": '"""Strategies."""\nfrom nas.strategies.policy import Policy\n',
    "strategies/policy.py": '"""Policy."""\nimport evaluators\n' + "#\n" * LONGEST_FILE,
    "oneshot/__init__.py": '"""One-shot."""\nfrom nas.strategies import policy, Random\nimport nas.evaluators\n',
    "evaluators/__init__.py": '"""Evaluators."""\nfrom nas import model_zoo\n',
    "model_zoo/__init__.py": '"""Zoo."""\n__all__ = ["cell"]\ndef cell(): ...\n',
}

EXPECTED: dict[Rule, list[str]] = {
    folders_keep_apart: [
        "nas/experiment.py:3: the core must not import nas.strategies",
        "evaluators/__init__.py:2: nas.evaluators must not import nas.model_zoo",
        "oneshot/__init__.py:2: nas.oneshot must not import nas.strategies",
    ],
    chain_points_down: [
        "nas/choices.py: must not reach upwards: nas.choices -> nas.domains -> nas.space",
        "nas/mutables.py: must not reach upwards: nas.mutables -> nas.choices -> nas.domains -> nas.space",
        "nas/space.py: must not reach upwards: nas.space -> nas.execution.inline",
    ],
    no_cycles: ["import cycle: "],
    no_stray_names: ["strategies/policy.py:2: write nas.evaluators, not evaluators"],
    files_stay_short: [f"strategies/policy.py: {LONGEST_FILE + 2} lines, over {LONGEST_FILE}"],
    files_say_their_purpose: ["nas/mutables.py: must open with a docstring"],
    inits_only_re_export: [
        "nas/__init__.py:3: an __init__.py only re-exports",
        "model_zoo/__init__.py:3: an __init__.py only re-exports",
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_a_bad_tree_is_found_out(rule: Rule, tmp_path: Path) -> None:
    for name, source in BAD_TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    problems = rule(read_package(tmp_path))
    for expected in EXPECTED[rule]:
        assert any(problem.startswith(expected) for problem in problems), problems


def test_a_deferred_import_closes_no_cycle(tmp_path: Path) -> None:
    (tmp_path / "nas").mkdir()
    (tmp_path / "nas" / "low.py").write_text('"""Low."""\ndef late():\n    import nas.high\n', encoding="utf-8")
    (tmp_path / "nas" / "high.py").write_text('"""High."""\nimport nas.low\n', encoding="utf-8")
    assert no_cycles(read_package(tmp_path)) == []


def test_no_module_hides_a_public_name() -> None:
    """Importing `nas.report` as a module would put it in the place of the function of that name, for everybody."""
    import nas

    modules = {path.stem for path in (ROOT / "nas").iterdir()}
    for name in sorted(modules & set(nas.__all__)):
        assert isinstance(getattr(nas, name), types.ModuleType), name
