"""The house: rooms import downwards, without circles, and only those that may do what only they may do."""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PACKAGE: Final = ROOT / "src" / "tensorkeep"

# docs/architecture.md shows the same list with a line for each room; test_docs compares the two.
STOREYS: Final = (
    ("words", {"_version", "errors", "limits", "progress", "extras", "quantized", "dtypes", "tensors"}),
    (
        "matter",
        {
            *("tree", "plain", "strictjson", "structure", "contents", "report", "verdict", "selection", "transposing", "matching"),
            "chunks",
        },
    ),
    ("machinery", {"workers", "rearranged", "backends"}),
    ("grammars", {"wire", "unpickle", "container"}),
    ("worlds", {"frameworks", "formats", "scanning"}),
    ("keepers", {"modelfile", "store", "opening", "loading"}),
    ("verbs", {"verbs"}),
    ("faces", {"", "nn", "compat", "cli", "__main__"}),  # "" is tensorkeep/__init__.py
)
STOREY_OF: Final = {room: number for number, (_, rooms) in enumerate(STOREYS) for room in rooms}

LONGEST: Final = 400  # lines

FRAMEWORKS: Final = {"torch", "keras", "tensorflow", "jax", "flax", "sklearn", "lightning"}

OS_MODULES: Final = {"mmap", "fcntl", "ctypes", "shutil", "tempfile", "glob", "subprocess", "msvcrt", "resource"}
HARMLESS: Final = {
    "environ",  # what the worker pool and the command line read
    "sched_getaffinity",
    "cpu_count",
    "getpid",
    "fspath",
    "fsdecode",
    "fsencode",
    "PathLike",
    "path",  # texts only: see PATH_OF_TEXTS
}
PATH_OF_TEXTS: Final = {"splitext", "basename", "dirname", "join"}
FILE_METHODS: Final = {"read_bytes", "read_text", "write_bytes", "write_text", "tofile", "fromfile", "memmap"}
MAY_TOUCH_THE_OS: Final = {
    "frameworks.torch.tensors": "copies bytes from an address that PyTorch gives, by ctypes; calls no system",
    "compat.safetensors.serializing": "takes bytes at the address that a caller names, by ctypes; calls no system",
    "cli.demo": "starts, kills and looks at processes and a folder of its own, as a user would",
    "cli.output": "asks how wide the terminal is; prints to the null device where there is no stdout",
    "cli": "points a closed pipe at the null device, so that Python's own exit stays quiet",
}


def module_name(file: Path) -> str:
    """Dotted, without `tensorkeep.`; "" for the package itself."""
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES: Final = {module_name(file): file for file in sorted(PACKAGE.rglob("*.py"))}
TREES: Final = {name: ast.parse(file.read_text(encoding="utf-8")) for name, file in FILES.items()}


def room(name: str) -> str:
    return name.partition(".")[0]


def known(dotted: str) -> str | None:
    """The module that a dotted name after `tensorkeep` leads to, which may be a name inside of it."""
    while dotted not in FILES:
        if "." not in dotted:
            return "" if dotted else None
        dotted = dotted.rpartition(".")[0]
    return dotted


def adapters() -> list[str]:
    rows = importlib.import_module("tensorkeep.frameworks.table").ROWS
    return [f"frameworks.{row.name}" for row in rows]


def imports(name: str) -> Iterator[str]:
    """Every module of the package that one imports, at its top or late, by statement or by `importlib`."""
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] == "tensorkeep":
                    yield known(alias.name.partition(".")[2]) or ""
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: imports are absolute"
            if node.module and node.module.partition(".")[0] == "tensorkeep":
                base = node.module.partition(".")[2]
                for alias in node.names:
                    yield known(f"{base}.{alias.name}" if base else alias.name) or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("tensorkeep."):
            dotted = node.value.removeprefix("tensorkeep.")
            if dotted in FILES:
                yield dotted
        elif isinstance(node, ast.JoinedStr) and isinstance(node.values[0], ast.Constant):
            start = str(node.values[0].value)
            if start == "tensorkeep.frameworks.":
                yield from adapters()
            elif start == "tensorkeep.formats.":
                yield from (f"formats.{module}" for module, _ in importlib.import_module("tensorkeep.formats.table").ROWS)
                if name == "formats.writers":
                    yield from (f"formats.{row.module}" for row in importlib.import_module("tensorkeep.formats.writers").ROWS)
            elif start == "tensorkeep.cli.":
                yield from (f"cli.{command}" for command in importlib.import_module("tensorkeep.cli").COMMANDS)
            else:
                assert not start.startswith("tensorkeep."), f"{name}: an import by name that this test cannot follow: {start}"


GRAPH: Final = {name: sorted(set(imports(name)) - {name}) for name in FILES}


def test_every_room_stands_on_a_storey() -> None:
    """No file of the package is outside the plan, and the plan names no room that is not there."""
    rooms = {room(name) for name in FILES}
    assert rooms == set(STOREY_OF)


@pytest.mark.parametrize("name", FILES, ids=lambda name: name or "__init__")
def test_no_import_points_upwards(name: str) -> None:
    """A room imports from storeys below it or from its own, never from above, in late imports too."""
    upward = [other for other in GRAPH[name] if STOREY_OF[room(other)] > STOREY_OF[room(name)]]
    assert not upward, f"{name} imports {upward} from a storey above"


def test_no_import_goes_in_a_circle() -> None:
    """Late imports counted, no module leads back to itself."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        assert name not in way, f"a circle: {' -> '.join([*way[way.index(name) :], name])}"
        if name not in done:
            for other in GRAPH[name]:
                visit(other, [*way, name])
            done.add(name)

    for name in FILES:
        visit(name, [])


def test_the_walk_sees_late_imports_and_imports_by_name() -> None:
    """The walk itself finds what it should: imports inside functions, and those by `importlib`."""
    assert "verbs.load" in GRAPH[""]
    assert "frameworks.torch" in GRAPH["frameworks.table"]
    assert "nn" in GRAPH["cli.demo"]


def _os_names(tree: ast.Module) -> Iterator[str]:
    """What a module uses of the operating system."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in OS_MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] in OS_MODULES:
                yield node.module
            elif node.module == "os":
                yield from (f"os.{alias.name}" for alias in node.names if alias.name not in HARMLESS - {"path"})
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            if node.attr not in HARMLESS:
                yield f"os.{node.attr}"
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "path":
            if isinstance(node.value.value, ast.Name) and node.value.value.id == "os" and node.attr not in PATH_OF_TEXTS:
                yield f"os.path.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open()"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in FILE_METHODS:
            yield f"{ast.unparse(node.func)}()"


@pytest.mark.parametrize("name", [name for name in FILES if room(name) != "backends"], ids=lambda name: name or "__init__")
def test_only_the_backends_know_the_operating_system(name: str) -> None:
    """Files, mappings, locks and processes are behind `backends`; others hold texts and bytes."""
    if name not in MAY_TOUCH_THE_OS:
        assert not set(_os_names(TREES[name])) - {"formatter.write_text()"}  # click's, for help pages: writes no file


def test_the_backends_are_caught_by_the_same_look() -> None:
    """The look finds what it should, where it is allowed; and no exception is listed that is not needed."""
    found = {used for name, tree in TREES.items() if room(name) == "backends" for used in _os_names(tree)}
    assert {"mmap", "fcntl", "ctypes", "os.open", "os.path.realpath"} <= found
    assert list(_os_names(ast.parse("open('file')"))) == ["open()"]
    for name in MAY_TOUCH_THE_OS:
        assert list(_os_names(TREES[name])), f"{name} needs no exception"


@pytest.mark.parametrize(
    "name", [name for name in FILES if room(name) not in ("frameworks", "compat")], ids=lambda name: name or "__init__"
)
def test_frameworks_are_told_apart_only_in_frameworks(name: str) -> None:
    """Nobody else asks which framework it is: no comparison with a framework's name, and no import of one.

    `compat` has modules that bear the names of frameworks, as the packages have whose names it offers.
    """
    for node in ast.walk(TREES[name]):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            texts = {part.value for part in ast.walk(node) if isinstance(part, ast.Constant) and isinstance(part.value, str)}
            assert not texts & FRAMEWORKS, f"line {node.lineno} compares with {texts & FRAMEWORKS}"
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            assert not {module.partition(".")[0] for module in modules} & FRAMEWORKS, f"line {node.lineno} imports a framework"


def test_files_are_short() -> None:
    """A file has one subject and fits into a head."""
    lengths = {name: len(file.read_text(encoding="utf-8").splitlines()) for name, file in FILES.items()}
    assert not {name for name, lines in lengths.items() if lines > LONGEST}


@pytest.mark.parametrize("name", [name for name in FILES if room(name) != "cli"], ids=lambda name: name or "__init__")
def test_the_library_never_prints(name: str) -> None:
    """Only the command line writes to the terminal."""
    for node in ast.walk(TREES[name]):
        called = node.func if isinstance(node, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id == "print"), f"line {node.lineno}"  # type: ignore[attr-defined]  # a call has a line
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("sys", "stdout"), ("sys", "stderr")}, f"line {node.lineno}"


def test_every_module_says_what_lives_there() -> None:
    """The first lines of a room tell a newcomer what it is for."""
    assert [name for name, tree in TREES.items() if not ast.get_docstring(tree)] == []


def test_every_test_says_what_it_proves() -> None:
    """Each test has a docstring: the promise, in a line."""
    silent = []
    for file in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and not ast.get_docstring(node):
                silent.append(f"{file.name}: {node.name}")
    assert silent == []
