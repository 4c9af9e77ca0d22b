"""Vetting: a stranger's configuration becomes one that names nothing but what stands in our tables, or is refused with the place.

Keras never sees what the file says: it gets a document made anew here, node by node, in which every class and function has the module that
the table gives it. Everything else is data: texts, numbers, shapes. What could cost more than the file's own size is bounded.

Lives elsewhere: the tables (known), and what Keras makes of the document (making).
"""

from collections.abc import Mapping
from typing import Any, Final

from tensorkeep.frameworks.keras import known
from tensorkeep.frameworks.keras.architecture import LEFT_OUT
from tensorkeep.frameworks.keras.building import is_shape

_DEEPEST: Final = 200  # Python's own stack bounds what Keras can walk
_MOST_CALLS: Final = 200_000  # of layers, those in models that are called again and again counted each time
_MOST_ELEMENTS: Final = 1 << 31  # of a shape: nothing is allocated by it
_LONGEST_UNROLLED: Final = 10_000  # steps that are unrolled one by one
_ARRAYS: Final = frozenset({"__numpy__", "__tensor__"})
_DTYPES: Final = frozenset(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64", "bfloat16"]
)  # of constants in a model
_PARTS: Final = ("inbound_nodes", "name", "shared_object_id")  # beside the configuration itself


class Refused(ValueError):  # whoever builds turns it into an error of the family
    """A part of a configuration that is not built.

    Attributes:
        place: where in the configuration.
    """

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place} {reason}")
        self.place = place


class Vetting:
    """Makes configurations that are safe for Keras to build.

    Args:
        given: the caller's own classes and functions, by name.
        registered: names under which this process has registered objects with Keras, which a text would find.

    Attributes:
        used: names of `given` that the configuration asked for.
    """

    def __init__(self, given: Mapping[str, Any], registered: frozenset[str] = frozenset()) -> None:
        self.given, self.registered = given, registered
        self.used: set[str] = set()
        self._unrolled, self._longest = "", 0

    def document(self, node: Any, place: str = "config") -> dict[str, Any]:
        """The configuration of a whole object, made anew.

        Raises:
            Refused: a part of it stands in no table, or would cost too much.
        """
        if not isinstance(node, dict):
            raise Refused(place, "is no configuration of an object")
        made: dict[str, Any] = self._object(node, place, 0)
        if _calls(made, 0) > _MOST_CALLS:
            raise Refused(place, f"calls its layers more than {_MOST_CALLS:,} times, with those of models in it")
        if self._unrolled and self._longest > _LONGEST_UNROLLED:
            raise Refused(self._unrolled, f"unrolls more than {_LONGEST_UNROLLED:,} steps")
        return made

    def value(self, node: Any, place: str, depth: int = 0) -> Any:
        """Any part of a configuration."""
        if depth > _DEEPEST:
            raise Refused(place[:200], f"is nested deeper than {_DEEPEST}")
        if isinstance(node, dict):
            if "class_name" in node:
                return self._object(node, place, depth)
            self._kept(node, place)
            return {self._key(key, place): self.parameter(key, child, f"{place}.{key}", depth) for key, child in node.items()}
        if isinstance(node, (list, tuple)):
            return [self.value(child, f"{place}[{number}]", depth + 1) for number, child in enumerate(node)]
        if isinstance(node, str):
            return self._text(node, place)
        if node is None or isinstance(node, (bool, int, float)):
            return node
        raise Refused(place, f"is a {type(node).__name__}, which no configuration holds")

    def parameter(self, key: str, node: Any, place: str, depth: int) -> Any:
        """What stands under a name."""
        if key in known.NAMES_OF_FILES and isinstance(node, (str, dict)):
            raise Refused(place, f"is {_shown(node)}: Keras would read it from there")
        most = known.MOST.get(key)
        if most is not None and isinstance(node, (int, float)) and node > most:
            raise Refused(place, f"is {node:,}; at most {most:,} is built")
        if key == "unroll" and node is True:
            self._unrolled = place
        return self.value(node, place, depth + 1)

    def _kept(self, node: dict[str, Any], place: str) -> None:
        if LEFT_OUT in node:
            raise Refused(place, f"is not kept: {node[LEFT_OUT]!s:.200}")

    def _key(self, key: Any, place: str) -> str:
        if not isinstance(key, str):
            raise Refused(place, f"has the key {_shown(key)}, which is no text")
        return key

    def _text(self, text: str, place: str) -> str:
        if text in self.registered:
            if text not in self.given:
                raise Refused(place, f"is {_shown(text)}, which something in this process has registered with Keras; types= lets it in")
            self.used.add(text)
        return text

    def _object(self, node: dict[str, Any], place: str, depth: int) -> Any:
        name, config = node["class_name"], node.get("config")
        if not isinstance(name, str):
            raise Refused(place, f"is of the class {_shown(name)}, which is no name")
        if isinstance(config, dict):
            self._kept(config, place)
        if name.startswith("__"):
            return self._special(name, config, place, depth)
        if name == "function":
            return self._function(node, config, place)
        module = known.module_of(node.get("module"), name)
        made: dict[str, Any] = {"module": module, "class_name": name, "registered_name": None}
        if module is None:
            self._own(node, name, place)
            made |= {"module": "", "registered_name": name}  # found among the caller's own, or not at all
        if config is not None and not isinstance(config, dict):
            raise Refused(place, f"has {_shown(config)} for a configuration")
        inner = f"{place} ({self._named(node, config)})" if depth else place
        made["config"] = self.value({} if config is None else dict(config), f"{inner}.config", depth + 1)
        if (build := node.get("build_config")) is not None:
            made["build_config"] = self._shapes(build, f"{inner}.build_config")
        made |= {key: self.value(node[key], f"{inner}.{key}", depth + 1) for key in _PARTS if key in node}
        if name == "RandomShear":
            made["config"] |= {key: _shear(made["config"].get(key)) for key in ("x_factor", "y_factor")}
        if name == "InputLayer":
            self._input(made["config"], inner)
        if depth and (compiled := node.get("compile_config")):
            made["compile_config"] = self.value(compiled, f"{inner}.compile_config", depth + 1)
        return made

    def _named(self, node: dict[str, Any], config: Any) -> str:
        name = config.get("name") if isinstance(config, dict) else None
        return f"{node['class_name']:.60} {name:.60}" if isinstance(name, str) else f"{node['class_name']:.60}"

    def _own(self, node: dict[str, Any], name: str, place: str) -> None:
        """A class of the caller's.

        Raises:
            Refused: it is none.
        """
        if name in self.given and isinstance(self.given[name], type):
            self.used.add(name)
            return
        where = node.get("registered_name") or node.get("module") or "no module"
        raise Refused(place, f"is a {name:.100} ({where!s:.100}), which is none of Keras's that are built; types= lets your own in")

    def _function(self, node: dict[str, Any], name: Any, place: str) -> dict[str, Any]:
        if not isinstance(name, str):
            raise Refused(place, f"is the function {_shown(name)}, which is no name")
        own = name.rpartition(">")[2]
        if own in self.given:
            self.used.add(own)
            return {"module": "", "class_name": "function", "config": own, "registered_name": own}
        if not known.is_function(node.get("module"), name):
            where = node.get("module") or "no module"
            raise Refused(place, f"is the function {name:.100} ({where!s:.100}), none of Keras's that are built; types= lets your own in")
        return {"module": "builtins", "class_name": "function", "config": name, "registered_name": "function"}

    def _special(self, name: str, config: Any, place: str, depth: int) -> dict[str, Any]:
        """What Keras writes for values that JSON has not."""
        config = {} if config is None else config
        if not isinstance(config, dict):
            raise Refused(place, f"is a {name:.60} without a configuration")
        if name == "__keras_tensor__":
            history = config.get("keras_history")
            shape = config.get("shape")
            if not is_shape(shape, _MOST_ELEMENTS) or not (history is None or (isinstance(history, list) and len(history) == 3)):
                raise Refused(place, "is a place in a model that is none")
            made = {"shape": shape, "dtype": self._dtype(config.get("dtype"), place), "keras_history": self.value(history, place, depth)}
        elif name in _ARRAYS:
            if not _is_numbers(config.get("value"), 0):
                raise Refused(place, "is a constant that is no array of numbers")
            made = {"value": config["value"], "dtype": self._dtype(config.get("dtype"), place)}
        elif name == "__slice__":
            made = {key: self.value(config.get(key), f"{place}.{key}", depth + 1) for key in ("start", "stop", "step")}
        elif name == "__ellipsis__":
            made = {}
        elif name == "__bytes__" and isinstance(config.get("value"), str):
            made = {"value": config["value"]}
        else:
            what = "code" if name == "__lambda__" else "nothing that is built"
            raise Refused(place, f"is a {name:.60}, which is {what}")
        return {"class_name": name, "config": made}

    def _dtype(self, dtype: Any, place: str) -> str:
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            raise Refused(place, f"has the dtype {_shown(dtype)}")
        return dtype

    def _shapes(self, node: Any, place: str) -> Any:
        """What something was built with: shapes by name."""
        if not is_shape(node, _MOST_ELEMENTS) or not isinstance(node, dict):
            raise Refused(place, "is other than shapes")
        return node

    def _input(self, config: dict[str, Any], place: str) -> None:
        shape = config.get("batch_shape", config.get("shape"))
        if not is_shape(shape, _MOST_ELEMENTS):
            raise Refused(place, f"takes inputs of the shape {_shown(shape)}")
        self._longest = max([self._longest, *(length or 0 for length in (shape or ())[1:])])


def _shear(factor: Any) -> Any:
    """As the layer takes it: it writes the range that it made of a number, and then refuses that."""
    symmetric = isinstance(factor, list) and len(factor) == 2 and factor[1] == -factor[0] and factor[1] > 0
    return factor[1] if symmetric else factor


def _is_numbers(node: Any, depth: int) -> bool:
    if isinstance(node, list):
        return depth < 64 and all(_is_numbers(child, depth + 1) for child in node)
    return isinstance(node, (bool, int, float))


def _calls(node: Any, depth: int) -> int:
    """How often layers are called when a model is put together, as nodes of a graph or one after another."""
    if isinstance(node, list):
        return sum(_calls(child, depth + 1) for child in node)
    if not isinstance(node, dict):
        return 0
    inside = sum(_calls(child, depth + 1) for key, child in node.items() if key != "inbound_nodes")
    if "class_name" not in node:
        return inside
    nodes = node.get("inbound_nodes")
    return min((1 + inside) * max(1, len(nodes) if isinstance(nodes, list) else 1), 1 << 62)


def _shown(value: Any) -> str:
    return f"{value!r:.100}"
