"""PyTorch's checkpoints as `torch.save` has written them since 1.6: a zip archive with a pickle and a record for each storage."""

from tensorkeep.contents import Contents
from tensorkeep.formats import assemble
from tensorkeep.formats.peek import Peek
from tensorkeep.formats.torch.archive import PICKLE, Archive, archive_of
from tensorkeep.formats.torch.pickle import Settled, format_of, run_pickle, settle, trailing
from tensorkeep.formats.torch.rebuild import Rebuilder
from tensorkeep.formats.torch.storage import Views


class TorchZipReader:
    """`.pt`, `.pth`, `.ckpt`, `.bin`: any zip archive with a `data.pkl` in its folder, whatever it is called."""

    name = "torch zip"

    def recognizes(self, peek: Peek) -> bool:
        return archive_of(peek) is not None

    def read(self, peek: Peek) -> Contents:
        settled, archive = read_archive(peek)
        return assemble.contents(
            peek,
            format=format_of(settled.tree),
            tree=settled.tree,
            metadata=archive.metadata() | settled.metadata,
            of_file=archive.metadata(),
            findings=[*archive.findings(), *settled.findings],
            left_out=settled.left_out,
            version=archive.version,
            checked=archive.checked(),
            views_unchecked=True,
        )


def read_archive(peek: Peek) -> tuple[Settled, Archive]:
    """What an archive holds.

    Raises:
        FormatError: it has no pickle, or breaks its format.
    """
    prefix = archive_of(peek)
    if prefix is None:
        raise peek.error(f"it is no archive of torch.save: it has no {PICKLE}")
    archive = Archive(peek, prefix)
    rebuilder = Rebuilder(Views(peek.name, peek.limits, swapped=archive.swapped), find=archive.storage)
    pickle = archive.open(PICKLE)
    if peek.verify:
        pickle.check()
    value, end = run_pickle(peek, pickle, rebuilder)
    settled = settle(peek, value, rebuilder)
    settled.findings += trailing(peek, pickle.nbytes - end, f"the end of the pickle in {PICKLE}")
    settled.left_out += _unnamed(archive, rebuilder)
    return settled, archive


def _unnamed(archive: Archive, rebuilder: Rebuilder) -> list[str]:
    """Storages that the pickle does not name."""
    known = rebuilder.views.storages
    spare = [name for name in archive.names("data/") if name.removeprefix("data/") not in known]
    return [f"{len(spare):,} records that no tensor uses, such as {spare[0]}"] if spare else []
