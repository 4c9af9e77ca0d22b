"""An object that takes its state, or refuses: for loads that fail late."""

from typing import Any


class Refuses:
    """Whatever else is in a load with it must be as it was."""

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses

    def state_dict(self) -> dict[str, int]:
        return {"x": 1}

    def load_state_dict(self, state: Any) -> None:
        if self.refuses:
            raise RuntimeError("not this one")
