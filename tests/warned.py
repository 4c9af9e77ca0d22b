"""Warnings that a test recorded, without those that come whenever the garbage collector meets what another test left open."""

import warnings
from collections.abc import Iterable


def warned(recorded: Iterable[warnings.WarningMessage]) -> list[warnings.WarningMessage]:
    """All but `ResourceWarning`: no other kind comes from objects that go away."""
    return [warning for warning in recorded if not issubclass(warning.category, ResourceWarning)]
