"""skops: the classes and functions that a file asks for, held against the exact names that ordinary models have."""

from typing import Any, Final

from tensorkeep.scanning.look import Look, Thing
from tensorkeep.unpickle.severity import severity

_MORE: Final = frozenset({("builtins", "method"), ("numpy", "ndarray"), ("scipy.sparse", "spmatrix"), ("builtins", "NoneType")})


def judge(node: dict[str, Any], path: str, thing: Thing, look: Look) -> None:
    """Tell what one node of a schema would import."""
    module, name = node.get("__module__"), node.get("__class__")
    if node.get("__loader__") in ("MethodNode", "OperatorFuncNode"):
        what = f"a {node['__loader__']}, by which some releases of skops call what the file names (CVE-2025-54412, CVE-2025-54413)"
        look.found("unknown", thing.at(path), what, "skops-method")
    if not isinstance(module, str) or not isinstance(name, str) or "__loader__" not in node:
        return
    level = "harmless" if (module, name) in _MORE else severity(module, name)
    look.found(level, thing.at(path), f"{'imports' if level == 'harmless' else 'would import'} {module}.{name}", "skops-type")
    content = node.get("content")
    if node["__loader__"] in ("FunctionNode", "TypeNode") and isinstance(content, dict):
        inner_module, inner = content.get("module_path"), content.get("function")
        if isinstance(inner_module, str) and isinstance(inner, str):
            level = severity(inner_module, inner)
            look.found(level, thing.at(path), f"would import {inner_module}.{inner}", "skops-type")
