"""Keras configurations: Lambda layers with code in them, modules and classes that are none of Keras, layers that load or run other things.

Source: keras/src/saving/serialization_lib.py; CVE-2024-3660, CVE-2025-1550, CVE-2025-8747, CVE-2025-9905, CVE-2025-9906, CVE-2025-12058,
CVE-2025-49655.
"""

import re
from typing import Any, Final

from tensorkeep.scanning.look import Look, Thing
from tensorkeep.unpickle.severity import severity

_TOPS: Final = frozenset({"keras", "tf_keras", "keras_hub", "keras_nlp", "keras_cv", "keras_core", "tensorflow_addons"})
_PACKAGES: Final = frozenset({"keras", "Addons"})  # that register classes of their own
_AROUND: Final = frozenset({"tensorflow"})  # which has Keras below it
_ORDINARY: Final = frozenset(
    {
        *("activations", "applications", "constraints", "distribution", "dtype_policies", "initializers", "layers", "legacy"),
        *("losses", "metrics", "mixed_precision", "models", "ops", "optimizers", "quantizers", "random", "regularizers", "backend"),
        *("engine", "tokenizers", "modeling", "bounding_box", "feature_extraction"),
    }
)
_OTHERS: Final = frozenset(
    {"os", "sys", "subprocess", "shutil", "pickle", "marshal", "importlib", "builtins", "inspect", "types", "functools"}
)
"""Modules that those of Keras import, and by which a name would lead out of it."""
_RUNNERS: Final = {
    "TFSMLayer": "loads a SavedModel, whose operations may touch files",
    "TorchModuleWrapper": "unpickles a PyTorch module",
    "PyFunc": "runs a Python function",
    "JaxLayer": "calls a function that is named or kept in the file",
    "FlaxLayer": "calls a function that is named or kept in the file",
}
_BUILTINS: Final = frozenset(
    {"function", "float", "int", "str", "bool", "bytes", "list", "tuple", "dict", "set", "NoneType", "slice", "Ellipsis", "type"}
)
_LOOKUPS: Final = frozenset(
    {
        "StringLookup",
        "IntegerLookup",
        "TextVectorization",
        "WordPieceTokenizer",
        "BytePairTokenizer",
        "SentencePieceTokenizer",
        "IndexLookup",
    }
)
_FUNCTIONS: Final = re.compile(
    r"(?:^|\.)(?:io|raw_ops|compat|load_library|load_op_library|py_function|numpy_function|py_func|saved_model|data|system)\b"
)
_OPERATIONS: Final = re.compile(
    r"\b(?:ReadFile|WriteFile|(?:Eager)?PyFunc(?:Stateless)?|LoadLibrary|SaveV2|RestoreV2|MergeV2Checkpoints)\b"
)
_DANGEROUS: Final = (
    *("eval", "exec", "compile", "open", "getattr", "setattr", "delattr", "input", "breakpoint", "__import__", "vars", "globals"),
)  # of Python's own functions
_FETCH: Final = re.compile(r"(?:[\w.]+\.)?(?:get_file|enable_unsafe_deserialization|load_model|run_command)")


def judge(node: dict[str, Any], path: str, thing: Thing, look: Look) -> None:
    """Tell what one object of a configuration would do when it is made."""
    name, module, config = node.get("class_name"), node.get("module"), node.get("config")
    if not isinstance(name, str) or not (isinstance(config, (dict, str, list)) or module is not None or "registered_name" in node):
        return
    place = thing.at(path)
    _layer(name, config, place, look)
    if isinstance(module, str):
        _module(module, name, config, place, look)
    registered = node.get("registered_name")
    own = isinstance(registered, str) and registered not in ("", name) and not isinstance(module, str)
    if own and str(registered).partition(">")[0] not in _PACKAGES:
        look.found("unknown", place, f"asks for {registered!r}, a class that the file's author registered", "keras-registered")
    if isinstance(config, dict):
        for key, value in config.items():
            if key in ("fn_module", "function_module") and isinstance(value, str) and severity(value, "*") == "dangerous":
                look.found("dangerous", place, f"would import {value}", "keras-module")
            if isinstance(value, str) and _FETCH.fullmatch(value):
                look.found("dangerous", place, f"asks for {value!r} as {key}", "keras-fetch")


def _layer(name: str, config: Any, place: str, look: Look) -> None:
    """What a layer of Keras's own would run or read."""
    if name.rpartition(">")[2] == "Lambda" and isinstance(config, dict):
        _lambda(config, place, look)
    elif name == "__lambda__":
        look.found("dangerous", place, "compiled Python code (a lambda), which Keras would run", "keras-lambda")
    elif name in ("TFOpLambda", "SlicingOpLambda") and isinstance(config, dict):
        function = config.get("function")
        if isinstance(function, str) and _FUNCTIONS.search(function):
            look.found("dangerous", place, f"a layer that would call tf.{function}", "keras-operation")
    elif name == "TensorFlowOpLayer" and isinstance(config, dict):
        node_def = config.get("node_def")
        operation = node_def.get("op") if isinstance(node_def, dict) else node_def
        if isinstance(operation, str) and _OPERATIONS.search(operation):
            look.found("dangerous", place, "a layer that would run an operation of TensorFlow on files or in Python", "keras-operation")
    elif name in _RUNNERS:
        look.found("dangerous", place, f"a {name}, which {_RUNNERS[name]}", "keras-layer")
    if name in _LOOKUPS and isinstance(config, dict):
        for key in ("vocabulary", "merges", "proto"):
            if isinstance(config.get(key), str) and (key != "proto" or config[key].startswith(("/", ".", "http"))):
                look.found("unknown", place, f"a {name} that would read the file {config[key]!r}", "keras-file")


def _lambda(config: dict[str, Any], place: str, look: Look) -> None:
    function = config.get("function")
    inner = function.get("class_name") if isinstance(function, dict) else None
    if isinstance(function, list) or inner == "__lambda__" or config.get("function_type") == "lambda":
        look.found("dangerous", place, "a Lambda layer with compiled Python code, which Keras would run", "keras-lambda")
    else:
        name = function.get("config") if isinstance(function, dict) else function
        if isinstance(name, str) and not all(part.isidentifier() for part in name.split(".")):
            look.found("dangerous", place, f"a Lambda layer whose function is code: {name!r}", "keras-lambda")
            return
        module = config.get("module") or (function.get("module") if isinstance(function, dict) else "")
        look.found("unknown", place, f"a Lambda layer that would call {str(module or '') + '.' if module else ''}{name}", "keras-lambda")


def _module(module: str, name: str, config: Any, place: str, look: Look) -> None:
    parts = [part for part in module.split(".") if part not in ("src", "api", "_v2", "_tf_keras", "python", "v2")]
    full = f"{module}.{name}" + (f" ({config})" if name == "function" and isinstance(config, str) else "")
    if not parts:
        return
    if parts[0] in _AROUND:
        parts = parts[1:]
    if parts and parts[0] in _TOPS:
        inner = {*parts[1:], *name.split(".")}
        ordinary = len(parts) == 1 or (parts[1] in _ORDINARY and parts[1:3] != ["legacy", "saving"])
        if name == "function" and isinstance(config, str):
            inner |= {*config.split(".")}
        if ordinary and name.isidentifier() and not inner & {*_OTHERS, *_DANGEROUS}:
            return
        look.found("dangerous", place, f"would import {full}, which is no part of a model", "keras-module")
    elif module == "builtins":
        if name not in _BUILTINS or (name == "function" and config in _DANGEROUS):
            look.found("dangerous", place, f"would take {full} from Python itself", "keras-module")
    else:
        level = severity(module, config if name == "function" and isinstance(config, str) else name)
        if level != "harmless":
            look.found(level, place, f"would import {full}", "keras-module")


def fetches(value: str) -> bool:
    """Whether a text is the name of a function of Keras that fetches, loads, or takes the guard away."""
    return bool(_FETCH.fullmatch(value)) and "." in value
