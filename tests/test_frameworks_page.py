"""docs/reference/frameworks.md: every test that it names is there, and so are the rows and the versions that it should have."""

import ast
import re
import tomllib
from pathlib import Path
from typing import Final

from tensorkeep.frameworks.table import ROWS
from test_docs import FRAMEWORKS

ROOT: Final = Path(__file__).parent.parent
PAGE: Final = (ROOT / "docs" / "reference" / "frameworks.md").read_text(encoding="utf-8")
MARK: Final = re.compile(r'\[[^\]]*\]\(\.\./\.\./tests/(\w+\.py) "([\w.]+)"\)')


def names_in(file: Path) -> set[str]:
    """The names of all tests in a file, those in classes as `Class.test`."""
    found = set()
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return found


def test_every_test_that_the_table_names_is_there() -> None:
    """Each mark leads to a file that has a test of that name."""
    marks = MARK.findall(PAGE)
    assert len(marks) == PAGE.count("(../../tests/") > 40
    assert [(file, test) for file, test in marks if test not in names_in(ROOT / "tests" / file)] == []


def test_every_framework_and_every_adapter_stands_in_the_table() -> None:
    """A framework of ours has a row, or is the optimizer of one; an adapter's name is that of its tests at least."""
    for name in set(FRAMEWORKS.values()) - {"obstore"}:  # pages need it, and it is none
        assert name in PAGE.partition("## Versions")[0], name
    known = {"torch", "keras", "jax", "sklearn", "numpy"} | {"rng", "scipy", "stateful", "records"}  # those of NumPy and Python
    assert {row.name for row in ROWS} <= known, "a new adapter gets a row on the page, and its name here"


def test_the_versions_begin_with_those_of_the_project() -> None:
    """What the page calls the oldest is what pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    minima = {line.partition(">=")[0]: line.partition(">=")[2].partition(",")[0] for line in asked if ">=" in line}
    table = re.findall(r"^\| `([\w-]+)` \| ([\d.]+) \| ", PAGE.partition("## Versions")[2], re.MULTILINE)
    assert len(table) > 5 and dict(table) == {name: minima[name] for name, _ in table}
