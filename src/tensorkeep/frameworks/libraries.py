"""Transformers and PEFT: which of their models an object is, and under which names they keep its weights in a folder.

Nothing is imported to find out: whoever has such a model has imported its library.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

_CLASSES: Final = {("transformers.modeling_utils", "PreTrainedModel"): "transformers", ("peft.peft_model", "PeftModel"): "peft"}


def kind_of(obj: object) -> str | None:
    """Whose model an object is: `transformers`, `peft`, or None."""
    for cls in type(obj).__mro__:
        kind = _CLASSES.get((cls.__module__, cls.__name__))
        if kind is not None:
            return kind
    return None


def named_weights(obj: Any) -> dict[str, Any] | None:
    """The model's weights by their names in a folder, where these are others than in its `state_dict`. They may be copies.

    Where a library keeps them under the same names, or has no folder for such an object, None.
    """
    kind = kind_of(obj)
    if kind == "peft":
        return dict(_adapter_weights(obj))
    if kind == "transformers" and getattr(obj, "_hf_peft_config_loaded", False):
        return {f"base_model.model.{name}": tensor for name, tensor in obj.get_adapter_state_dict().items()}
    if kind == "transformers" and not by_its_library(obj):
        state = obj.state_dict()
        weights = converted(obj, state)
        return None if weights is state else weights
    return None


def by_its_library(model: Any) -> bool:
    """Whether the library has to write the weights itself: quantized, as adapters, or from where they are offloaded or sharded to."""
    if getattr(model, "hf_quantizer", None) is not None or getattr(model, "_hf_peft_config_loaded", False):
        return True
    return getattr(model, "_tp_size", None) is not None or any(tensor.is_meta for tensor in _tensors(model))


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.parameters()
    yield from model.buffers()


def converted(model: Any, state: dict[str, Any]) -> dict[str, Any]:
    """The weights under the names, and in the shapes, that the model's files on the hub have; since version 5 these may be others."""
    loading = sys.modules.get("transformers.core_model_loading")
    revert = getattr(loading, "revert_weight_conversion", None)
    if revert is None:
        return state
    weights: dict[str, Any] = revert(model, dict(state))
    same = weights.keys() == state.keys() and all(weights[name].data_ptr() == state[name].data_ptr() for name in state)
    return state if same else weights


def unsaved(obj: Any) -> frozenset[str]:
    """Names of a model that its library never writes into a folder: what it computes anew."""
    return frozenset(getattr(obj, "_keys_to_ignore_on_save", None) or ()) if kind_of(obj) == "transformers" else frozenset()


def puts_back(obj: Any) -> Callable[[Mapping[str, Any]], object] | None:
    """What puts weights, by their names in a folder, into a model by its library's own code; None where it has none for that."""
    if kind_of(obj) != "peft":
        return None
    peft = sys.modules["peft"]
    return lambda weights: peft.set_peft_model_state_dict(obj, dict(weights), adapter_name=_active(obj))


def prompts(obj: Any) -> tuple[str, Any] | None:
    """The name and the module that computes a model's prompts, where PEFT trains one: a folder keeps what comes out of it alone."""
    if kind_of(obj) != "peft" or not obj.active_peft_config.is_prompt_learning or obj.active_peft_config.inference_mode:
        return None
    return f"prompt_encoder.{_active(obj)}", obj.prompt_encoder[_active(obj)]


def _adapter_weights(model: Any) -> Mapping[str, Any]:
    peft = sys.modules["peft"]
    weights: Mapping[str, Any] = peft.get_peft_model_state_dict(model, adapter_name=_active(model))
    return weights


def _active(model: Any) -> str:
    active = model.active_adapter
    return str(active if isinstance(active, str) else active[0])
