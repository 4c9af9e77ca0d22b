"""Making: a model is built from the configuration that a file keeps, and filled with its values.

The configuration has been vetted: Keras gets a document of ours. Variables are made without memory first; only when their shapes are those
of the file's tensors do they get some, so that no file makes a model allocate more than it holds itself.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import keras

from tensorkeep.errors import TensorkeepWarning, warn
from tensorkeep.frameworks.keras.names import CONFIG, OPTIMIZER
from tensorkeep.frameworks.keras.vetting import Refused, Vetting
from tensorkeep.tensors import LazyTensor
from tensorkeep.tree import Captured, Tree, tensors

_COMPILED: Final = "compile_config"
_PUT_OFF: Final = "uninitialized_variables"  # where Keras notes those that have no value yet
_SPARE: Final = 1 << 16  # elements that variables may have which the file need not: what it lacks is told by name
_INSIDE_SCOPE: Final = "stateless scope"  # in what Keras says of variables that have values from the start


class _Failed(ValueError):  # whoever builds turns it into an error of the family
    """Keras itself does not make a model of a document."""


def make(node: Captured, inside: Callable[[Tree], Any], types: Mapping[str, Any], fill: Callable[[Any, Captured], None]) -> Any:
    """The model of a node, with its values.

    Args:
        node: of a layer or model, as the file has it.
        inside: builds a part of the tree, around arrays of NumPy.
        types: the caller's own classes and functions.
        fill: fills the new model with what the file has for it.

    Raises:
        ValueError: the configuration names what is not built, or the values are others' than the model's.
    """
    if not isinstance(node.state, dict) or CONFIG not in node.state:
        raise ValueError("the file keeps no configuration of it")
    given = _by_name(types)
    vetting = Vetting(given, frozenset(keras.saving.get_custom_objects()))
    config = inside(node.state[CONFIG])
    document = vetting.document(config)
    count = sum(tensor.spec.count for _, tensor in tensors({key: child for key, child in node.state.items() if key != CONFIG}))
    made = _built(document, {name: given[name] for name in vetting.used}, count)
    compiled = config.get(_COMPILED)
    if compiled:
        _compile(made, compiled, given)
    if not getattr(made, "compiled", False):
        node = Captured(node.kind, node.cls, {key: child for key, child in node.state.items() if not _is_optimizer(key, child)})
    fill(made, node)
    return made


def _is_optimizer(key: Any, child: Tree) -> bool:
    return key == OPTIMIZER and not isinstance(child, LazyTensor)


def _by_name(types: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's own by the names that Keras's configurations give them."""
    found: dict[str, Any] = {}
    for one in types.values():
        name = one.__name__
        if found.setdefault(name, one) is not one:
            raise ValueError(f"types= has two of the name {name}")
    return found


def _built(document: dict[str, Any], given: dict[str, Any], count: int) -> Any:
    """The object of a vetted document, its variables with zeros."""
    try:
        with _without_memory() as made:
            obj = _deserialize(document, given)
            wanted = sum(math.prod(variable.shape) for variable in made())
            if wanted > count + _SPARE:
                raise Refused("config", f"makes variables of {wanted:,} elements, and the file has {count:,}")
        return obj
    except _Failed as failed:
        if not given or _INSIDE_SCOPE not in str(failed):
            raise
    return _deserialize(document, given)  # with classes of the caller's that make variables in their own ways


def _deserialize(document: dict[str, Any], given: dict[str, Any]) -> Any:
    try:
        with warnings.catch_warnings(), _sharing():
            warnings.simplefilter("ignore")  # the report tells what is missing
            return keras.saving.deserialize_keras_object(document, custom_objects=given, safe_mode=True)
    except Exception as error:  # code of layers and backends may raise anything over parameters that it does not like
        raise _Failed(f"Keras makes nothing of it: {_shortened(error)}") from error


@contextmanager
def _without_memory() -> Iterator[Callable[[], list[Any]]]:
    """Let Keras put off to give values to variables until the end, and then give them zeros, for the
    file's values come right after.

    Yields:
        What tells the variables that were made so far.
    """
    state = keras.src.backend.common.global_state
    before = list(state.get_global_attribute(_PUT_OFF, [], set_to_default=True))

    def made() -> list[Any]:
        return [one for one in state.get_global_attribute(_PUT_OFF, []) if not any(one is other for other in before)]

    scope = keras.StatelessScope(initialize_variables=False)
    try:
        with scope:
            yield made
    except BaseException:
        state.set_global_attribute(_PUT_OFF, before)
        raise
    zeros = keras.initializers.Zeros()
    for variable in made():
        if not isinstance(variable._initializer, keras.initializers.Orthogonal):  # whose order in memory decides last bits of products
            variable._initializer = zeros
    with keras.StatelessScope():
        pass  # whose end gives them their values


@contextmanager
def _sharing() -> Iterator[None]:
    """Layers that stand in several places of a document become one again."""
    with keras.src.saving.serialization_lib.ObjectSharingScope():
        yield


def _compile(made: Any, config: Any, given: dict[str, Any]) -> None:
    """Compile a model as it was; where that needs what is not built, leave it and say so."""
    vetting = Vetting(given, frozenset(keras.saving.get_custom_objects()))
    try:
        document = vetting.value(config, f"config.{_COMPILED}")
    except Refused as refused:
        text = f"the model was not compiled, and its optimizer's state was left: {refused}"
        warn(TensorkeepWarning(text))
        return
    try:
        with keras.saving.CustomObjectScope({name: given[name] for name in vetting.used}):
            if type(made).compile is keras.Model.compile and type(made).compile_from_config is keras.Model.compile_from_config:
                made.compile(**keras.saving.deserialize_keras_object(document))  # its optimizer is built if the file's was
            else:
                made.compile_from_config(document)
    except Exception as error:  # as above
        raise _Failed(f"Keras does not compile it: {_shortened(error)}") from error
    made.compiled = True


def _shortened(error: Exception) -> str:
    """What Keras says, without the whole of the configuration, which it repeats for each model around."""
    text = str(error)
    causes = text.rpartition("Exception encountered: ")[2].strip() or text
    return f"{type(error).__name__}: {causes:.1000}"
