"""The writer of our own model file, as `convert` asks for it: the whole tree, and what was its metadata."""

from functools import partial
from typing import Any

from tensorkeep.dtypes import DType
from tensorkeep.errors import UnsupportedError
from tensorkeep.formats.carried import Carried
from tensorkeep.formats.streams import is_streamed
from tensorkeep.formats.writing import OutFile, Plan
from tensorkeep.limits import Limits
from tensorkeep.modelfile.layout import KEY, lay_out_state
from tensorkeep.modelfile.write import write_at_offsets


class ModelFileWriter:
    """Containers, plain values, ties and every dtype that has a name in our format."""

    def plan(self, carried: Carried, *, limits: Limits) -> Plan:
        carried.require("a model file", _has_place)
        try:
            layout = lay_out_state(carried.tree, carried.metadata, limits, versions=carried.versions)
        except UnsupportedError:  # for one of the metadata, if what is left goes through
            layout = lay_out_state(carried.tree, _metadata(carried, limits), limits, versions=carried.versions)
        streamed = [path for path, tensor in zip(layout.spans, layout.tensors, strict=True) if is_streamed(tensor)]
        write = partial(write_at_offsets, layout, streamed=streamed)
        return Plan("tensorkeep model file", [OutFile(layout.nbytes, write)])


def _has_place(dtype: DType) -> bool:
    return bool(dtype.stored)


def _metadata(carried: Carried, limits: Limits) -> dict[str, Any]:
    """What a model file can keep of it: texts and plain values."""
    kept: dict[str, Any] = {}
    for key, value in carried.metadata.items():
        try:
            lay_out_state(None, {key: value}, limits)
            kept[key] = value
        except UnsupportedError as error:
            why = "the place of a model file's own document" if key == KEY else error.reason
            carried.left_out.append((f"metadata {key}", why))
    return kept
