"""All families of cases. As a program it counts them: `python -m hostile.families`, in the folder of the tests."""

from typing import Final

from hostile import archives, changes, disguises, folders, hdf5, headers, honests, pickles, runtimes, tables
from hostile.cases import READ, Case, gathered

FAMILIES: Final = {
    "pickles that call": (pickles.calls,),
    "pickles inside of others": (pickles.wrapped,),
    "opcodes": (pickles.opcodes,),
    "odd pickles": (pickles.odd,),
    "pickles that ask for much": (pickles.demands,),
    "fields of zip": (archives.fields,),
    "archives that lie": (archives.lies,),
    "tar and streams": (archives.tars, archives.streams),
    "safetensors": (headers.tensors,),
    "indexes of shards": (headers.shards,),
    "headers of npy": (headers.arrays,),
    "GGUF": (tables.gguf,),
    "TFLite": (tables.tflite,),
    "ONNX": (runtimes.onnx,),
    "runtimes": (runtimes.others,),
    "XML, TF.js and MessagePack": (runtimes.xml, runtimes.js, runtimes.packed),
    "disguises": (disguises.spelled, disguises.attributes, disguises.pipelines),
    "HDF5, its words": (hdf5.words,),
    "HDF5 that leads out, Keras": (hdf5.leading_out, hdf5.keras, hdf5.without_h5py),
    "checkpoints of TensorFlow": (folders.bundles,),
    "Zarr and OCDBT": (folders.arrays,),
    "PyTorch and skops": (folders.distributed, folders.skops),
    "single changes": (changes.single,),
    "changes of members and nodes": (changes.members, changes.nodes),
    "honest files": (honests.samples, honests.pickles, honests.others),
}
"""By name, what makes the cases that one process opens one after the other."""


def cases(family: str) -> list[Case]:
    return list(gathered(*FAMILIES[family]))


if __name__ == "__main__":
    made = [case for family in FAMILIES for case in cases(family)]
    honest = sum(case.end == READ and case.scan == "clean" for case in made)
    print(f"{len(made) - honest:,} hostile files and {honest:,} honest ones")
