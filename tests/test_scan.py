"""Scan: every attack is found, ordinary models are clean, what cannot be read is never clean, and nothing is run."""

import gzip
import importlib.util
import io
import json
import os
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import attacks
import tensorkeep as tk
from craft import soon
from tensorkeep.cli import cli
from tensorkeep.contents import Finding
from tensorkeep.formats import table

REAL = Path(os.environ["TENSORKEEP_REAL_FILES"]) if os.environ.get("TENSORKEEP_REAL_FILES") else None

ODD = {
    # It holds a graph of torch.fx, whose Python code PyTorch runs when it loads the file, and classes of onnx2torch.
    "full_hc_PXD005573_pub_8c22d89667368f2f02ad996469ba157e.pt",
    "corrupted_zlib_data.mat",
}

_watched: list[str] | None = None


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event == "exec" and "encodings" in Path(arguments[0].co_filename).parts:
        return  # one of Python's own codecs, at its first use
    if event in (
        "exec",
        "compile",
        "os.system",
        "os.exec",
        "os.fork",
        "os.posix_spawn",
        "subprocess.Popen",
        "socket.connect",
        "socket.getaddrinfo",
    ) or event in (
        "os.remove",
        "os.rename",
        "os.mkdir",
        "os.rmdir",
        "os.symlink",
        "os.link",
        "os.truncate",
        "shutil.copyfile",
        "ctypes.dlopen",
    ):
        _watched.append(f"{event} {arguments!r:.200}")
    elif event == "import" and arguments[0].partition(".")[0] not in ("tensorkeep", "encodings", "compression", "backports"):
        _watched.append(f"{event} {arguments[0]}")
    elif event == "pickle.find_class" or (event == "open" and _writes(arguments)):
        _watched.append(f"{event} {arguments!r:.200}")


def _writes(arguments: tuple[Any, ...]) -> bool:
    _, mode, flags = arguments
    return bool(
        (isinstance(mode, str) and set(mode) & set("wax+")) or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    )


for row in table.ROWS:  # what is imported on first use is none of a file's doing
    table.reader(*row[:2])
sys.addaudithook(_hook)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fails if anything is imported, run, or opened for writing."""
    global _watched
    seen: list[str] = []
    _watched = seen
    try:
        yield
    finally:
        _watched = None
    assert not seen, seen


@pytest.fixture(scope="module", autouse=True)
def everything_is_imported() -> None:
    """What a scan imports of tensorkeep is there before anybody watches."""
    tk.scan(io.BytesIO(attacks.gguf("x")))


def written(folder: Path, file: tuple[str, Any]) -> Path:
    name, make = file
    path = folder / name
    path.write_bytes(make())
    return path


@pytest.mark.parametrize("attack", attacks.DANGEROUS)
def test_every_attack_is_called_dangerous(attack: str, tmp_path: Path) -> None:
    """Whatever the format, the name and the disguise; and nothing is run on the way."""
    path = written(tmp_path, attacks.DANGEROUS[attack])
    with nothing_runs():
        scan = tk.scan(path)
    assert "dangerous" in {finding.severity for finding in scan.findings}, (scan.findings, scan.incomplete)
    assert not scan.clean
    assert all(finding.rule and finding.what for finding in scan.findings)


@pytest.mark.parametrize("file", attacks.UNKNOWN)
def test_what_nobody_knows_is_a_finding(file: str, tmp_path: Path) -> None:
    """Unknown classes, operators and archives are told, and not called dangerous."""
    path = written(tmp_path, attacks.UNKNOWN[file])
    with nothing_runs():
        scan = tk.scan(path)
    assert {finding.severity for finding in scan.findings} == {"unknown"}


@pytest.mark.parametrize("file", attacks.UNREAD)
def test_what_cannot_be_read_to_its_end_is_never_clean(file: str, tmp_path: Path) -> None:
    """It is incomplete, with a reason."""
    path = written(tmp_path, attacks.UNREAD[file])
    with nothing_runs():
        scan = tk.scan(path)
    assert not scan.complete and not scan.clean
    assert all(scan.incomplete)


@pytest.mark.parametrize("file", attacks.HARMLESS)
def test_ordinary_files_give_no_alarm(file: str, tmp_path: Path) -> None:
    """Clean, and complete."""
    path = written(tmp_path, attacks.HARMLESS[file])
    with nothing_runs():
        scan = tk.scan(path)
    assert scan.clean, (scan.findings, scan.incomplete)


@pytest.mark.skipif(REAL is None, reason="TENSORKEEP_REAL_FILES is not set")
def test_real_models_give_no_alarm() -> None:
    """Every file of others: clean, but for the one that does run code, and one that is cut."""
    assert REAL is not None
    alarms = {}
    for path in sorted(REAL.rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name not in ODD:
            scan = tk.scan(path)
            if not scan.clean:
                alarms[str(path.relative_to(REAL))] = [finding.what for finding in scan.findings] + list(scan.incomplete)
    assert alarms == {}


@pytest.mark.skipif(REAL is None, reason="TENSORKEEP_REAL_FILES is not set")
def test_a_graph_of_torch_fx_runs_code_and_is_told() -> None:
    """PyTorch compiles and runs the Python text in it: no pickle scanner that only knows `os.system` sees that."""
    assert REAL is not None
    (path,) = (path for path in REAL.rglob("*.pt") if path.name in ODD)
    assert any("reduce_graph_module" in finding.what for finding in tk.scan(path).findings)


def test_models_of_scikit_learn_give_no_alarm() -> None:
    """A fitted or unfitted estimator of every class, in any protocol."""
    pytest.importorskip("sklearn")
    from sklearn.utils import all_estimators

    for name, cls in all_estimators():
        try:
            data = pickle.dumps(cls(), 2 + len(name) % 4)
        except TypeError:
            continue  # needs another estimator
        assert tk.scan(io.BytesIO(data)).clean, (name, tk.scan(io.BytesIO(data)).findings)


def test_fitted_models_give_no_alarm() -> None:
    """Trees, neighbours, kernels, boosting, text: with all that they hold inside."""
    pytest.importorskip("sklearn")
    from sklearn import (
        cluster,
        ensemble,
        feature_extraction,
        gaussian_process,
        linear_model,
        neighbors,
        neural_network,
        pipeline,
        preprocessing,
        svm,
        tree,
    )

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), np.arange(40) % 2
    models = [
        *(tree.DecisionTreeClassifier(), ensemble.RandomForestClassifier(3), ensemble.GradientBoostingClassifier(n_estimators=3)),
        *(
            ensemble.HistGradientBoostingClassifier(max_iter=3),
            neighbors.KNeighborsClassifier(algorithm="kd_tree"),
            svm.SVC(probability=False),
        ),
        *(neighbors.KNeighborsClassifier(algorithm="ball_tree"), linear_model.SGDClassifier(), linear_model.LogisticRegression()),
        *(cluster.KMeans(2, n_init=1), gaussian_process.GaussianProcessClassifier(), neural_network.MLPClassifier((4,), max_iter=5)),
        *(ensemble.IsolationForest(n_estimators=5), preprocessing.FunctionTransformer(np.log1p), preprocessing.SplineTransformer()),
        *(linear_model.PoissonRegressor(), pipeline.make_pipeline(preprocessing.StandardScaler(), svm.LinearSVC())),
    ]
    for model in models:
        with np.errstate(all="ignore"):
            fitted = model.fit(x, y)
        for protocol in (2, 4, 5):
            scan = tk.scan(io.BytesIO(pickle.dumps(fitted, protocol)))
            assert scan.clean, (model, scan.findings)
    texts = feature_extraction.text.TfidfVectorizer().fit(["red green blue", "green blue grey"] * 3)
    assert tk.scan(io.BytesIO(pickle.dumps(texts))).clean


def test_joblib_files_give_no_alarm(tmp_path: Path) -> None:
    """Arrays in the middle of the pickle, of numbers and of objects, in every compression."""
    joblib = pytest.importorskip("joblib")
    state = {
        "w": np.arange(1000.0),
        "o": np.array([{"a": 1}, None, "x"], object),
        "s": np.array(["ab", "c"]),
        "e": np.zeros((0, 3)),
        "last": [1],
    }
    compressions = [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)]
    if importlib.util.find_spec("lz4") is not None:
        compressions.append(("lz4", 3))
    for number, compress in enumerate(compressions):
        path = tmp_path / f"{number}.joblib"
        joblib.dump(state, path, compress=compress)
        scan = tk.scan(path)
        assert scan.clean, (compress, scan.findings, scan.incomplete)


def test_models_of_pytorch_give_no_alarm(tmp_path: Path) -> None:
    """State dicts, whole modules and optimizers, by both of its writers; and scripted ones."""
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.LSTM(4, 4), torch.nn.Transformer(8, 2, 1, 1, 8)
    )
    opt = torch.optim.AdamW(net.parameters())
    states = [net.state_dict(), net, {"opt": opt.state_dict(), "whole": opt, "sched": torch.optim.lr_scheduler.StepLR(opt, 3)}]
    for number, state in enumerate(states):
        for new in (True, False):
            path = tmp_path / f"{number}{new}.pt"
            torch.save(state, path, _use_new_zipfile_serialization=new)
            scan = tk.scan(path)
            assert scan.clean, (number, new, scan.findings, scan.incomplete)
    data = pickle.dumps({"tensor": torch.arange(6.0)})  # calls torch.storage._load_from_bytes: what it would load is looked at
    assert tk.scan(io.BytesIO(data)).clean
    path = tmp_path / "script.pt"
    torch.jit.save(torch.jit.script(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())), path)
    assert tk.scan(path).clean


def test_arrays_give_no_alarm(tmp_path: Path) -> None:
    """Of any type, with objects of plain values, compressed or not."""
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(10), o=np.array([{"a": (1, 2)}, "x"], object), r=np.zeros(2, "f4,i8"))
    np.save(tmp_path / "b.npy", np.array([1, "x", None], object))
    pickled = pickle.dumps(
        {
            "m": np.ma.masked_array([1, 2], [True, False]),
            "rng": np.random.default_rng(3),
            "old": np.random.RandomState(3),
            "s": np.float32(2),
            "d": OrderedDict(a=1),
        }
    )
    assert tk.scan(tmp_path).clean, tk.scan(tmp_path).findings
    assert tk.scan(io.BytesIO(pickled)).clean, tk.scan(io.BytesIO(pickled)).findings


def test_a_file_of_ours_is_clean(tmp_path: Path) -> None:
    """What save writes has nothing to find."""
    tk.save({"w": np.ones(3), "text": "import os; os.system('true')" * 10_000, "blob": attacks.CALL4}, tmp_path / "m.safetensors")
    assert tk.scan(tmp_path / "m.safetensors").clean


def test_a_model_file_with_another_structure_is_never_clean() -> None:
    """Neither where it breaks the format, nor where it is another than was written; and code in its metadata is told."""
    raw = tk.dumps({"w": np.ones(3), "epoch": 3})
    for find, put in ((b"epoch", b"epock"), (b'\\"dict\\"', b'\\"dick\\"')):
        assert raw.count(find) == 1
        scan = tk.scan(io.BytesIO(raw.replace(find, put)))
        assert not scan.complete and not scan.findings
    told = tk.dumps({"w": np.ones(3)}, metadata={"hooks": ["import os; os.getcwd()"]})
    assert {finding.severity for finding in tk.scan(io.BytesIO(told)).findings} == {"unknown"}


def test_a_folder_is_walked_and_links_are_told(tmp_path: Path) -> None:
    """Every file, below folders too; a link out is a finding and is not followed; sources count beside a configuration only."""
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "sub" / "x.bin").write_bytes(attacks.CALL4)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "modeling.py").write_text("import os\n")
    (tmp_path / "train.py").write_text("import os\n")
    outside = tmp_path.parent / "outside.pkl"
    outside.write_bytes(attacks.CALL4)
    (tmp_path / "link.pkl").symlink_to(outside)
    scan = tk.scan(tmp_path)
    places = {(Path(finding.file).name, finding.rule, finding.severity) for finding in scan.findings}
    assert places == {
        ("x.bin", "pickle-called", "dangerous"),
        ("modeling.py", "python-source", "unknown"),
        ("link.pkl", "link", "dangerous"),
    }
    assert scan.findings[0].severity == "dangerous"
    assert scan.files == 4


def test_a_finding_says_what_and_where() -> None:
    """The call with its arguments, the member, and the byte."""
    data = attacks.zipped({"archive/data.pkl": attacks.CALL2, "archive/version": b"3\n"})
    (finding,) = tk.scan(io.BytesIO(data)).findings
    assert finding == Finding("dangerous", "archive/data.pkl: byte 26", "would call posix.system('true')", "pickle-called", "<BytesIO>")


def test_harmless_imports_are_listed_and_no_findings() -> None:
    """They may be looked at, and do not count."""
    scan = tk.scan(io.BytesIO(pickle.dumps(OrderedDict(a=np.ones(2)))))
    assert scan.clean
    assert any("collections.OrderedDict" in finding.what for finding in scan.harmless)


def test_text_of_a_file_is_told_escaped() -> None:
    """A name cannot speak to the terminal."""
    (finding,) = tk.scan(io.BytesIO(attacks.named("my\x1b[31mlab", "Net"))).findings
    assert "\x1b" not in finding.what and "\\x1b" in finding.what


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from(["", "a.pkl", "a.pt", "a.h5", "a.onnx", "config.json", "a.yaml", "saved_model.pb", "a.tflite"])
)
def test_any_bytes_give_an_answer(data: bytes, name: str) -> None:
    """Never an exception, whatever they are called."""
    stream = io.BytesIO(data)
    stream.name = name
    assert isinstance(tk.scan(stream).clean, bool)


SMALL = [name for name, (_, make) in attacks.DANGEROUS.items() if "bomb" not in name][::3]


@pytest.mark.parametrize("attack", SMALL)
def test_a_damaged_attack_gives_an_answer(attack: str) -> None:
    """Every truncation and every flipped byte: an answer, and nothing is run."""
    name, make = attacks.DANGEROUS[attack]
    data = make()
    step = max(1, len(data) // 60)
    with nothing_runs():
        for at in range(0, len(data), step):
            for damaged in (data[:at], data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]):
                stream = io.BytesIO(damaged)
                stream.name = name
                assert isinstance(tk.scan(stream).clean, bool)


@pytest.mark.parametrize(
    "data",
    [
        b"N0" * 1_000_000,
        b"(" * 2_000_000,
        b"\x80\x04" + b"N\x94" * 1_000_000 + b".",
        b"]" + b"h\x00" * 500_000,
        b"\x80\x02c" * 300_000,
        b"cos\nsystem\n" * 100_000,
        b"cos" * 300_000,
        b"\x80\x04\x95" * 300_000,
        b'{"class_name": ' * 100_000,
        b'{"a":' * 100_000,
        b"PK\3\4" * 200_000,
        b"gASV" * 300_000,
        b"\x01\x08\x40" * 300_000,
    ],
    ids=lambda data: repr(data[:12]),
)
def test_hostile_sizes_take_no_time(data: bytes) -> None:
    """A second or two on a busy machine, not minutes."""
    with soon(30.0):
        tk.scan(io.BytesIO(data))


@pytest.mark.parametrize(
    "text",
    ["{{ '" + "\\'" * 100_000, "{{" + "\\" * 200_000, "{{'" + " " * 200_000, "{{" + "['os'" * 40_000 + "}}", "{{" + "|format(" * 30_000],
    ids=lambda text: repr(text[:12]),
)
def test_hostile_templates_take_no_time(text: str) -> None:
    """Nothing in them is looked for anew from each place."""
    stream = io.BytesIO(text.encode())
    stream.name = "chat_template.jinja"
    with soon(30.0):
        tk.scan(stream)


def test_the_command_ends_with_3_on_a_finding_and_where_it_could_not_read(tmp_path: Path) -> None:
    """0 for clean files only."""
    bad, cut, good = tmp_path / "bad.pkl", tmp_path / "cut.pkl", tmp_path / "good.pkl"
    bad.write_bytes(attacks.CALL4)
    cut.write_bytes(attacks.UNREAD["a cut pickle"][1]())
    good.write_bytes(attacks.PLAIN)
    run = CliRunner().invoke
    results = {path: run(cli, ["scan", str(path)], standalone_mode=False) for path in (bad, cut, good)}
    assert [result.return_value for result in results.values()] == [3, 3, 0]
    assert "would call posix.system('true')" in results[bad].output
    assert "incomplete" in results[cut].output and "breaks off" in results[cut].output
    assert "clean" in results[good].output
    assert run(cli, ["scan", str(tmp_path / "none.pkl")], standalone_mode=False).return_value == 1


def test_the_command_prints_json_and_sarif(tmp_path: Path) -> None:
    """All fields as JSON; SARIF with a rule, a level and a place for each finding, and what could not be read."""
    (tmp_path / "bad name.pkl").write_bytes(attacks.CALL4)
    (tmp_path / "cut.pkl").write_bytes(attacks.UNREAD["a cut pickle"][1]())
    run = CliRunner().invoke
    document = json.loads(run(cli, ["scan", str(tmp_path), "--json"], standalone_mode=False).output)
    assert document["files"][0]["findings"][0]["what"] == "would call posix.system('true')"
    assert document["files"][0]["complete"] is False
    log = json.loads(run(cli, ["scan", str(tmp_path), "--format", "sarif"], standalone_mode=False).output)
    (result,) = log["runs"][0]["results"]
    assert log["version"] == "2.1.0"
    assert (result["ruleId"], result["level"]) == ("pickle-called", "error")
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("bad%20name.pkl")
    assert log["runs"][0]["invocations"][0]["executionSuccessful"] is False


def test_scan_needs_no_framework() -> None:
    """It imports NumPy and tensorkeep alone."""
    code = (
        "import io, sys, tensorkeep as tk; tk.scan(io.BytesIO(b'cos\\nsystem\\n.')); "
        "print([name for name in ('torch', 'sklearn', 'h5py', 'yaml', 'jinja2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_pickle_that_inflates_is_followed_as_far_as_its_file_is_worth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of its inflated bytes were, all of them opcodes: twenty seconds for a file of 120 KB."""
    monkeypatch.setattr("tensorkeep.scanning.look._STEPS", 100_000)
    scan = tk.scan(io.BytesIO(gzip.compress(b"\x80\x04" + b"N0" * 500_000 + b"N.")))
    assert any("more steps" in why for why in scan.incomplete), scan.incomplete


@pytest.mark.parametrize("name", ["a.yaml", "config.json", "saved_model.pbtxt", "a.bin"])
def test_texts_that_inflate_are_searched_as_far_as_their_file_is_worth(name: str) -> None:
    """Sixty megabytes of them took ten seconds, and a file of 120 KB."""
    scan = tk.scan(io.BytesIO(attacks.zipped({name: b"!!python/x cmd {{ a: " * (1 << 20)}, deflate=True)))
    assert any("a text of" in why or "of this size" in why for why in scan.incomplete), scan.incomplete


def test_more_anchors_than_are_followed_are_told() -> None:
    """What multiplies behind them would go unseen."""
    scan = tk.scan(io.BytesIO(attacks.zipped({"a.yaml": b"- &a x\n" * 100_001})))
    assert any("anchors" in why for why in scan.incomplete), scan.incomplete


@pytest.mark.parametrize("name", ["a.onnx", "a.pb"])
def test_fields_that_inflate_are_followed_as_far_as_their_file_is_worth(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message of twenty million fields takes 270 KB of a zip archive."""
    monkeypatch.setattr("tensorkeep.wire.budget._FEW_FIELDS", 1_000)
    scan = tk.scan(io.BytesIO(attacks.zipped({name: b"\x18\x01" * (3 << 20)}, deflate=True)))
    assert any("more fields" in why for why in scan.incomplete), scan.incomplete


def test_members_of_a_zip_are_read_once_and_lazily(tmp_path: Path) -> None:
    """A large storage of a checkpoint costs no time: no loader unpickles it."""
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        archive.writestr("m/data.pkl", attacks.PLAIN)
        archive.writestr("m/data/0", bytes(200 << 20))
    with soon(1.0):
        assert tk.scan(tmp_path / "m.pt").clean


def test_what_is_cut_short_is_never_clean() -> None:
    """A stream of PyTorch without its last storage, an array without its last numbers, a table that ends: nobody has seen the rest."""
    stream = io.BytesIO()
    np.save(stream, np.arange(100.0))
    for whole in (stream.getvalue(), b"\x81\xa6params\x81\xa1w\xc7\x15\x01\x93\x91\x02\xa7float32\xc4\x08" + bytes(8)):
        assert tk.scan(io.BytesIO(whole)).clean
        assert not tk.scan(io.BytesIO(whole[:-3])).complete


@pytest.mark.parametrize(
    ("module", "name"),
    [("_loss", "__pyx_unpickle_CyHalfBinomialLoss"), ("_loss", "CyHalfSquaredError"), ("sklearn.cluster._kmeans", "_kmeans_single_lloyd")],
)
def test_private_names_that_fitted_models_hold_are_no_findings(module: str, name: str) -> None:
    """What boosters of scikit-learn 1.2 to 1.5 and bisecting k-means name."""
    assert not tk.scan(io.BytesIO(f"c{module}\n{name}\n.".encode())).findings
    assert tk.scan(io.BytesIO(f"c{module}\neval\n.".encode())).findings
