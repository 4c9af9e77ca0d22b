"""Pickles that call what they must not, in every way that opcodes have, inside everything that a pickle may lie in; and those that no
pickler writes: each opcode cut, on an empty stack, on things of another kind."""

import pickle
import pickletools
import struct
from collections.abc import Callable, Iterator
from typing import Final

from hostile.cases import EITHER, REFUSED, Case, builders, one

CALLABLES: Final = (
    "posix system", "nt system", "os system", "os popen", "os execv", "os remove", "os.path join.__globals__", "subprocess Popen",
    "subprocess check_output", "builtins eval", "builtins exec", "builtins compile", "builtins __import__", "builtins getattr",
    "builtins open", "__builtin__ eval", "__builtin__ apply", "importlib import_module", "runpy _run_code", "pty spawn", "socket socket",
    "shutil rmtree", "webbrowser open", "ctypes CDLL", "pickle loads", "_pickle loads", "marshal loads", "torch load", "numpy load",
    "numpy.testing._private.utils runstring", "code InteractiveInterpreter", "operator attrgetter", "operator methodcaller",
    "types FunctionType", "types CodeType", "asyncio create_subprocess_shell", "multiprocessing Process", "timeit timeit", "cProfile run",
    "pdb run", "urllib.request urlopen", "http.client HTTPConnection", "smtplib SMTP", "sqlite3 connect", "zipimport zipimporter",
    "functools reduce", "pip._internal.cli.main main", "torch.serialization os.system", "keras.utils get_file", "joblib load",
    "pandas read_pickle", "numpy.f2py.crackfortran myeval", "lib2to3.pgen2.pgen ParserGenerator", "logging.config dictConfig",
)  # fmt: skip
"""What runs something, opens something, or leads there."""


def text(value: str) -> bytes:
    raw = value.encode()
    return b"\x8c" + bytes((len(raw),)) + raw


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


ARGUMENT: Final = text("true")
WAYS: Final[dict[str, Callable[[str, str], bytes]]] = {
    "protocol 0": lambda module, name: _global(module, name) + b"(S'true'\ntR.",
    "protocol 1": lambda module, name: _global(module, name) + b"q\x00(U\x04truetq\x01Rq\x02.",
    "protocol 2": lambda module, name: b"\x80\x02" + _global(module, name) + b"X\4\0\0\0true\x85R.",
    "protocol 3": lambda module, name: b"\x80\x03" + _global(module, name) + b"X\4\0\0\0true\x85R.",
    "protocol 4": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R.",
    "protocol 4 in a frame": lambda module, name: _framed(_stack_global(module, name) + ARGUMENT + b"\x85R."),
    "protocol 5": lambda module, name: b"\x80\x05" + _stack_global(module, name) + ARGUMENT + b"\x85R.",
    "INST": lambda module, name: f"(S'true'\ni{module}\n{name}\n.".encode(),
    "OBJ": lambda module, name: b"\x80\x02(" + _global(module, name) + b"X\4\0\0\0trueo.",
    "NEWOBJ": lambda module, name: b"\x80\x02" + _global(module, name) + b"X\4\0\0\0true\x85\x81.",
    "NEWOBJ_EX": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85}\x92.",
    "BUILD on it": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b"}" + text("x") + b"Nsb.",
    "BUILD on what it made": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b")R}b.",
    "BUILD with two states": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b")\x81}}\x86b.",
    "named alone": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b".",
    "called and popped": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R0}.",
    "called below a mark": lambda module, name: b"\x80\x04(" + _stack_global(module, name) + ARGUMENT + b"\x85R1}.",
    "called twice by DUP": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b"2)R0)R.",
    "from the memo": lambda module, name: b"\x80\x04" + _stack_global(module, name) + b"\x940Nh\x00" + ARGUMENT + b"\x85R\x86.",
    "a module from the memo": lambda module, name: b"\x80\x04" + text(module) + b"\x94" + text(name) + b"\x9400h\x00h\x01\x93)R.",
    "as a key": lambda module, name: b"\x80\x04}" + _stack_global(module, name) + b")RNs.",
    "as an item of a set": lambda module, name: b"\x80\x04\x8f(" + _stack_global(module, name) + b")R\x90.",
    "as an argument of dict": lambda module, name: (
        b"\x80\x04" + _stack_global("builtins", "dict") + _stack_global(module, name) + b")R\x85R."
    ),
    "as what makes items": lambda module, name: (
        b"\x80\x04" + _stack_global("collections", "defaultdict") + _stack_global(module, name) + b"\x85R."
    ),
    "behind a partial": lambda module, name: b"\x80\x04" + _stack_global("functools", "partial") + _stack_global(module, name) + b"\x85R.",
    "in a map": lambda module, name: (
        b"\x80\x04" + _stack_global("builtins", "map") + _stack_global(module, name) + b"](" + ARGUMENT + b"e\x86R."
    ),
    "as the reconstructor": lambda module, name: (
        b"\x80\x02ccopy_reg\n_reconstructor\n(" + _global(module, name) + b"cbuiltins\nobject\nNtR."
    ),
    "before a wrong opcode": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R\xff",
    "before its end": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R",
    "before a pop of nothing": lambda module, name: b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R00.",
    "behind a harmless pickle": lambda module, name: HARMLESS + b"\x80\x04" + _stack_global(module, name) + ARGUMENT + b"\x85R.",
    "behind a cut frame": lambda module, name: b"\x80\x04\x95\xff\0\0\0\0\0\0\0" + _stack_global(module, name) + ARGUMENT + b"\x85R.",
    "with a carriage return": lambda module, name: f"c{module}\r\n{name}\r\n(S'true'\ntR.".encode(),
    "with a wrong protocol": lambda module, name: b"\x80\x63" + _global(module, name) + b")R.",
}
"""Every way to a call that opcodes have: by module and name, a pickle."""
HARMLESS: Final = pickle.dumps({"weights": [1.0, 2.0], "name": "net"}, 4)


def _framed(body: bytes) -> bytes:
    return b"\x80\x04\x95" + struct.pack("<Q", len(body)) + body


def calls() -> Iterator[Case]:
    """Each callable in some way, and each way of some callables."""
    ways = list(WAYS.items())
    for number, named in enumerate(CALLABLES):
        module, _, name = named.partition(" ")
        way, make = ways[number % 8]
        yield one(f"{module}.{name} by {way}", make(module, name), EITHER, scan="told", file="m.pkl")
    for way, make in ways:
        for module, name in (("posix", "system"), ("builtins", "exec")):
            yield one(f"call, {way}: {name}", make(module, name), EITHER, scan="told", file="m.pkl")


def wrapped() -> Iterator[Case]:
    """Calls inside everything that a pickle may lie in."""
    import bz2
    import gzip
    import lzma
    import zlib

    import attacks

    wraps: dict[str, Callable[[bytes], bytes]] = {
        "zip": lambda data: attacks.zipped({"archive/data.pkl": data, "archive/version": b"3\n"}),
        "deflated zip": lambda data: attacks.zipped({"archive/data.pkl": data, "archive/version": b"3\n"}, deflate=True),
        "zip of another name": lambda data: attacks.zipped({"notes.txt": data}),
        "zip in a zip": lambda data: attacks.zipped({"x": attacks.zipped({"y": data})}),
        "tar": lambda data: attacks.tarred({"model.pkl": data}),
        "gzip": gzip.compress,
        "gzip of two members": lambda data: gzip.compress(data[:9]) + gzip.compress(data[9:]),
        "gzip in gzip": lambda data: gzip.compress(gzip.compress(data)),
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
        "zlib": zlib.compress,
        "npy": attacks.npy,
        "npz": lambda data: attacks.zipped({"w.npy": attacks.npy(data)}),
        "joblib's array of objects": attacks.joblib_objects,
        "PyTorch's stream": attacks.legacy,
        "junk before it": lambda data: b"\xff\x00junk" * 40 + data,
        "a pickle before it": lambda data: HARMLESS * 3 + data,
        "bytes in a pickle": lambda data: pickle.dumps([data], 4),
        "bytes in a safetensors tensor": lambda data: _in_tensor(data),
        "bytes in a state of torch": lambda data: attacks.zipped({"archive/data.pkl": HARMLESS, "archive/data/0": data}),
        "torchscript's constants": lambda data: attacks.zipped({"m/data.pkl": HARMLESS, "m/constants.pkl": data, "m/code/a.py": b"x=1\n"}),
        "a Keras archive": lambda data: attacks.zipped({"metadata.json": b"{}", "config.json": b"{}", "assets/x.pkl": data}),
        "a skops archive": lambda data: attacks.zipped({"schema.json": b"{}", "x.npy": attacks.npy(data)}),
    }
    if (zstd := builders("compression.zstd") or builders("backports.zstd")) is not None:
        wraps["zstd"] = zstd.compress
    for wrap, pack in wraps.items():
        for way in ("protocol 0", "protocol 2", "protocol 4"):
            yield one(
                f"a call by {way} in {wrap}", pack(WAYS[way]("posix", "system")), EITHER, scan="" if "safetensors" in wrap else "told"
            )


def _in_tensor(data: bytes) -> bytes:
    from craft import entry, safetensors

    return safetensors({"w": entry(0, len(data))}, data)


def opcodes() -> Iterator[Case]:
    """Each opcode without its argument, without what it takes from the stack, with other things there, and over marks."""
    for opcode in pickletools.opcodes:
        code = opcode.code.encode("latin1")
        arguments = _argument(opcode)
        if opcode.arg is not None:
            yield one(f"{opcode.name} cut", b"\x80\x04" + code, REFUSED, file="m.pkl")
            yield one(f"{opcode.name} of all ones", b"\x80\x04" + code + b"\xff" * 8, file="m.pkl")
        if opcode.stack_before:
            yield one(f"{opcode.name} on an empty stack", b"\x80\x04" + code + arguments + b".", REFUSED, file="m.pkl")
            for kind, thing in THINGS.items():
                yield one(f"{opcode.name} on {kind}", b"\x80\x04" + thing * 4 + code + arguments + b".", EITHER, file="m.pkl")
            yield one(f"{opcode.name} on marks", b"\x80\x04(((" + code + arguments + b".", EITHER, file="m.pkl")


THINGS: Final = {"None": b"N", "lists": b"]", "tuples": b")", "inert": b"ca\nb\n", "dicts under a mark": b"}("}


def _argument(opcode: pickletools.OpcodeInfo) -> bytes:
    """A small argument of the kind that an opcode wants."""
    if opcode.arg is None:
        return b""
    if opcode.arg.n < 0:
        known = {"stringnl": b"'a'\n", "stringnl_noescape_pair": b"a\nb\n", "floatnl": b"1\n", "unicodestringnl": b"a\n"}
        width = {-2: 1, -3: 4, -4: 4, -5: 8}.get(opcode.arg.n, 0)
        return known.get(opcode.arg.name, b"1\n") if opcode.arg.n == -1 else (1).to_bytes(width, "little") + b"a"
    return (1).to_bytes(opcode.arg.n, "little") if opcode.arg.n else b""


def odd() -> Iterator[Case]:
    """What pickletools does not tell: marks, texts, ids, registry, what is no pickle at all but looks like one."""
    cases: dict[str, tuple[bytes, str]] = {
        "only STOP": (b".", REFUSED),
        "only a protocol": (b"\x80\x04.", REFUSED),
        "nothing": (b"", REFUSED),
        "a protocol that is none": (b"\x80\xffN.", EITHER),
        "STOP on a mark": (b"\x80\x04(.", REFUSED),
        "a persistent id in text": (b"Pwhere\n.", EITHER),
        "a persistent id that is none": (b"\x80\x04NQ.", EITHER),
        "the extension 1": (b"\x80\x02\x82\x01.", EITHER),
        "the extension 0": (b"\x80\x02\x82\x00.", EITHER),
        "an extension below 0": (b"\x80\x02\x84\xff\xff\xff\xff.", EITHER),
        "a buffer that is not there": (b"\x80\x05\x97.", EITHER),
        "an odd text": (b"S'\\x'\n.", REFUSED),
        "a text without quotes": (b"Sabc\n.", REFUSED),
        "a text of surrogates": (b"\x80\x04\x8c\x03\xed\xa0\x80.", EITHER),
        "no UTF-8": (b"\x80\x04\x8c\x01\xff.", REFUSED),
        "an int of letters": (b"Iabc\n.", REFUSED),
        "an int of 5,000 digits": (b"I" + b"7" * 5000 + b"\n.", EITHER),
        "a long of underscores": (b"L1_0L\n.", EITHER),
        "a float of letters": (b"Fabc\n.", REFUSED),
        "a float of hex": (b"F0x1p3\n.", EITHER),
        "a long of a negative length": (b"\x80\x02\x8b\xff\xff\xff\xff.", REFUSED),
        "a list as a key": (b"\x80\x04}]Ns.", REFUSED),
        "a dict in a set": (b"\x80\x04\x8f(}\x90.", REFUSED),
        "a list in a frozenset": (b"\x80\x04(]\x91.", REFUSED),
        "items of a list": (b"\x80\x04]NNs.", REFUSED),
        "items of a tuple": (b"\x80\x04)(Ne.", REFUSED),
        "an odd number of items": (b"\x80\x04}(Nu.", REFUSED),
        "a state for a list": (b"\x80\x04]}b.", REFUSED),
        "a state for None": (b"\x80\x04N}b.", REFUSED),
        "a list in itself": (b"\x80\x04]\x94h\x00a.", REFUSED),
        "a dict in itself": (b"\x80\x04}\x94Nh\x00s.", REFUSED),
        "a tuple in its list": (b"\x80\x04]\x94h\x00\x85\x94a.", EITHER),
        "a list in itself by extend": (b"\x80\x04]\x94(h\x00h\x00e.", REFUSED),
        "a name of no characters": (b"c\n\n.", EITHER),
        "a name of zeros": (b"ca\0b\nc\0d\n.", EITHER),
        "a name of escapes": (b"c\x1b[2Ja\nb\n)R.", EITHER),
        "a name of 60,000 characters": (b"c" + b"a" * 60_000 + b"\nb\n)R.", EITHER),
        "names that are no texts": (b"\x80\x04K\x01K\x02\x93.", REFUSED),
        "names that are lists": (b"\x80\x04]]\x93.", REFUSED),
        "a frame longer than the file": (b"\x80\x04\x95" + b"\xff" * 7 + b"\x7fN.", REFUSED),
        "a frame in a frame": (b"\x80\x04\x95\x0a\0\0\0\0\0\0\0\x95\x02\0\0\0\0\0\0\0N.", EITHER),
        "a frame of nothing": (b"\x80\x04\x95\0\0\0\0\0\0\0\0N.", EITHER),
        "a memo number beyond all": (b"\x80\x04Nr\xff\xff\xff\xff.", EITHER),
        "a memo number below 0": (b"Np-1\n.", REFUSED),
        "a memo number of letters": (b"Npab\n.", REFUSED),
        "a text file": (b"Iam a poem\nof two lines.\n", REFUSED),
        "JSON like a pickle": (b"(a json?)\n.", REFUSED),
        "parentheses alone": (b"(" * 1000, REFUSED),
        "a page of HTML": (b"<!DOCTYPE html><html><body>Not found</body></html>", REFUSED),
        "codecs that decode": (b"\x80\x04" + _stack_global("_codecs", "encode") + text("a") + text("rot13") + b"\x86R.", EITHER),
        "codecs by a name of 60,000": (b"\x80\x04c_codecs\nencode\n(Va\nV" + b"idna" * 15_000 + b"\ntR.", EITHER),
        "a bytearray of a huge count": (b"\x80\x04" + _stack_global("builtins", "bytearray") + b"J\xff\xff\xff\x7f\x85R.", EITHER),
        "a range of 2^60": (b"\x80\x04" + _stack_global("builtins", "range") + b"\x8a\x08" + b"\xff" * 7 + b"\x0f\x85R.", EITHER),
        "a list of a range": (
            b"\x80\x04" + _stack_global("builtins", "list") + _stack_global("builtins", "range") + b"J\xff\xff\xff\x7f\x85R\x85R.",
            EITHER,
        ),
        "a complex of texts": (b"\x80\x04" + _stack_global("builtins", "complex") + text("1") + text("2") + b"\x86R.", EITHER),
        "a date of large numbers": (b"\x80\x04" + _stack_global("datetime", "date") + b"C\x04\xff\xff\xff\xff\x85R.", EITHER),
        "a timedelta of large numbers": (b"\x80\x04" + _stack_global("datetime", "timedelta") + b"J\xff\xff\xff\x7f\x85R.", EITHER),
        "a decimal of a huge exponent": (b"\x80\x04" + _stack_global("decimal", "Decimal") + text("1e999999999") + b"\x85R.", EITHER),
        "a fraction of nothing": (b"\x80\x04" + _stack_global("fractions", "Fraction") + text("1/0") + b"\x85R.", EITHER),
        "a path of a zero": (b"\x80\x04" + _stack_global("pathlib", "PosixPath") + text("a\0b") + b"\x85R.", EITHER),
        "a slice of lists": (b"\x80\x04" + _stack_global("builtins", "slice") + b"]]]\x87R.", EITHER),
        "a counter of a text": (b"\x80\x04" + _stack_global("collections", "Counter") + text("aab") + b"\x85R.", EITHER),
        "an ordered dict of numbers": (b"\x80\x04" + _stack_global("collections", "OrderedDict") + b"K\x01\x85R.", EITHER),
    }  # fmt: skip
    for name, (data, end) in cases.items():
        yield one(name, data, end, file="m.pkl")


def demands() -> Iterator[Case]:
    """100 KB that ask for much: laughs, keys that collide, deep nesting, shares."""
    if (module := builders("test_unpickle_hostile")) is not None:
        for name, make in module.DEMANDS.items():
            yield one(f"demand: {name}", make(100_000), EITHER, file="m.pkl")
            yield one(f"demand in a zip: {name}", _zip(make(20_000)), EITHER, file="m.pt")


def _zip(data: bytes) -> bytes:
    import attacks

    return attacks.zipped({"archive/data.pkl": data, "archive/version": b"3\n"}, deflate=True)
