"""Core ML: layers and models of the author's own code, models in other files, and code in the description.

Source: https://apple.github.io/coremltools/mlmodel/, Model.proto and NeuralNetwork.proto
"""

from typing import Final

from tensorkeep.errors import FormatError
from tensorkeep.scanning.code import calls_home, code_in
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out
from tensorkeep.wire.protobuf import Message

_NETWORKS: Final = (303, 403, 500)
_CUSTOM_LAYER: Final = 500
_CUSTOM_MODEL: Final = 555
_LINKED_MODEL: Final = 556


def recognizes(thing: Thing) -> bool:
    """Whether it is called so: the format has no mark."""
    return thing.suffix == ".mlmodel" and not thing.tensor


def scan(thing: Thing, look: Look) -> bool:
    """Look at its description, its layers and what it links to. Whether it is a model."""
    try:
        model = Message(thing.extent, "model", meter=look.budget.meter())
        _description(model, thing, look)
        if _CUSTOM_MODEL in model:
            look.found("unknown", thing.place, "a custom model, for which code of the author's must be linked", "coreml-custom")
        if (linked := model.message(_LINKED_MODEL, "linked model")) is not None:
            _linked(linked, thing, look)
        for number in _NETWORKS:
            network = model.message(number, "network")
            for layer in network.messages(1, "layer") if network is not None else ():
                if (custom := layer.message(_CUSTOM_LAYER, "custom layer")) is not None:
                    name = custom.text(10, "class of a custom layer")
                    what = f"the custom layer {name!r}, for which code of the author's must be linked"
                    look.found("unknown", thing.at(layer.text(1, "name of a layer")), what, "coreml-custom")
    except FormatError as error:
        look.stopped(thing.place, error.problem)
        return False
    return True


def _description(model: Message, thing: Thing, look: Look) -> None:
    description = model.message(2, "description")
    metadata = description.message(100, "metadata") if description is not None else None
    for entry in metadata.messages(100, "entry") if metadata is not None else ():
        key, value = entry.text(1, "key"), entry.text(2, "value")
        if found := code_in(value):
            look.found("unknown", thing.at(f"metadata {key}"), f"{found[0]}: {found[1]!r}", "code-in-text")
        elif calls_home(key, value):
            look.found("unknown", thing.at(f"metadata {key}"), f"an address to call: {value!r}", "address")


def _linked(linked: Message, thing: Thing, look: Look) -> None:
    file = linked.message(1, "linked file")
    for number in (1, 2):
        parameter = file.message(number, "name of a linked file") if file is not None else None
        name = parameter.text(1, "name of a linked file") if parameter is not None else ""
        if why := leads_out(name):
            look.found("dangerous", thing.place, f"takes a model from the file {name!r}, whose name {why}", "outside-file")
