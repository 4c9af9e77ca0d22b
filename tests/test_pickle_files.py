"""Pickle files of all kinds: what their writers load comes back, without their code; what is hostile ends in an error."""

import gzip
import io
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

import tensorkeep as tk
from craft import soon
from same import assert_same_bits
from strategies import arrays
from tensorkeep.errors import TensorkeepError
from tensorkeep.tree import Stub
from tensorkeep.unpickle.look import looks_like_pickle

FINE = (TensorkeepError, OSError)

NETWORK = {
    "weights": [np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(12, dtype=np.float32).reshape(4, 3))],
    "biases": [np.zeros((0, 3)), np.array(2.5)],
    "big-endian": np.arange(5, dtype=">i4"),
    "complex": np.arange(4, dtype=">c16"),
    "texts": np.array(["a", "bcd"]),
    "times": np.array(["2020-01-01"], "M8[ns]"),
    "fields": np.zeros(2, [("a", "<f4"), ("b", ">i2", (2,))]),
    "large": np.arange(40_000, dtype=np.int16).reshape(200, 200),
    "epoch": 3,
    "names": ("x", b"y", None, 1.5),
}


def loaded(data: bytes) -> Any:
    return tk.load(io.BytesIO(data))


def samples() -> dict[str, bytes]:
    """A small file of each protocol."""
    return {f"protocol {number}": pickle.dumps({"w": np.arange(3), "o": [1, (2.5, "x")], "s": slice(1)}, number) for number in range(6)}


@pytest.mark.parametrize("protocol", range(6))
def test_a_network_in_plain_containers_comes_back(protocol: int) -> None:
    """`{'weights': [...], 'biases': [...]}` in every protocol, bit for bit; compressed too."""
    data = pickle.dumps(NETWORK, protocol)
    assert_same_bits(loaded(data), NETWORK)
    assert_same_bits(loaded(gzip.compress(data)), NETWORK)
    with tk.open(io.BytesIO(data)) as file:
        assert file.format == "pickle" and not file.left_out
        assert np.array_equal(file.tensors["large"][50:60], NETWORK["large"][50:60])  # type: ignore[index]  # an array


@settings(max_examples=60, deadline=None)
@given(arrays)
def test_any_array_comes_back(array: np.ndarray) -> None:
    """Whatever its type, its byte order and its memory."""
    for protocol in (0, 2, 5):
        first, again = loaded(pickle.dumps([array, array], protocol))
        assert first is again and first.shape == array.shape and first.tobytes() == array.astype(first.dtype).tobytes()
        assert first.dtype == array.dtype or first.dtype == array.dtype.newbyteorder("=")


def test_python_2_wrote_pickles_too() -> None:
    """`mnist.pkl`: protocol 2, texts that are bytes, the bytes of an array as such a text."""
    array = np.arange(6, dtype="<f4").reshape(2, 3)
    raw = array.tobytes()
    data = (
        b"\x80\x02}q\x00(U\x07weightsq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U\x01b\x87Rq\x04"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(raw)]) + raw + b"tbU\x05labelc__builtin__\nunicode\nX\x01\x00\x00\x00x\x85Ru."
    )
    assert_same_bits(loaded(data), {"weights": array, "label": "x"})


def test_python_2_wrote_large_arrays_into_one_line() -> None:
    """Its protocol 0, which it took where none was asked for: the bytes of an array as a text of its source."""
    array = np.random.default_rng(0).random((200, 300))
    data = (
        b"(dp0\nS'a'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\ntp6\nRp7\n(I1\n(I200\nI300\n"
        b"tp8\ncnumpy\ndtype\np9\n(S'f8'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\nS"
        + repr(array.tobytes())[1:].encode()
        + b"\np15\ntp16\nbs."
    )
    assert_same_bits(loaded(data), {"a": array})


def test_several_pickles_in_one_file_are_a_list() -> None:
    """`pickle.dump` may be called again and again on one file; what stands behind the last one is told."""
    data = b"".join(pickle.dumps(value, protocol) for value, protocol in (({"a": np.ones(3)}, 4), ([1], 0), ("x" * 70_000, 2)))
    with tk.open(io.BytesIO(data)) as file:
        assert len(file.tree) == 3 and file.tree[1] == [1] and list(file.tensors) == ["0.a"] and not file.left_out
    with tk.open(io.BytesIO(data + b"more")) as file:
        assert len(file.tree) == 3 and "4 bytes behind" in file.left_out[0]


def test_an_object_is_a_stub_with_its_arrays() -> None:
    """Nothing of it is made; its attributes are there by name."""
    data = b"\x80\x04\x8c\x06nobody\x8c\x05Model\x93)\x81}(\x8c\x01w" + pickle.dumps(np.arange(3), 4)[2:-1] + b"\x8c\x01nK\x05ub."
    with tk.open(io.BytesIO(data)) as file:
        assert isinstance(file.tree, Stub) and (file.tree.module, file.tree.name) == ("nobody", "Model")
        assert file.tree["n"] == 5 and file.tensors["w"].numpy().tolist() == [0, 1, 2]


def test_two_places_of_one_array_are_tied() -> None:
    """As they are when pickle loads them."""
    array = np.arange(5)
    tree = loaded(pickle.dumps({"a": array, "b": [array]}, 4))
    assert tree["a"] is tree["b"][0]


def test_what_begins_like_a_pickle_and_is_none_is_not_taken_for_one() -> None:
    """Texts, of which many begin with a letter that is an opcode."""
    texts = [
        b"Git v1.7.0.6 Release Notes\n====\n. and more text that follows here",
        b"CMP0046\n-------\n\nError on non-existent dependency in add_dependencies.\n",
        b"(a) first, (b) second, and so on.\n" * 100,
        b"I am a text.\n" * 50,
        b"cat\ndog\nbird\n" * 50,
        b"]}{[()]}.",
        b"N",
        b"",
        b"]",
        b"(lp0",
        b"import os\nos.system('x')\n",
        b"100 5\n0.1 0.2 0.3\n",
    ]
    for text in texts:
        assert not looks_like_pickle(text, whole=True), text
    for value in (None, 1, "x", [], {}, [1, 2, {"a": (1,)}], {"w": np.ones(9)}, {"a": "x" * 9000}, 10**3000, b"x" * 9000, "a\nb\\c"):
        for protocol in range(6):
            data = pickle.dumps(value, protocol)
            assert looks_like_pickle(data[:4096], whole=len(data) <= 4096), (value, protocol)


@pytest.mark.parametrize("data", samples().values(), ids=samples())
def test_every_truncation_and_every_changed_byte_is_read_or_refused(data: bytes) -> None:
    """No other error, whatever was cut off or changed."""
    broken = [data[:stop] for stop in range(1, len(data))]
    broken += [data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :] for at in range(len(data)) for flip in (0x01, 0x80, 0xFF)]
    for source in broken:
        try:
            with tk.open(io.BytesIO(source)) as file:
                for tensor in file.tensors.values():
                    tensor.tobytes()
            tk.show(io.BytesIO(source))
        except FINE:
            pass


# joblib


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3), ("lz4", 3)], ids=str)
def test_joblib_files_come_back(compress: Any, tmp_path: Path) -> None:
    """Every compression, every order of bytes and axes, and an array of objects among the others."""
    joblib = pytest.importorskip("joblib")
    if compress and compress[0] == "lz4" if isinstance(compress, tuple) else False:
        pytest.importorskip("lz4")
    file = tmp_path / "network"
    objects = np.array([np.arange(3), {"a": np.ones(2)}, "x"], dtype=object)
    joblib.dump(NETWORK | {"objects": objects, "after": np.arange(7)}, file, compress=compress)
    tree = tk.load(file)
    found = tree.pop("objects")
    assert_same_bits(tree, NETWORK | {"after": np.arange(7)})
    assert_same_bits(found, [np.arange(3), {"a": np.ones(2)}, "x"])
    with tk.open(file) as contents:
        assert contents.format.startswith("joblib pickle") and not contents.left_out


def test_joblib_arrays_are_not_read_before_they_are_touched() -> None:
    """Where they are not compressed, a part of one is read alone."""
    joblib = pytest.importorskip("joblib")
    import tracemalloc

    array = np.zeros((3000, 1000))
    written = io.BytesIO()
    joblib.dump({"a": array, "b": array.T}, written)
    written.seek(0)
    data = io.BytesIO(written.getvalue())
    tracemalloc.start()
    with tk.open(data) as file:
        assert file.tensors["a"][5:7].shape == (2, 1000)
        assert tracemalloc.get_traced_memory()[1] < written.getbuffer().nbytes + (4 << 20)  # what the stream gives, and little else
    tracemalloc.stop()


def wrapper(state: bytes, name: str = "NumpyArrayWrapper") -> bytes:
    """A pickle of protocol 3 that holds one of joblib's wrappers."""
    return b"\x80\x03cjoblib.numpy_pickle\n" + name.encode() + b"\n)\x81}(" + state + b"ub"


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def inline(shape: bytes = b"K\x03\x85", dtype: str = "u1", order: str = "C", more: bytes = b"") -> bytes:
    kind = b"cnumpy\ndtype\n" + text(dtype) + b"K\x00K\x01\x87R"
    return wrapper(text("shape") + shape + text("dtype") + kind + text("order") + text(order) + more)


@pytest.mark.parametrize(
    "data",
    [
        inline() + b"\1\2",
        inline(b"K\xff\x85") + b"\1\2\3.",
        inline(b"J\xff\xff\xff\xff\x85") + b"\1\2\3.",
        inline(b"I1\n\x85") + b"\1\2\3.",
        inline(b"K\x03") + b"\1\2\3.",
        inline(b"(" + b"K\x00" * 65 + b"t") + b".",
        inline(b"\x8a\x09" + b"\xff" * 8 + b"\0\x85") + b".",
        inline(dtype="O") + b"\x80\x03cnobody\ncalls\n.",
        inline(dtype="O") + b"no pickle.",
        inline(order="X") + b"\1\2\3.",
        inline(more=text("numpy_array_alignment_bytes") + b"K\x10") + b"\xff\1\2\3.",
        wrapper(b"") + b"\1\2\3.",
        b"\x80\x03cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81Nb.",
        b"\x80\x03cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81.",
        wrapper(text("filename") + text("../../etc/passwd"), "NDArrayWrapper") + b".",
        wrapper(text("filename") + text("/etc/passwd"), "NDArrayWrapper") + b".",
        wrapper(text("filename") + b"N", "NDArrayWrapper") + b".",
        wrapper(text("filename") + text("x.z") + text("state") + b"N", "ZNDArrayWrapper") + b".",
    ],
)
def test_a_hostile_wrapper_is_refused(data: bytes, tmp_path: Path) -> None:
    """Lengths beyond the file, shapes that are none, names that lead elsewhere."""
    (tmp_path / "x").write_bytes(data)
    with soon(1.0), pytest.raises(TensorkeepError):
        tk.load(tmp_path / "x")


def test_wrappers_of_object_arrays_are_not_followed_without_end() -> None:
    """The pickle of an array of objects is a plain one, as joblib itself reads it: wrappers in it stay inert."""
    data = inline(dtype="O") * 5000 + b"N."
    with soon(2.0), pytest.raises(TensorkeepError):
        tk.open(io.BytesIO(data))


def test_arrays_of_an_old_joblib_lie_beside_it(tmp_path: Path) -> None:
    """Before 0.10 the wrapper names a file; one that is missing is told, and the rest is read."""
    np.save(tmp_path / "model.pkl_01.npy", np.arange(4))
    names = ["model.pkl_01.npy", "model.pkl_02.npy"]
    both = b"".join(wrapper(text("filename") + text(name), "NDArrayWrapper")[2:] for name in names)
    (tmp_path / "model.pkl").write_bytes(b"\x80\x03(" + both + b"t.")
    with tk.open(tmp_path / "model.pkl") as file:
        assert file.tensors["0"].numpy().tolist() == [0, 1, 2, 3]
        assert isinstance(file.tree[1], Stub) and "model.pkl_02.npy" in file.left_out[0]
    os.symlink(tmp_path / "model.pkl_01.npy", tmp_path / "model.pkl_02.npy")
    with pytest.raises(tk.FormatError, match="link"):
        tk.open(tmp_path / "model.pkl")


def test_compressed_files_of_an_old_joblib_are_read(tmp_path: Path) -> None:
    """A head of joblib's own before zlib, in both widths; and compressed arrays beside it."""
    import zlib

    def zfile(data: bytes, space: bytes = b"") -> bytes:
        return b"ZF" + hex(len(data)).encode().ljust(19) + space + zlib.compress(data)

    data = pickle.dumps({"w": np.arange(3)}, 2)
    for space in (b"", b" "):
        assert_same_bits(loaded(zfile(data, space)), {"w": np.arange(3)})
    with pytest.raises(tk.FormatError):
        loaded(b"ZF" + b"0xffffffffff".ljust(19) + zlib.compress(data))
    kind = b"cnumpy\ndtype\n" + text("<i4") + b"K\x00K\x01\x87R"
    state = text("filename") + text("m_01.npy.z") + text("state") + b"(K\x01K\x02K\x02\x86" + kind + b"\x88t"
    (tmp_path / "m").write_bytes(zfile(wrapper(state, "ZNDArrayWrapper") + b"."))
    (tmp_path / "m_01.npy.z").write_bytes(zfile(np.arange(4, dtype="<i4").tobytes()))
    assert np.array_equal(tk.load(tmp_path / "m"), np.arange(4, dtype="<i4").reshape(2, 2).T)
    (tmp_path / "m_01.npy.z").write_bytes(zfile(bytes(15)))
    with pytest.raises(tk.FormatError):
        tk.load(tmp_path / "m")


# gensim


def gensim_model(fields: dict[str, object], module: str = "gensim.models.word2vec", name: str = "Word2Vec") -> bytes:
    inside = b"".join(text(key) + pickle.dumps(value, 2)[2:-1] for key, value in fields.items())
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b")\x81}(" + inside + b"ub."


def test_arrays_of_a_gensim_model_stand_at_their_attributes(tmp_path: Path) -> None:
    """Those in files beside it, of the model and of an object inside; a sparse matrix; one that is missing is told."""
    wv = gensim_model({"__numpys": ["vectors"], "vectors": None, "size": 3}, name="KeyedVectors")[2:-1]
    fields = {"__numpys": ["syn0", "gone"], "__scipys": ["dense2"], "__recursive_saveloads": ["wv"], "syn0": None, "dense2": None}
    model = gensim_model(fields)[:-3] + text("wv") + wv + b"ub."
    (tmp_path / "model").write_bytes(model)
    (tmp_path / "model.dense2.npy").write_bytes(gensim_model({"_shape": (2, 2)}, "scipy.sparse.csr", "csr_matrix"))
    np.save(tmp_path / "model.syn0.npy", np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "model.wv.vectors.npy", np.ones((2, 2)))
    for part in ("data", "indices", "indptr"):
        np.save(tmp_path / f"model.dense2.{part}.npy", np.arange(2))
    with tk.open(tmp_path / "model") as file:
        assert file.format == "gensim model (pickle)"
        assert sorted(file.tensors) == ["dense2.data", "dense2.indices", "dense2.indptr", "syn0", "wv.vectors"]
        assert file.tensors["syn0"].numpy().tolist() == [[0, 1, 2], [3, 4, 5]] and "model.gone.npy" in file.left_out[0]
    with tk.open(io.BytesIO(model)) as file:
        assert not file.tensors and len(file.left_out) == 4


def test_a_gensim_model_names_no_file_elsewhere(tmp_path: Path) -> None:
    """An attribute's name that leads out of the folder is refused."""
    (tmp_path / "model").write_bytes(gensim_model({"__numpys": ["x/../../../secret"], "n": 1}))
    with pytest.raises(tk.FormatError, match="no plain name"):
        tk.open(tmp_path / "model")


# Paddle


def test_paddle_parameters_that_were_cut_are_put_together() -> None:
    """Protocols 2 and 3 cut them; the names that Paddle uses inside are metadata, and no tensors."""
    array = np.arange(24, dtype=np.float32).reshape(4, 6)
    state = {
        "weight@@.0": array.reshape(-1)[:10],
        "weight@@.1": array.reshape(-1)[10:],
        "bias": np.ones(2),
        "UnpackBigParamInfor@@": {"weight": {"OriginShape": (4, 6), "slices": ["weight@@.0", "weight@@.1"]}},
        "StructuredToParameterName@@": {"weight": "linear_0.w_0", "bias": "linear_0.b_0"},
    }
    with tk.open(io.BytesIO(pickle.dumps(state, 2))) as file:
        assert sorted(file.tensors) == ["bias", "weight"] and file.metadata["names"]["bias"] == "linear_0.b_0"
        assert np.array_equal(file.tensors["weight"].numpy(), array) and np.array_equal(file.tensors["weight"][1:3], array[1:3])
    for said in ({"OriginShape": (4, 7)}, {"OriginShape": None}, {"slices": ["gone"]}, {"slices": []}):
        broken = state | {"UnpackBigParamInfor@@": {"weight": state["UnpackBigParamInfor@@"]["weight"] | said}}  # type: ignore[index,operator]  # a dict
        with pytest.raises(tk.FormatError, match="weight"):
            loaded(pickle.dumps(broken, 2))


class PaddleTensor:
    """Pickles itself as Paddle has its tensors pickled."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self.named = (name, array)

    def __reduce__(self) -> Any:
        return tuple, (self.named,)


@pytest.mark.parametrize("protocol", [2, 4])
def test_paddle_tensors_in_other_states_are_their_arrays(protocol: int) -> None:
    """`paddle.save({"model": ..., "epoch": 3})`; a tuple of a name and an array that is one stays one."""
    array = np.arange(3.0)
    state = {"model": {"weight": PaddleTensor("linear_0.w_0", array)}, "pair": ("x", array), "epoch": 3}
    with tk.open(io.BytesIO(pickle.dumps(state, protocol))) as file:
        assert file.format.startswith("Paddle") and file.tree["epoch"] == 3
        assert file.tree["model"]["weight"] is file.tree["pair"][1] and file.tensors["model.weight"].numpy().tolist() == [0, 1, 2]


# scikit-learn


def arrays_in(obj: Any, path: str = "", seen: tuple[int, ...] = ()) -> dict[str, np.ndarray]:
    """Every array of an estimator, by the attributes that lead to it."""
    if isinstance(obj, np.ndarray):
        return {path: obj} if obj.dtype != object else {}
    if id(obj) in seen:
        return {}
    inside: dict[Any, Any] = {}
    if isinstance(obj, dict):
        inside = obj
    elif isinstance(obj, (list, tuple)):
        inside = dict(enumerate(obj))
    elif type(obj).__module__.startswith("sklearn") and not isinstance(obj, type):
        state = obj.__getstate__() if hasattr(obj, "__getstate__") else vars(obj)
        inside = state if isinstance(state, dict) else {}
    found: dict[str, np.ndarray] = {}
    for key, value in inside.items():
        found |= arrays_in(value, f"{path}.{key}" if path else str(key), (*seen, id(obj)))
    return found


@pytest.fixture(scope="module")
def estimators() -> dict[str, Any]:
    pytest.importorskip("sklearn")
    from sklearn.ensemble import RandomForestClassifier  # type: ignore[import-untyped]  # it has no types
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # it has no types
    from sklearn.neural_network import MLPClassifier  # type: ignore[import-untyped]  # it has no types
    from sklearn.pipeline import make_pipeline  # type: ignore[import-untyped]  # it has no types
    from sklearn.preprocessing import StandardScaler  # type: ignore[import-untyped]  # it has no types

    X = np.random.default_rng(0).random((40, 3))
    y = (X[:, 0] > 0.5).astype(int)
    return {
        "pipeline": make_pipeline(StandardScaler(), MLPClassifier((4,), max_iter=3)).fit(X, y),
        "forest": RandomForestClassifier(2).fit(X, y),
        "regression": LogisticRegression().fit(X, y),
    }


WAYS: dict[str, Callable[[Any], bytes]] = {
    "pickle 0": lambda model: pickle.dumps(model, 0),
    "pickle 2": lambda model: pickle.dumps(model, 2),
    "pickle 5": lambda model: pickle.dumps(model, 5),
    "joblib": lambda model: _written("joblib", model),
    "skops": lambda model: _written("skops.io", model),
}


def _written(module: str, model: Any) -> bytes:
    file = io.BytesIO()
    pytest.importorskip(module).dump(model, file)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["pipeline", "forest", "regression"])
def test_arrays_of_an_estimator_stand_at_its_attributes(name: str, way: str, estimators: dict[str, Any]) -> None:
    """Those of a genuine one, by name and bit for bit, in whatever way it was written; itself it stays a stub."""
    model = estimators[name]
    with tk.open(io.BytesIO(WAYS[way](model))) as file:
        assert isinstance(file.tree, Stub) and file.tree.name == type(model).__name__
        for path, array in arrays_in(model).items():
            found = file.tensors[path].numpy()
            assert found.dtype == array.dtype and np.array_equal(found, array), path
        tk.show(io.BytesIO(WAYS[way](model)))


def test_a_stub_is_not_saved_as_if_it_were_the_object() -> None:
    """The error names the class, and what to save instead."""
    with pytest.raises(tk.UnsupportedError, match=r"net: a stub of torch\.nn\.Linear.*`fields`"):
        tk.dumps({"net": tk.Stub("torch.nn", "Linear", {"weight": np.ones(2)})})


def test_opcodes_that_inflate_are_counted(tmp_path: Path) -> None:
    """Some kilobytes may hold hours of them, of which none makes anything. Those of a genuine pickle, however well it packs, are read."""
    path = tmp_path / "a.pkl.gz"
    path.write_bytes(gzip.compress(b"\x80\x04" + b"N0" * (8 << 20) + b"N."))
    with soon(8.0), pytest.raises(tk.FormatError, match=r"opcodes in pickles that inflate[\s\S]*expanded_bytes"):
        tk.load(path)
    path.write_bytes(gzip.compress(pickle.dumps([1.5] * 1_000_000), 1))
    assert tk.load(path) == [1.5] * 1_000_000
