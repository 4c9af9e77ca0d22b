"""Crafted files of every format, hostile and honest: none makes the library run, import, write or connect, take much, or fail unclearly."""

from pathlib import Path

import pytest

import guarded
from hostile.families import FAMILIES, cases


@pytest.mark.parametrize("family", FAMILIES)
def test_every_file_ends_as_it_must(family: str, tmp_path: Path) -> None:
    """Read, or refused in clear words; nothing runs; what would run elsewhere is never called clean; honest files give no alarm."""
    made = cases(family)
    paths = {}
    for number, case in enumerate(made):
        folder = tmp_path / str(number)
        folder.mkdir()
        paths[str(case.put(folder))] = case
    outcomes = {outcome.path: outcome for outcome in guarded.look(map(Path, paths))}
    wrong = {case.name: problems for path, case in paths.items() if path in outcomes and (problems := case.wrong(outcomes[path]))}
    assert wrong == {}, "\n".join(map(str, wrong.items()))
    assert outcomes.keys() == paths.keys()
