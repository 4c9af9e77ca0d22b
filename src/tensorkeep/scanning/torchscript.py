"""What stands beside the tensors in a zip of PyTorch: TorchScript's code, packages of Python sources, compiled libraries."""

import re
from typing import Final

from tensorkeep.errors import CorruptError, FormatError
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.wire.zip import ZipArchive

_OPERATIONS: Final = re.compile(
    r"\b(?:aten::(?:save|from_file|_load)|prim::(?:PythonOp|CallFunction_py)|torch\.(?:save|load|from_file|ops\.load_library)|"
    r"ops\.(?:aten\.from_file|prim\.PythonOp|image\.(?:read_file|write_file)|torchaudio\.\w*(?:load|save)\w*|"
    r"[a-z]*\.?(?:system|exec|popen|shell)\w*)|__import__|subprocess|os\.system|eval\(|exec\()"
)
_CODE_BYTES: Final = 16 << 20


def scan(archive: ZipArchive, thing: Thing, look: Look) -> None:
    """Look at the members of PyTorch's own that are no tensors and no pickles."""
    package = next((name for name in archive if name.endswith(".data/extern_modules")), "")
    sources = [name for name in archive if name.endswith(".py") and "/code/" in f"/{name}"]
    if package:
        code = [name for name in archive if name.endswith(".py") and not name.startswith("code/")]
        if code:
            look.found(
                "unknown", thing.at(code[0]), f"{len(code):,} Python files, which torch.package runs when it is loaded", "torch-package"
            )
        return
    if not sources or not any(name.endswith(("constants.pkl", "data.pkl")) for name in archive):
        return
    look.found("harmless", thing.at(sources[0]), "TorchScript code, which PyTorch compiles and which reaches no Python", "torchscript")
    for name in sources:
        try:
            extent = archive.open(name)
            if extent.nbytes > _CODE_BYTES:
                look.stopped(thing.at(name), f"TorchScript code of {extent.nbytes:,} bytes")
                continue
            text = bytes(extent.checked()).decode("utf-8", "replace")
        except (FormatError, CorruptError) as error:
            look.stopped(thing.at(name), str(error))
            continue
        for found in _OPERATIONS.finditer(text):
            look.found(
                "dangerous", thing.at(name), f"TorchScript code that reads or writes files, or calls out: {found[0]!r}", "torchscript"
            )
