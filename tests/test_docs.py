"""The docs: what they show runs, what they print is true, what they link to is there, what is public is in them."""

import dataclasses
import doctest
import importlib.util
import inspect
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import tensorkeep as tk
from test_house import STOREYS

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
PAGES: Final = {str(page.relative_to(ROOT)): page for page in [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]}
BLOCK: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PUBLIC: Final = sorted({*tk.__all__, "open"} - {"__version__"})
FRAMEWORKS: Final = {
    "torch": "PyTorch",
    "jax": "JAX",
    "keras": "Keras",
    "flax": "Flax",
    "optax": "Optax",
    "equinox": "Equinox",
    "sklearn": "scikit-learn",
    "transformers": "Transformers",
    "peft": "PEFT",
    "torchao": "torchao",
    "torchdata": "torchdata",
    "obstore": "obstore",
}
ABSENT: Final = {package: name for package, name in FRAMEWORKS.items() if importlib.util.find_spec(package) is None}


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """Line and text of every block of a kind."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, match.start()) + 2, match[2]) for match in BLOCK.finditer(text) if match[1] == kind]


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_block(source: str, page: str, line: int, namespace: dict[str, Any]) -> None:
    """Run a block as a script, or as an interactive session whose output must be true."""
    if source.startswith(">>> "):
        test = doctest.DocTestParser().get_doctest(source, {}, page, page, line - 1)
        test.globs = namespace
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=said.append, clear_globs=False)
        assert not runner.failures, "".join(said)
    else:
        exec(compile("\n" * (line - 1) + source, page, "exec"), namespace)


@pytest.mark.filterwarnings("ignore::tensorkeep.TensorkeepWarning")
@pytest.mark.parametrize("page", [name for name, page in PAGES.items() if blocks(page, "python")])
def test_every_python_block_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order, in one namespace, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for line, source in blocks(PAGES[page], "python"):
        places = ["obstore"] if "memory://" in source else []
        for package in [*places, *re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE)]:
            if package in ABSENT:
                pytest.skip(f"{page} from line {line} on needs {ABSENT[package]}")
        run_block(source, page, line, namespace)


def _documented(thing: Any) -> Iterator[tuple[str, Any]]:
    """A public object, and its public methods, with their names."""
    name = thing.__name__
    yield name, thing
    if inspect.isclass(thing):
        for method, value in vars(thing).items():
            if not method.startswith("_") and (inspect.isfunction(value) or isinstance(value, property)):
                yield f"{name}.{method}", value


@pytest.mark.parametrize("name", PUBLIC)
def test_every_example_of_a_docstring_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples of public docstrings run in an empty folder and print what they say."""
    monkeypatch.chdir(tmp_path)
    for full_name, thing in _documented(getattr(tk, name)):
        source = inspect.getdoc(thing) or ""
        test = doctest.DocTestParser().get_doctest(source, {}, full_name, None, None)
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        runner.run(test, out=said.append)
        assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring_with_its_parts(name: str) -> None:
    """A line; arguments or attributes, all of them; what comes back; an example where it is a verb."""
    thing = getattr(tk, name)
    text = inspect.getdoc(thing) or ""
    assert re.match(r"\S.{3,}[.:]", text), f"{name} starts with a sentence"
    if inspect.isfunction(thing):
        parameters = [p.name for p in inspect.signature(thing).parameters.values()]
        part = text.partition("Args:\n")[2].partition("\n\n")[0]
        assert [p for p in parameters if not re.search(rf"\b{p}\b", part)] == [], f"{name}: not every argument is explained"
        assert "Example:\n" in text and "Raises:\n" in text
        assert "Returns:\n" in text or inspect.signature(thing).return_annotation in (None, "None")
    elif dataclasses.is_dataclass(thing):
        part = re.split(r"(?:Args|Attributes):\n", text, maxsplit=1)[-1]
        hidden = {"tree", "storage"}
        absent = [
            field.name for field in dataclasses.fields(thing) if field.name not in hidden and not re.search(rf"\b{field.name}\b", part)
        ]
        assert absent == [], f"{name}: not every field is explained"


@pytest.mark.parametrize("page", PAGES)
def test_every_link_inside_leads_somewhere(page: str) -> None:
    """Links to files and headings of the project resolve; others begin with https."""
    for target in LINK.findall(BLOCK.sub("", PAGES[page].read_text(encoding="utf-8"))):
        if "://" in target:
            assert target.startswith("https://"), target
            continue
        file, _, heading = target.partition("#")
        there = (PAGES[page].parent / file).resolve() if file else PAGES[page]
        assert there.exists(), f"{page}: {target}"
        if heading:
            assert heading in anchors(there), f"{page}: {target}"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_page_of_the_docs_can_be_reached() -> None:
    """From docs/index.md, following links, one comes to every page."""
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        waiting += [
            (page.parent / target.partition("#")[0]).resolve()
            for target in LINK.findall(page.read_text(encoding="utf-8"))
            if "://" not in target
        ]
    assert [str(page.relative_to(DOCS)) for page in sorted(DOCS.rglob("*.md")) if page not in seen] == []


@pytest.mark.parametrize("page", ["README.md", "README.zh.md"])
@pytest.mark.skipif(shutil.which("bash") is None, reason="the READMEs' commands are run by bash, which is not here")
def test_what_the_readme_shows_is_what_the_commands_print(page: str) -> None:
    """The output under every command is the true one; `python docs/make_outputs.py` brings it up to date."""
    assert script("make_outputs").refresh(ROOT / page) == PAGES[page].read_text(encoding="utf-8")


def test_the_picture_is_the_one_that_its_command_draws() -> None:
    """docs/img/file.svg names the sizes of the README's file; `python docs/make_picture.py` draws it anew."""
    assert script("make_picture").picture() == (DOCS / "img" / "file.svg").read_text(encoding="utf-8")


def test_the_example_of_the_format_is_a_true_file() -> None:
    """Every byte that docs/format.md shows is one of the file; `python docs/make_format_example.py` writes it anew."""
    text = (DOCS / "format.md").read_text(encoding="utf-8")
    assert script("make_format_example").page(text) == text


def test_english_and_chinese_are_in_step() -> None:
    """Both READMEs have the same headings by level, the same blocks, the same links, and tables of the same size."""
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert BLOCK.findall(english) == BLOCK.findall(chinese)
    for pattern in (r"^(#+) ", r"^(\|)", r"^(- )"):
        assert re.findall(pattern, BLOCK.sub("", english), re.MULTILINE) == re.findall(pattern, BLOCK.sub("", chinese), re.MULTILINE)
    linked = [[link for link in LINK.findall(text) if not link.startswith("README")] for text in (english, chinese)]
    assert linked[0] == linked[1]


def test_the_api_page_is_the_one_that_its_command_writes() -> None:
    """docs/reference/api.md names every public object with its signature; `python docs/make_api_reference.py` writes it."""
    text = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    assert script("make_api_reference").page() == text
    for name in PUBLIC:
        assert f"### `{name}`" in text, name


def test_the_api_page_has_no_insides_of_python() -> None:
    """No signature shows how a type is spelled inside, which every release of Python does in another way."""
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    for signature in re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        assert not re.search(r"<class|<function|Unpack|typing\.", signature), signature


def test_the_architecture_page_names_every_room_on_its_storey() -> None:
    """The house in docs/architecture.md is the house that the import test guards."""
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    for number, (storey, rooms) in enumerate(STOREYS):
        part = text.partition(f"### {number}. {storey.capitalize()}")[2].partition("\n### ")[0].partition("\n## ")[0]
        named = set(re.findall(r"^\| `([\w/]+?)(?:\.py|/)?` \|", part, re.MULTILINE))
        assert named == {room or "__init__" for room in rooms}, storey


def test_the_error_page_names_every_error_and_exit_code() -> None:
    """docs/reference/errors.md has every class of the family."""
    text = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    for name in PUBLIC:
        if isinstance(getattr(tk, name), type) and issubclass(getattr(tk, name), (Exception, Warning)):
            assert f"`{name}`" in text, name


def test_the_limits_page_has_the_true_numbers() -> None:
    """docs/reference/limits.md names every limit with its default."""
    text = (DOCS / "reference" / "limits.md").read_text(encoding="utf-8")
    for field in dataclasses.fields(tk.Limits):
        assert re.search(rf"^\| `{field.name}` \| {field.default:,} \|", text, re.MULTILINE), field.name


def test_the_readme_names_the_two_commands_that_ci_runs() -> None:
    """The commands for newcomers and for testers are those that .ci/run runs."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "pip install . && tensorkeep demo" in readme
    assert 'pip install -e ".[test]" && python -m pytest' in readme
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert 'install --quiet -e ".[test]"' in ci
    assert ci.rstrip().endswith("python -m pytest")


def test_ci_runs_the_oldest_packages_that_pyproject_allows() -> None:
    """tests/oldest.txt pins just the minima of what the core and the tests need, and .ci/run installs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = dict(line.partition(";")[0].split(">=") for line in [*project["dependencies"], *project["optional-dependencies"]["test"]])
    lines = (ROOT / "tests" / "oldest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert {name: re.sub(r"(\.0)+$", "", version) for name, version in pinned.items()} == needed
    assert '-r tests/oldest.txt -e ".[test]"' in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_nobody_is_named_who_only_built_it() -> None:
    """No page names a folder of the machine that it was written on."""
    for name, page in PAGES.items():
        assert not re.search(r"/(?:root|work|home)/", page.read_text(encoding="utf-8")), name
