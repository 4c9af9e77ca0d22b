"""A look at the first bytes of a file: whether they are a pickle, told by the grammar of its opcodes.

Protocols from 2 on begin with a mark of their own. Protocols 0 and 1 begin with any opcode, and those are letters and brackets: so their
opcodes are followed as far as the look goes, each argument held against what pickle writes there, and so is the depth of the stack.
"""

import re
from typing import Final

_WORD: Final = re.compile(rb"[A-Za-z_][\w.]{0,200}")
_INT: Final = re.compile(rb"-?[0-9]{1,4300}L?")
_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_FLOAT: Final = re.compile(rb"-?(?:[0-9]+\.?[0-9]*(?:e[+-]?[0-9]+)?|inf|nan)")
_QUOTED: Final = re.compile(rb"'[^\n]*'|\"[^\n]*\"")
_ANY: Final = re.compile(rb"[^\n\0]*")

_MARKED: Final = re.compile(rb"\x80[\2-\5][\x80-\x98()\].0-2a-eghijloq-u}BCFGIJKLMNPQRSTUVX]", re.DOTALL)
"""The mark of protocols 2 to 5, and an opcode."""

# By opcode of protocols 0 and 1: the lines that follow; or how many bytes; or, below zero, of how many bytes the length is that comes
# before as many.
_LINES: Final[dict[int, tuple["re.Pattern[bytes]", ...]]] = {
    ord("I"): (_INT,),
    ord("L"): (_INT,),
    ord("F"): (_FLOAT,),
    ord("S"): (_QUOTED,),
    ord("V"): (_ANY,),
    ord("p"): (_NUMBER,),
    ord("g"): (_NUMBER,),
    ord("c"): (_WORD, _WORD),
    ord("i"): (_WORD, _WORD),
    ord("P"): (_ANY,),
}
_BYTES: Final = {
    **dict.fromkeys(b")(]}l.NdtRobasue012Q", 0),
    **dict.fromkeys(b"Khq", 1),
    ord("M"): 2,
    **dict.fromkeys(b"Jjr", 4),
    ord("G"): 8,
    ord("U"): -1,
    **dict.fromkeys(b"TX", -4),
}
_POPS: Final = {
    **dict.fromkeys(b"Qpqr2.0", 1),
    **dict.fromkeys(b"aRb", 2),
    ord("s"): 3,
}
"""How much has to be on the stack, so that an opcode can do its work."""
_UP_TO_MARK: Final = frozenset(b"ltdoieu1")
_MOST: Final = 200  # opcodes: a text that goes so far by chance there is none
_FEWEST: Final = 4  # where the look ends before the pickle does
_FEWEST_ENDED: Final = 8  # where something else stands behind the pickle


def looks_like_pickle(head: bytes, *, whole: bool, follows: bool = False) -> bool:
    """Whether a file begins as a pickle does.

    Args:
        head: its first bytes.
        whole: whether they are all there are: then a pickle of protocol 0 or 1 ends among them.
        follows: whether a pickle stands before it: then a short one is none by chance.
    """
    if _MARKED.match(head) is not None:
        return True
    at = marks = 0
    for count in range(_MOST):
        if at >= len(head):
            return not whole and count >= _FEWEST
        op = head[at]
        lines = _LINES.get(op)
        if lines is None and op not in _BYTES:
            return False
        if op in _UP_TO_MARK:
            if not marks:
                return False
            marks -= 1
        elif not marks and count < _POPS.get(op, 0):  # each opcode before it has pushed one at most
            return False
        if op == ord("."):
            return count >= _FEWEST_ENDED or (count > 0 and (follows or (whole and at + 1 == len(head))))
        marks += op == ord("(")
        behind = _behind(head, at + 1, lines, _BYTES.get(op, 0))
        if behind is None:
            return False
        at = behind
    return True


def _behind(head: bytes, at: int, lines: "tuple[re.Pattern[bytes], ...] | None", nbytes: int) -> int | None:
    """The place behind an opcode's argument, which may be behind the look; None where it is none that pickle writes."""
    for line in lines or ():
        stop = head.find(b"\n", at)
        if stop < 0:
            return len(head) if line is _ANY or (line is _QUOTED and head[at : at + 1] in (b"'", b'"')) else None
        if line.fullmatch(head[at:stop].removesuffix(b"\r")) is None:
            return None
        at = stop + 1
    if nbytes < 0:
        return at - nbytes + int.from_bytes(head[at : at - nbytes], "little")
    return at + nbytes
