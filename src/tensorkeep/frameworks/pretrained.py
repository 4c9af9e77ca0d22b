"""Models that their own library keeps in a folder, for `from_pretrained`: those of Transformers and of PEFT.

Lives here: what such a folder holds, by the library's own rules: config, names of the weights, ties, adapters alone. Lives elsewhere:
the files (modelfile), under which names its weights stand there (libraries), and filling it (frameworks/torch).
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from tensorkeep.errors import UnsupportedError
from tensorkeep.frameworks.capture import capture
from tensorkeep.frameworks.libraries import by_its_library, converted, kind_of, unsaved
from tensorkeep.limits import Limits
from tensorkeep.tensors import LazyTensor

_FALLBACK_SHARD: Final = "5GB"  # what Hugging Face's packages take where a model says nothing


@dataclass(frozen=True, slots=True)
class Pretrained:
    """How a model's library keeps it.

    Attributes:
        write: has the library write into an empty folder everything but the weights, or with them where `tensors` is None.
        tensors: the weights by their names in the folder, each over memory of its own.
        shard_size: what the library takes as the most for one file: bytes, or a text such as `5GB`.
        numbers: what its index says of the whole.
        framework: whose tensors the weights are.
    """

    write: Callable[[str], object]
    tensors: dict[str, LazyTensor] | None
    shard_size: int | str = _FALLBACK_SHARD
    numbers: Mapping[str, int] = field(default_factory=dict)
    framework: str = "torch"


def is_pretrained(obj: object) -> bool:
    """Whether a library has its own way to keep this object in a folder. Nothing is imported to find out."""
    return kind_of(obj) is not None


def pretrained(obj: Any, limits: Limits, shard_size: int | str | None) -> Pretrained:
    """What goes into the folder of a model, by its library's rules.

    Raises:
        UnsupportedError: it has weights that such a folder cannot hold.
    """
    return _KINDS[kind_of(obj) or ""](obj, limits, shard_size)


def _of_transformers(model: Any, limits: Limits, shard_size: int | str | None) -> Pretrained:
    size = shard_size if shard_size is not None else _default(model.save_pretrained)
    if by_its_library(model):
        return Pretrained(lambda folder: model.save_pretrained(folder, max_shard_size=size), None, size)
    state = model.state_dict()
    apart = unsaved(model)
    state = {name: tensor for name, tensor in state.items() if name not in apart}
    weights = converted(model, _untied(model, state))
    numbers = {"total_parameters": int(model.num_parameters())}

    def write(folder: str) -> None:
        with _without_bar():  # it would tell of no weights
            model.save_pretrained(folder, state_dict={})

    return Pretrained(write, _captured(weights, limits), size, numbers)


@contextmanager
def _without_bar() -> Iterator[None]:
    logging = getattr(sys.modules.get("transformers.utils"), "logging", None)
    if logging is None or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def _default(save: Callable[..., object]) -> int | str:
    parameter = inspect.signature(save).parameters.get("max_shard_size")
    return parameter.default if parameter is not None and isinstance(parameter.default, (int, str)) else _FALLBACK_SHARD


def _untied(model: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """Each weight once, without the names that `from_pretrained` ties to another by the config. Ties it knows nothing of stay twice."""
    known = _tied_names(model)
    groups: dict[tuple[Any, ...], list[str]] = {}
    for name, tensor in state.items():
        if hasattr(tensor, "data_ptr") and tensor.numel():
            groups.setdefault((tensor.device, tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype), []).append(name)
    dropped: set[str] = set()
    for names in groups.values():
        tied = sorted(name for name in names if known(name))
        dropped.update(tied if len(tied) < len(names) else tied[:-1])
    return {name: tensor for name, tensor in state.items() if name not in dropped}


def _tied_names(model: Any) -> Callable[[str], bool]:
    told = getattr(model, "all_tied_weights_keys", None)  # since version 5: names, as the config has it
    if told is not None:
        return set(told).__contains__
    patterns: list[str] = []
    for prefix, module in model.named_modules():
        keys = getattr(module, "_tied_weights_keys", None) or ()
        patterns += [f"^{re.escape(prefix)}\\.{key}" if prefix else key for key in keys]
    return lambda name: any(re.search(pattern, name) for pattern in patterns)


def _captured(weights: Mapping[str, Any], limits: Limits) -> dict[str, LazyTensor]:
    """Each for itself: two names that share memory are two tensors in the file, as `from_pretrained` looks for both."""
    captured: dict[str, LazyTensor] = {}
    for name, value in weights.items():
        try:
            tensor = capture(value, limits)
        except UnsupportedError as error:
            raise UnsupportedError(name, error.reason, hint=error.hint) from error
        if not isinstance(tensor, LazyTensor) or not tensor.dtype.known:
            what = f"a {type(value).__name__}" if not isinstance(tensor, LazyTensor) else f"a tensor of {tensor.dtype}"
            hint = "One model file keeps it: tk.save(model, 'model.safetensors')."
            raise UnsupportedError(name, f"{what}, which from_pretrained does not find in a folder", hint=hint)
        captured[name] = tensor
    return captured


def _of_peft(model: Any, limits: Limits, shard_size: int | str | None) -> Pretrained:
    return Pretrained(lambda folder: model.save_pretrained(folder), None)  # adapters are small: PEFT writes what it reads


_KINDS: Final[dict[str, Callable[[Any, Limits, int | str | None], Pretrained]]] = {"transformers": _of_transformers, "peft": _of_peft}
