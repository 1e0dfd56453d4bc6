"""The layout rule: rooms that import each other downwards and through their doors, as ARCHITECTURE.md lists them."""

from __future__ import annotations

import ast
import graphlib
import os
import re
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

LONGEST_FILE = 400
FULLEST_ROOM = 16

BASE = "base"
"""The room of the files that lie in nas/ itself; nas/__init__.py is a room of its own, which imports the others."""

OPEN = "nas._compat"
"""The room without a door: each of its modules loads another library, so each is imported by itself."""

LINKS = ("evaluators", "model_zoo", "oneshot", "strategies")
"""Folders at the top of the repository that lead into the package."""

PUBLIC = {
    "nas",
    "nas.compress",
    "nas.evaluators",
    "nas.export",
    "nas.model_zoo",
    "nas.objectives",
    "nas.oneshot",
    "nas.profile",
    "nas.strategies",
    "nas.testing",
}
"""What users import from; docs, examples and the tests of public behaviour too."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One imported module and where it is asked for."""

    target: str
    line: int


@dataclass(frozen=True, kw_only=True)
class Module:
    """One source file."""

    name: str
    path: Path
    source: str = field(repr=False)
    imports: tuple[Import, ...] = field(repr=False)

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def is_door(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def room(self) -> str:
        """The folder that it lies in, by import name."""
        if self.name == "nas.__main__":
            return "nas.cli"
        folder = self.name if self.is_door else self.name.rpartition(".")[0]
        return BASE if folder == "nas" and not self.is_door else folder

    def at(self, line: int) -> str:
        return f"{self.path}:{line}"


Modules = dict[str, Module]
Rooms = dict[str, frozenset[str]]
Rule = Callable[[Modules, Rooms], list[str]]


def within(name: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return name == package or name.startswith(package + ".")


def source_files(folder: Path) -> Iterator[Path]:
    """Every .py file of a folder."""
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        yield from (Path(parent, name) for name in sorted(files) if name.endswith(".py"))


def import_name(root: Path, path: Path) -> str:
    """`nas/strategies/random.py` -> `nas.strategies.random`; a folder's `__init__.py` is the folder."""
    return ".".join(part for part in path.relative_to(root).with_suffix("").parts if part != "__init__")


def read_imports(source: str, *, package: str, known: Iterable[str]) -> tuple[Import, ...]:
    """The imports of one source text that lies in `package`, those in functions and for type checkers too."""
    names, found = frozenset(known), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [Import(target=alias.name, line=node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")
                base = ".".join([*parents[: len(parents) - node.level + 1], *([node.module] if node.module else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                found.append(Import(target=full if full in names else base, line=node.lineno))
    return tuple(found)


def read_modules(root: Path, folder: str, known: Iterable[str] | None = None) -> Modules:
    """Every module of a folder, by import name."""
    paths = {import_name(root, path): path for path in source_files(root / folder)}
    modules = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        source = path.read_text(encoding="utf-8")
        imports = read_imports(source, package=package, known=paths if known is None else known)
        modules[name] = Module(name=name, path=path.relative_to(root), source=source, imports=imports)
    return modules


def read_rooms(text: str) -> Rooms:
    """The table of ARCHITECTURE.md: each room and those that it may import."""
    rows = re.findall(r"^\| `(base|nas[\w.]*)` \| [^|]+ \|([^|]*)\|$", text, re.M)
    return {room: frozenset(re.findall(r"`([\w.]+)`", below)) for room, below in rows}


def rooms_are_those_of_the_table(modules: Modules, rooms: Rooms) -> list[str]:
    """ARCHITECTURE.md lists each room once, and none that is not there."""
    there = {module.room for module in modules.values()}
    strangers = {name for below in rooms.values() for name in below}
    return [
        f"{name}: in the table or on the disk, not in both"
        for name in sorted((there ^ set(rooms)) | (strangers - there))
    ]


def imports_follow_the_table(modules: Modules, rooms: Rooms) -> list[str]:
    """A room imports those that the table allows it, through their doors."""
    problems = []
    for module in modules.values():
        for found in module.imports:
            if found.target not in modules:
                continue
            target = modules[found.target]
            if target.room == module.room:
                continue
            if target.room not in rooms.get(module.room, ()):
                problems.append(f"{module.at(found.line)}: {module.room} must not import {target.room}")
            elif not target.is_door and target.room not in (BASE, OPEN):
                problems.append(f"{module.at(found.line)}: import from {target.room}, not from {found.target}")
    return problems


def rooms_form_no_circle(modules: Modules, rooms: Rooms) -> list[str]:
    """The table itself points downwards only."""
    return _circle(rooms)


def modules_form_no_circle(modules: Modules, rooms: Rooms) -> list[str]:
    """Inside a room too, imports in functions and for type checkers counted."""
    graph = {
        module.name: {
            found.target
            for found in module.imports
            if found.target in modules and modules[found.target].room == module.room and found.target != module.name
        }
        for module in modules.values()
    }
    return _circle(graph)


def _circle(graph: dict[str, set[str]] | Rooms) -> list[str]:
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return ["import circle: " + " <- ".join(error.args[1])]
    return []


def rooms_stay_small(modules: Modules, rooms: Rooms) -> list[str]:
    """What lies in one folder changes together; a full one has wings."""
    sizes = Counter(module.room for module in modules.values() if not module.is_door)
    return [f"{room}: {size} modules, over {FULLEST_ROOM}" for room, size in sizes.items() if size > FULLEST_ROOM]


def no_stray_names(modules: Modules, rooms: Rooms) -> list[str]:
    """The links at the top are not imported: what they lead to is a part of `nas`."""
    return [
        f"{module.at(found.line)}: write nas.{found.target}, not {found.target}"
        for module in modules.values()
        for found in module.imports
        if found.target.split(".")[0] in LINKS
    ]


def files_stay_short(modules: Modules, rooms: Rooms) -> list[str]:
    """A reader should hold one file in the head."""
    lengths = {module.path: len(module.source.splitlines()) for module in modules.values()}
    return [f"{path}: {length} lines, over {LONGEST_FILE}" for path, length in lengths.items() if length > LONGEST_FILE]


def files_say_their_purpose(modules: Modules, rooms: Rooms) -> list[str]:
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
        case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="__getattr__"), ast.Name(id="__dir__")])]):
            return True
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name in ("__all__", "__version__", "__getattr__") or (lazy and name.startswith("_"))
    return False


def inits_only_re_export(modules: Modules, rooms: Rooms) -> list[str]:
    """A folder's `__init__.py` is the map: a docstring, imports, `__all__`, and perhaps a lazy `__getattr__`."""
    problems = []
    for module in modules.values():
        if module.is_door:
            body = module.tree.body
            lazy = "__getattr__" in module.source
            strangers = [node for node in body if not only_re_exports(node, lazy=lazy)]
            problems += [f"{module.at(node.lineno)}: an __init__.py only re-exports" for node in strangers]
    return problems


RULES: tuple[Rule, ...] = (
    rooms_are_those_of_the_table,
    imports_follow_the_table,
    rooms_form_no_circle,
    modules_form_no_circle,
    rooms_stay_small,
    no_stray_names,
    files_stay_short,
    files_say_their_purpose,
    inits_only_re_export,
)


@pytest.fixture(scope="module")
def modules() -> Modules:
    return read_modules(ROOT, "nas")


@pytest.fixture(scope="module")
def rooms() -> Rooms:
    return read_rooms((ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_the_package_keeps(rule: Rule, modules: Modules, rooms: Rooms) -> None:
    problems = rule(modules, rooms)
    assert not problems, "\n".join([str(rule.__doc__), *problems])


def foreign_imports(strangers: Modules, modules: Modules) -> list[str]:
    """What is imported that is not public; a test may import from the room whose name its folder has."""
    listed = {f"{door}.{name}" for door in PUBLIC for name in getattr(import_module(door), "__all__", ())}
    problems = []
    for module in strangers.values():
        own = module.path.parts[0] == "tests"
        # tests/space/test_cell.py is of nas.space, tests/test_checks.py of nas.checks
        home = ".".join(["nas", *(module.path.parts[1:-1] or [module.path.stem.removeprefix("test_")])])
        for found in module.imports:
            inside = own and within(found.target, home)
            if within(found.target, "nas") and found.target not in PUBLIC | listed and not inside:
                problems.append(f"{module.at(found.line)}: {found.target} is not public")
    return problems


@pytest.mark.parametrize("folder", ["tests", "examples", "docs"])
def test_what_is_not_public_is_not_imported(folder: str, modules: Modules) -> None:
    strangers = read_modules(ROOT, folder, known=modules)
    assert no_stray_names(strangers, {}) == []
    assert foreign_imports(strangers, modules) == []


def test_pages_import_what_is_public(modules: Modules) -> None:
    pages = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    strangers = {}
    for page in pages:
        blocks = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        source = "\n".join(blocks)
        imports = read_imports(source, package="", known=modules)
        strangers[str(page)] = Module(name=page.stem, path=page.relative_to(ROOT), source=source, imports=imports)
    assert foreign_imports(strangers, modules) == []


@pytest.mark.parametrize("link", LINKS)
def test_names_at_the_top_lead_into_the_package(link: str) -> None:
    path = ROOT / link
    assert path.is_symlink(), f"{link} must be a symbolic link; to mend: ln -s nas/{link} {link}"
    assert Path(os.readlink(path)) == Path("nas", link)
    assert path.is_dir()


def doors() -> list[str]:
    return sorted(module.name for module in read_modules(ROOT, "nas").values() if module.is_door)


@pytest.mark.parametrize("door", doors())
def test_a_door_lists_what_it_has(door: str, modules: Modules) -> None:
    """Each name of `__all__` is there, and no module of the room comes to stand in its place once it is imported."""
    room = import_module(door)
    listed = getattr(room, "__all__", [])
    assert set(listed) <= set(dir(room)), "what people see when they press the tab key"
    inside = [name for name in modules if name.rpartition(".")[0] == door]
    for name in inside:
        if not name.endswith("__main__"):
            import_module(name)
    short = {name.rpartition(".")[2] for name in inside if not modules[name].is_door}
    for name in listed:
        found = getattr(room, name)
        assert name not in short or isinstance(found, types.ModuleType), f"a module hides {door}.{name}"
    taken = {
        alias.asname or alias.name
        for node in modules[door].tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if node.module not in ("typing", "nas.late")
    }
    assert taken <= set(listed), "imported by the door, and not listed"
    shown = {
        alias.name
        for node in modules[door].tree.body
        if isinstance(node, ast.If)
        for inner in node.body
        if isinstance(inner, ast.ImportFrom)
        for alias in inner.names
    }
    assert shown == set(getattr(room, "_LATE", ())), "type checkers see other names than are loaded late"


BAD_ROOMS = {
    BASE: frozenset[str](),
    "nas": frozenset({BASE, "nas.space"}),
    "nas.space": frozenset({BASE}),
    "nas.search": frozenset({BASE, "nas.space"}),
    "nas.attic": frozenset({BASE}),
    "nas.up": frozenset({"nas.down"}),
    "nas.down": frozenset({"nas.up"}),
}

BAD_TREE = {
    "nas/__init__.py": '"""The map."""\nfrom nas.space import ModelSpace\nHANDLERS = {}\n',
    "nas/errors.py": '"""Errors."""\n',
    "nas/space/__init__.py": '"""Space."""\nfrom nas.space.domains import Real\n__all__ = ["cell"]\ndef cell(): ...\n',
    "nas/space/domains.py": '"""Domains."""\nimport nas.errors\ndef late():\n    from nas.search import x\n',
    "nas/space/questions.py": "from . import handlers\n",
    "nas/space/handlers.py": '"""Handlers."""\nif TYPE_CHECKING:\n    from nas.space.questions import ask\n',
    "nas/search/__init__.py": '"""Search."""\n',
    "nas/search/loop.py": '"""Loop."""\nfrom ..space.domains import Real\nimport evaluators\n' + "#\n" * LONGEST_FILE,
    "nas/up/__init__.py": '"""Up."""\n',
    "nas/down/__init__.py": '"""Down."""\n',
    **{f"nas/search/part_{number}.py": '"""A part."""\n' for number in range(FULLEST_ROOM)},
}

EXPECTED: dict[Rule, list[str]] = {
    rooms_are_those_of_the_table: ["nas.attic: in the table or on the disk, not in both"],
    imports_follow_the_table: [
        "nas/space/domains.py:4: nas.space must not import nas.search",
        "nas/search/loop.py:2: import from nas.space, not from nas.space.domains",
    ],
    rooms_form_no_circle: ["import circle: nas."],
    modules_form_no_circle: ["import circle: nas.space."],
    rooms_stay_small: [f"nas.search: {FULLEST_ROOM + 1} modules, over {FULLEST_ROOM}"],
    no_stray_names: ["nas/search/loop.py:3: write nas.evaluators, not evaluators"],
    files_stay_short: [f"nas/search/loop.py: {LONGEST_FILE + 3} lines, over {LONGEST_FILE}"],
    files_say_their_purpose: ["nas/space/questions.py: must open with a docstring"],
    inits_only_re_export: [
        "nas/__init__.py:3: an __init__.py only re-exports",
        "nas/space/__init__.py:4: an __init__.py only re-exports",
    ],
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule.__name__))
def test_a_bad_tree_is_found_out(rule: Rule, tmp_path: Path) -> None:
    for name, source in BAD_TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    problems = rule(read_modules(tmp_path, "nas"), BAD_ROOMS)
    assert len(problems) == len(EXPECTED[rule]), problems
    for expected in EXPECTED[rule]:
        assert any(problem.startswith(expected) for problem in problems), problems


@pytest.mark.parametrize(
    ("path", "source", "said"),
    [
        ("tests/space/test_domains.py", "from nas.space.domains import Real\nfrom nas import Experiment\n", []),
        (
            "tests/space/test_domains.py",
            "from nas.search import x\n",
            ["tests/space/test_domains.py:1: nas.search is not"],
        ),
        ("docs/speed.py", "import nas\nfrom nas.space import x\n", ["docs/speed.py:2: nas.space is not public"]),
        ("tests/test_checks.py", "from nas.checks import check_int\n", []),
        ("tests/test_all.py", "from nas.errors import explain\n", ["tests/test_all.py:1: nas.errors is not public"]),
    ],
)
def test_what_is_not_public_is_found_out(path: str, source: str, said: list[str], tmp_path: Path) -> None:
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(source)
    problems = foreign_imports(read_modules(tmp_path, path.split("/")[0], known=()), {})
    assert len(problems) == len(said)
    assert all(problem.startswith(start) for problem, start in zip(problems, said, strict=True))
