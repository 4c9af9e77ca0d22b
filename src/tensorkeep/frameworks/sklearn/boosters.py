"""Boosters: models of XGBoost and LightGBM, kept as the bytes that their own libraries write."""

import sys
from collections.abc import Mapping
from typing import Any, Final

from tensorkeep.frameworks.sklearn import names

_LIBRARIES: Final = {"xgboost.core": "xgboost", "lightgbm.basic": "lightgbm"}


def find(value: object) -> str:
    """The library whose model it is, or ""."""
    cls = type(value)
    return _LIBRARIES.get(cls.__module__, "") if cls.__name__ == "Booster" else ""


def take(booster: Any) -> dict[str, Any]:
    """Its state: the bytes of its library's own format."""
    if find(booster) == "xgboost":
        return {"ubj": bytes(booster.save_raw(raw_format="ubj"))}
    return {"text": booster.model_to_string(num_iteration=-1).encode()}


def is_asked_for(library: str, known: Mapping[str, Any]) -> bool:
    """Whether one of the classes that the caller gave is the library's."""
    return any(isinstance(cls, type) and cls.__module__.partition(".")[0] == library for cls in known.values())


def companion(name: str, known: Mapping[str, Any]) -> Any:
    """A private class that LightGBM's classifiers hold, for whoever gave one of them; else None."""
    if name == "_LGBMLabelEncoder" and is_asked_for("lightgbm", known):
        return getattr(sys.modules.get("lightgbm.compat"), name, None)
    return None


def make(library: str, state: dict[str, Any]) -> object:
    """The model. Its library reads the bytes, and is imported by the caller, who asked for its classes."""
    module: Any = sys.modules.get(library)
    if module is None or library not in _LIBRARIES.values():
        raise names.Unknown(f"a model of {library}, which is not imported in this process")
    if library == "xgboost":
        booster = module.Booster()
        booster.load_model(bytearray(state["ubj"]))
        return booster
    return module.Booster(model_str=state["text"].decode())


def exchange(one: Any, other: Any) -> None:
    """Let two boosters exchange all they have: each model stays with one of them, which frees it."""
    attributes = dict(vars(one))
    vars(one).clear()
    vars(one).update(vars(other))
    vars(other).clear()
    vars(other).update(attributes)
