"""Measure how many of scikit-learn's estimators come back bit for bit, and write it into docs/how-to/scikit-learn.md:
`python docs/make_sklearn_list.py`."""

import re
import sys
import warnings
from pathlib import Path

import tensorkeep as tk

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "how-to" / "scikit-learn.md"
MEASURED = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- end -->)", re.DOTALL)

sys.path.insert(0, str(ROOT / "tests"))


def measured() -> str:
    """A paragraph and the list of those that do not come back, with the reason."""
    import sklearn

    import estimators

    warnings.simplefilter("ignore")
    names, exceptions = estimators.names(), []
    for name in names:
        estimator, data, _ = estimators.fitted(name)
        expected = estimators.answers(estimator, data)
        try:
            found = estimators.answers(tk.loads(tk.dumps(estimator), build="sklearn"), data)
        except tk.TensorkeepError as error:
            exceptions.append(f"- `{name}`: {str(error).splitlines()[0]}\n")
            continue
        differs = [method for method in expected if not estimators.same(expected[method], found[method])]
        if differs:
            exceptions.append(f"- `{name}`: other answers of {', '.join(differs)}\n")
    there = len(names) - len(exceptions)
    text = f"With scikit-learn {sklearn.__version__}, {there} of the {len(names)} estimators that it lists come back so "
    return text + f"({there / len(names):.1%}).\n" + ("\nThe rest:\n\n" + "".join(exceptions) if exceptions else "")


def page(text: str) -> str:
    """The text that the page should have."""
    return MEASURED.sub(lambda _: measured(), text)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
