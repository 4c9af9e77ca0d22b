"""Copies that did not come through: each is told by what it is, with what to do."""

import os
import pickle
import struct
import threading
from pathlib import Path
from typing import Final

import numpy as np
import pytest

import tensorkeep as tk

PARTIAL: Final = {
    "a pointer of Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 4300000000\n",
        r"Git LFS.*4\.3 GB[\s\S]*git lfs pull",
    ),
    "a page": (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "page of the web"),
    "a page behind a comment": (b"<!-- saved --><HTML lang=en>", "page of the web"),
    "an answer of a hub": (b"Entry not found", "server answered.*Entry not found"),
    "an answer of a bucket": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "server answered.*AccessDenied"),
    "an answer in JSON": (b'{"error": "Invalid token"}', "server answered.*Invalid token"),
    "space that was reserved": (bytes(10_000), "zeros"),
}


@pytest.mark.parametrize("what", PARTIAL)
def test_what_stands_in_the_place_of_a_file_is_told(what: str, tmp_path: Path) -> None:
    """By every verb, from a path and from memory, whatever the file is called."""
    data, sentence = PARTIAL[what]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    for act in (tk.load, tk.open, tk.show, tk.verify):
        with pytest.raises(tk.FormatError, match=sentence) as caught:
            act(path)
        assert caught.value.hint
    with pytest.raises(tk.FormatError, match=sentence):
        tk.loads(data)


def test_a_file_that_no_reader_knows_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    """Not as a safetensors file of astronomic size, unless it is called one or has a header's brace; an empty file as such."""
    for data, sentence in ((b'{"layers": []}', r"no format that tensorkeep reads: it begins with b'{\"layers"), (b"", "it is empty")):
        (tmp_path / "config.json").write_bytes(data)
        with pytest.raises(tk.FormatError, match=sentence):
            tk.show(tmp_path / "config.json")
    for name, data in (("model.safetensors", b"\xff" * 100), ("model", struct.pack("<Q", 5000) + b'{"w":')):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(tk.FormatError, match="no safetensors file"):
            tk.load(tmp_path / name)


def test_a_file_cut_short_tells_how_much_is_there(tmp_path: Path) -> None:
    """`0.3 of 1.0 MB`, as people think of downloads."""
    path = tmp_path / "model.safetensors"
    tk.save({"w": np.zeros(250_000, np.float32)}, path)
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(tk.FormatError, match=r"cut short.*0\.3 of 1\.0 MB"):
        tk.load(path)


def test_a_pickle_cut_short_says_so(tmp_path: Path) -> None:
    """Whatever it breaks off in: a frame, a text, an array."""
    data = pickle.dumps({"w": np.arange(40_000.0), "text": "x" * 100_000}, protocol=4)
    for stop in (20, len(data) // 2, len(data) - 50_000, len(data) - 1):
        (tmp_path / "cut.pkl").write_bytes(data[:stop])
        with pytest.raises(tk.FormatError, match="cut short"):
            tk.load(tmp_path / "cut.pkl")


def test_an_unfinished_download_is_told_by_its_name(tmp_path: Path) -> None:
    """As browsers and download tools name them, where its content says nothing."""
    path = tmp_path / "model.bin.crdownload"
    path.write_bytes(b"\x01\x02\x03 nothing that is known")
    with pytest.raises(tk.FormatError, match="not finished"):
        tk.load(path)


@pytest.mark.parametrize(("name", "sentence"), [("config.json", "without weights"), ("model.safetensors.incomplete", "not finished")])
def test_a_folder_without_its_weights_says_what_is_missing(name: str, sentence: str, tmp_path: Path) -> None:
    """A folder with only the small files of a model, or with a download that goes on."""
    (tmp_path / name).write_text("{}")
    with pytest.raises(tk.FormatError, match=sentence):
        tk.open(tmp_path)


def test_a_folder_that_is_no_model_is_no_file(tmp_path: Path) -> None:
    """An empty folder is Python's own error."""
    with pytest.raises(IsADirectoryError, match="holds no model"):
        tk.open(tmp_path)


def test_a_pipe_may_bring_any_format_with_a_mark(tmp_path: Path) -> None:
    """Its first bytes decide whether it is read to its end."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    empty = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)
    writer = threading.Thread(target=pipe.write_bytes, args=(empty,))
    writer.start()
    try:
        assert tk.load(pipe) == {}
    finally:
        writer.join()


def test_a_stream_without_an_end_is_refused_by_its_first_bytes() -> None:
    """/dev/zero and /dev/urandom never end; they are not read on."""
    for device in ("/dev/zero", "/dev/urandom"):
        with pytest.raises(tk.FormatError):
            tk.load(device)
