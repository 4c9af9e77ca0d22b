"""verify: damage anywhere is found, and named."""

import random
from pathlib import Path

import numpy as np
import pytest

import tensorkeep as tk
from craft import model_file, safetensors

STATE = {"net": {"large": np.arange(200_000.0), "small": np.ones(3), "odd": np.ones(3, np.int8)}, "epoch": 3, "text": "x" * 70_000}


def test_any_single_flipped_bit_is_found(tmp_path: Path) -> None:
    """1,000 flipped bits anywhere in a file, header and padding included, are all found; none loads as if it were whole."""
    data = tk.dumps(STATE)
    start = 8 + int.from_bytes(data[:8], "little")
    rng = random.Random(20261124)
    places = [rng.randrange(start * 8) for _ in range(600)] + [rng.randrange(start * 8, len(data) * 8) for _ in range(400)]
    path = tmp_path / "flipped.safetensors"
    for place in places:
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = not tk.verify(path).intact
        except tk.FormatError:
            found = True
        assert found, f"bit {place}"
        if place >= start * 8:
            with pytest.raises(tk.CorruptError):
                tk.load(path)


def test_a_flipped_bit_in_the_key_of_the_document_is_damage(tmp_path: Path) -> None:
    """No flip makes a model file one by others, whose tensors nobody checks: not in a verdict, and not when it is loaded."""
    data = tk.dumps(STATE, metadata={"note": '{"version":"of mine"}'})
    at = data.index(b'"tensorkeep":') + 1
    path = tmp_path / "flipped.safetensors"
    for place in range(at * 8, (at + len("tensorkeep")) * 8):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            verdict = tk.verify(path)
        except tk.FormatError:  # no JSON any more, or no UTF-8
            pass
        else:
            assert [damage.path for damage in verdict.damaged] == ["(header)"], f"bit {place}"
        with pytest.raises((tk.CorruptError, tk.FormatError)):
            tk.load(path)


def test_damage_is_named_to_the_tensor_and_the_bytes(tmp_path: Path) -> None:
    """The verdict and the error name the tensor and the chunk; the rest can still be loaded."""
    data = bytearray(tk.dumps(STATE))
    start = 8 + int.from_bytes(data[:8], "little")
    data[start + 1_100_000] ^= 1  # in the second chunk of `large`
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data)
    verdict = tk.verify(path)
    assert not verdict.intact
    assert [damage.path for damage in verdict.damaged] == ["net.large"]
    assert (verdict.damaged[0].start, verdict.damaged[0].stop) == (start + (1 << 20), start + 1_600_000)
    with pytest.raises(tk.CorruptError, match=r"net\.large") as caught:
        tk.load(path)
    assert caught.value.span == (start + (1 << 20), start + 1_600_000)
    assert tk.load(path, only="net.small")["net"]["small"].tolist() == [1, 1, 1]
    assert tk.load(path, verify=False)["epoch"] == 3


def test_a_damaged_file_changes_nothing_of_the_target(tmp_path: Path) -> None:
    """Digests are checked before the first byte is changed."""
    data = bytearray(tk.dumps(STATE))
    data[-1] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(data)
    target = {"net": {"large": np.zeros(200_000), "small": np.zeros(3), "odd": np.zeros(3, np.int8)}}
    with pytest.raises(tk.CorruptError):
        tk.load(tmp_path / "damaged.safetensors", into=target)
    assert not any(array.any() for array in target["net"].values())


def test_a_file_without_digests_is_unverified_and_not_intact(tmp_path: Path) -> None:
    """Where there is nothing to check against, the verdict says so."""
    (tmp_path / "plain.safetensors").write_bytes(safetensors({"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}, b"x"))
    verdict = tk.verify(tmp_path / "plain.safetensors")
    assert (verdict.intact, verdict.unverified, verdict.damaged) == (False, True, ())


def test_the_root_is_the_identity_of_the_file(tmp_path: Path) -> None:
    """Equal states have equal roots, another bit gives another root."""
    roots = []
    for number, state in enumerate([STATE, STATE, {**STATE, "epoch": 4}]):
        tk.save(state, tmp_path / f"{number}.safetensors")
        roots.append(tk.verify(tmp_path / f"{number}.safetensors").root)
    assert roots[0] == roots[1] != roots[2]


ONE = {"w": ("U8", [3], b"abc")}
TREE = {"dict": ["w"]}


def test_the_crafted_file_is_the_one_we_write() -> None:
    """The second implementation of the frame makes files that are read; so its broken ones are refused for what is broken."""
    assert tk.loads(model_file(TREE, ONE))["w"].tobytes() == b"abc"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": "2.0", "writer": "tensorkeep 3.1"}, "tensorkeep>=3.1"),
        ({"version": "2.0", "writer": "evil; rm -rf /"}, "-U tensorkeep"),
        ({"version": None}, "laid out"),
        ({"version": 1}, "laid out"),
        ({"digests": "AAAA"}, "digests"),
        ({"digests": "!"}, "base64"),
        ({"digests": None}, "laid out"),
        ({"versions": {"torch": 2}}, "laid out"),
        ({"versions": {"torch": "2" * 10_000}}, "laid out"),
        ({"versions": {f"package-{number}": "2" for number in range(1000)}}, "laid out"),
    ],
)
def test_a_broken_document_is_refused(changes: dict[str, object], sentence: str) -> None:
    """Unknown versions name the release to install; fields that are missing or wrong are refused."""
    with pytest.raises(tk.FormatError, match=sentence) as caught:
        tk.loads(model_file(TREE, ONE, **changes))
    assert sentence != "laid out" or "another copy" in caught.value.hint


@pytest.mark.parametrize("root", ["0" * 64, "f" * 64, "F" * 64, "", "abc", "é" * 32])
def test_a_wrong_root_is_damage_of_the_header(root: str) -> None:
    """The header's own digest is compared before anything in it is believed."""
    with pytest.raises(tk.CorruptError, match="header"):
        tk.loads(model_file(TREE, ONE, root=root))


def test_a_reader_takes_what_the_format_lets_it_take() -> None:
    """Bare whole numbers up to 2^53, keys behind the first in any order, and `-0.0` with its sign; other spellings are refused."""
    assert tk.loads(model_file([2**53, -(2**53)], {})) == [2**53, -(2**53)]
    with pytest.raises(tk.FormatError, match=r"beyond 2\^53"):
        tk.loads(model_file([2**53 + 1], {}))
    assert tk.loads(model_file({"dict": [["w", {"dtype": "I8", "tensor": "w"}]]}, {"w": ("I8", [3], b"abc")}))["w"].tobytes() == b"abc"
    assert np.signbit(tk.loads(model_file({"float": -0.0}, {})))
    packed = {"w": ("U8", [2, 16], np.array([1j, 2]).tobytes())}
    assert tk.loads(model_file({"packed": "list", "dtype": "C128", "tensor": "w"}, packed)) == [1j, 2]
    with pytest.raises(tk.FormatError, match="base64"):
        tk.loads(model_file({"bytes": "-_-_"}, {}))


def test_unknown_fields_are_ignored_and_repeated_ones_refused() -> None:
    """A newer minor version may add fields; no key may occur twice."""
    assert tk.loads(model_file(TREE, ONE, version="1.7", statistics={"new": [1]}))["w"].tobytes() == b"abc"
    data = model_file({"dict": [["a", {"float": 0.5}]]}, {}, root="0" * 64)
    from blake3 import blake3

    twice = data.replace(rb"{\"float\":0.5}", rb"{\"float\":1.0,\"float\":0.5}")
    length = int.from_bytes(twice[:8], "little") + len(twice) - len(data)
    head = length.to_bytes(8, "little") + twice[8:]
    head = head.replace(b"0" * 64, blake3(head).hexdigest().encode(), 1)
    with pytest.raises(tk.FormatError, match="twice"):
        tk.loads(head)
