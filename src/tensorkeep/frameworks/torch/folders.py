"""Modules filled from what their own library keeps in a folder, where that has other names, or other cuts, than the `state_dict`.

Adapters of PEFT stand there without the name of the adapter, and experts of Transformers one by one that the model holds in one tensor.
The library says which of its weights each is, as views of the model's memory or as copies. Copies are filled too, and put back: by the
library where it has a way; else they are traced: made of numbered elements, which tells where each element of a copy comes from.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tensorkeep.frameworks import libraries
from tensorkeep.frameworks.torch.tensors import capture
from tensorkeep.matching import Matcher, Result
from tensorkeep.tree import Tree, join

_HINT = "from_pretrained converts it"
_WHOLE = "To go on training, save into one file, such as model.safetensors; to use the prompts, make the model with inference_mode=True"
_NAMED = 3


def named(module: Any, found: Mapping[str, Tree], own: Mapping[str, Tree]) -> dict[str, Any] | None:
    """The module's weights by the names that the file has, where these are its library's and not its own; else None."""
    if libraries.kind_of(module) is None or found.keys() <= own.keys():
        return None
    weights = libraries.named_weights(module)
    fits = weights is not None and len(found.keys() & weights.keys()) > len(found.keys() & own.keys())
    return weights if fits else None


def plan(module: Any, weights: Mapping[str, Any], found: Mapping[str, Tree], path: str, matcher: Matcher) -> Result:
    """Match each weight of the library's with what the file has under its name."""
    memory = {tensor.untyped_storage().data_ptr() for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor)}
    live: dict[tuple[Any, ...], Tree] = {}  # tied ones are one, under all of their names
    copies: dict[str, Any] = {}
    unsaved = libraries.unsaved(module)
    for name, tensor in weights.items():
        place = join(path, name)
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        target = live.setdefault(key, capture(tensor))
        if name not in found:
            if name not in unsaved:
                matcher.missing(target, place)
            continue
        matcher.fit(target, found[name], place)
        if tensor.untyped_storage().data_ptr() not in memory:
            copies[name] = tensor
    for name, node in found.items():
        if name not in weights:
            matcher.unexpected(node, join(path, name))
    if (prompts := libraries.prompts(module)) is not None:
        _check_prompts(*prompts, weights, path, matcher)
    put = libraries.puts_back(module)
    if copies and put is not None:
        matcher.finish.append(lambda: put(copies))
    elif copies:
        places = _traced(module, copies)
        for name, tensor in copies.items():
            if name in places:
                matcher.finish.append(_putting(places[name], tensor))
            else:
                matcher.problem("object", join(path, name), "", "", f"{_HINT}, in a way that cannot be followed here")
    return lambda: module


def _check_prompts(name: str, encoder: Any, weights: Mapping[str, Any], path: str, matcher: Matcher) -> None:
    """Prompts go in where the network that computed them starts; of that network itself a folder has nothing."""
    left = [own for own, _ in encoder.named_parameters() if own != "embedding.weight" and own not in weights]
    made = weights.get("prompt_embeddings")
    if not left or made is None:
        return
    if made.shape != encoder.embedding.weight.shape:
        found, wanted = (f"prompts of {tuple(tensor.shape)}" for tensor in (made, encoder.embedding.weight))
        matcher.problem("object", join(path, "prompt_embeddings"), found, wanted, f"what {name} computes cannot be trained on: {_WHOLE}")
        return
    named = ", ".join(join(path, f"{name}.{own}") for own in left[:_NAMED]) + (", ..." if len(left) > _NAMED else "")
    matcher.cautions.append(f"such a folder has the prompts alone, not the network that computed them: {named} stay as they were. {_WHOLE}")


def _putting(place: tuple[Any, Any], copy: Any) -> Callable[[], object]:
    """Puts what was loaded into a copy back to where the copy came from."""
    target, indices = place

    def put() -> None:
        with torch.no_grad():
            target.view(-1)[indices] = copy.reshape(-1)

    return put


def _traced(module: Any, copies: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Of each copy, the tensor of the module that it was made of, and which elements; those of which that can be told."""
    state = module.state_dict()
    numbered: dict[str, Any] = {}
    starts: dict[str, int] = {}
    start = 0
    for name, tensor in state.items():
        starts[name] = start
        numbered[name] = torch.arange(start, start + tensor.numel(), device=tensor.device).view(tensor.shape)
        start += tensor.numel()
    made = libraries.converted(module, numbered)
    places: dict[str, tuple[Any, Any]] = {}
    for name, copy in copies.items():
        indices = made.get(name)
        if indices is None or indices.dtype != torch.int64 or indices.shape != copy.shape or not indices.numel():
            continue
        first = int(indices.min())
        owner = max((begin, other) for other, begin in starts.items() if begin <= first)[1]
        tensor, inside = state[owner], indices.reshape(-1) - starts[owner]
        if int(inside.max()) < tensor.numel() and tensor.is_contiguous() and torch.equal(tensor.view(-1)[inside], copy.reshape(-1)):
            places[name] = tensor, inside
    return places
