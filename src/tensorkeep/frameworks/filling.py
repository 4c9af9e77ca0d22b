"""Filling: an object that was made anew for a file gets what the file has for it.

Lives elsewhere: objects of the caller, which keep what they have if anything fails (restore).
"""

from collections.abc import Callable, Mapping
from typing import Any

from tensorkeep.frameworks.capture import capture_target
from tensorkeep.frameworks.planning import plan
from tensorkeep.limits import DEFAULT_LIMITS
from tensorkeep.matching import Matcher
from tensorkeep.report import make_report
from tensorkeep.tree import Captured, Tree


def fill(obj: Any, node: Captured, inside: Callable[[Tree], Any], metadata: Mapping[str, Any]) -> None:
    """Fill a new object with its values.

    Args:
        inside: builds a part of the tree, around arrays of NumPy.
        metadata: what the file says about itself.

    Raises:
        ValueError: they disagree.
    """
    matcher = Matcher(cast=False, selected=lambda path: True, plan=plan, build=inside, read=inside, versions=dict, metadata=metadata)
    result = matcher.fit(capture_target(obj, DEFAULT_LIMITS), node, "")
    matcher.settle()
    if matcher.problems:
        raise ValueError(f"its values do not fit what its configuration makes:\n{make_report(matcher.problems)}")
    matcher.build_values()
    for step in matcher.steps:
        step.apply()
    for copy in matcher.copies:
        copy.live.put(inside(copy.source))
    result()
    for finish in matcher.finish:
        finish()
