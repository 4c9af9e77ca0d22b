"""Texts: JSON, YAML, XML, templates and Python sources that stand beside weights, or among the members of an archive."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from tensorkeep.scanning import keras, skops, templates, yamls
from tensorkeep.scanning.code import calls_home, code_in
from tensorkeep.scanning.embedded import embedded
from tensorkeep.scanning.jsons import crowded
from tensorkeep.scanning.look import Look, Thing
from tensorkeep.scanning.names import leads_out
from tensorkeep.scanning.pickles import of_bytes
from tensorkeep.unpickle.severity import severity

_MOST_BYTES: Final = 64 << 20
_MOST_LINES: Final = 20_000  # of YAML that are looked at one by one
_SOURCES: Final = frozenset({".py", ".pyw", ".pyi"})
_YAMLS: Final = frozenset({".yaml", ".yml"})
_CONFIGS: Final = re.compile(r"(?i)config|manifest|metadata|index|settings|params|-symbol\.json$|\.jsonl?$|\.ya?ml$")
_BIG_LISTS: Final = re.compile(r"(?i)tokenizer\.json$|vocab|merges|added_tokens")
_CODECS: Final = (
    *((b"\xff\xfe\0\0", "utf-32-le"), (b"\0\0\xfe\xff", "utf-32-be"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")),
)
_BY_ZEROS: Final[dict[tuple[bool, ...], str]] = {
    (True, True, True, False): "utf-32-be",
    (False, True, True, True): "utf-32-le",
    (True, False): "utf-16-be",
    (False, True): "utf-16-le",
}
for _name in _BY_ZEROS.values():
    codecs.lookup(_name)  # Python imports a codec when it is first asked for: here, and never because of what stands in a file
_LIBRARY: Final = re.compile(r"\.(?:so|dll|dylib)(?:\.\d+)*\Z", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(r"//(?:GDA|Array)?Placeholder:(\S{1,300})")


def recognizes(thing: Thing) -> bool:
    """Whether it is a text that a loader of models reads, by its name or its first bytes."""
    head = thing.head
    if thing.tensor:
        return False
    codec = _codec(head)
    start = head[:64].decode(codec, "replace").lstrip("\ufeff \t\r\n")[:16]
    if b"\0" in head[:1024] and (codec == "utf-8" or not (start[:2].isascii() and start[:2].isprintable())):
        return False
    if thing.suffix in _YAMLS | _SOURCES | templates.SUFFIXES | {
        ".json",
        ".jsonl",
        ".manifest",
        ".xml",
        ".pmml",
        ".pbtxt",
        ".pth",
        ".cfg",
        ".index",
    }:
        return True
    return start.startswith(('{"', "{\n", "{ ", "<?xml", "<!DOCTYPE", "[{", "---"))


def _codec(head: bytes) -> str:
    """How a text is encoded, as parsers of JSON, YAML and XML find it out: by its mark, or by where its first zeros stand."""
    for mark, codec in _CODECS:
        if head.startswith(mark):
            return codec
    zeros = tuple(not byte for byte in head[:4])
    return _BY_ZEROS.get(zeros) or _BY_ZEROS.get(zeros[:2]) or "utf-8"


def scan(thing: Thing, look: Look) -> None:
    """Look at what a text would do."""
    if (raw := look.text(thing, _MOST_BYTES)) is None:
        return
    text = raw.decode(codec := _codec(thing.head), "replace")
    raw = raw if codec == "utf-8" else text.encode("utf-8", "replace")
    suffix, start = thing.suffix, text.lstrip("\ufeff \t\r\n")[:16]
    if suffix in templates.SUFFIXES:
        templates.judge(text, thing, "", look)
    elif suffix in _SOURCES:
        look.found("unknown", thing.place, "Python source among the files of a model, which some loaders import", "python-source")
    elif start.startswith(("<?xml", "<!DOCTYPE")) or suffix in (".xml", ".pmml"):
        _xml(text, thing, look)
    elif start[:1] in ("{", "[") and suffix not in _YAMLS:
        _json(raw, thing, look)
    elif suffix == ".pth" and re.search(r"(?m)^import[ \t]", text):
        look.found("dangerous", thing.place, "a line that Python runs at every start, if this file lies where it looks", "pth-import")
    else:
        _yaml(text, thing, look)


def _json(raw: bytes, thing: Thing, look: Look) -> None:
    if crowded(raw):
        look.stopped(thing.place, "a document of more lists and objects than any configuration has")
        return
    try:
        document = msgspec.json.decode(raw)
    except (ValueError, RecursionError):  # msgspec's own is one, and so is that of text that is no UTF-8
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            if thing.suffix in (".json", ".index") or thing.depth:
                look.stopped(thing.place, f"no JSON that can be read: {error}")
            _yaml(raw.decode("utf-8", "replace"), thing, look)
            return
    judge_document(document, thing, look)


def judge_document(document: Any, thing: Thing, look: Look, *, where: str = "") -> None:
    """Look at every object and text of a document."""
    config = bool(_CONFIGS.search(thing.name or "config")) and not _BIG_LISTS.search(thing.name)
    for path, key, value in walk(document):
        if isinstance(value, dict):
            keras.judge(value, where + path, thing, look)
            skops.judge(value, where + path, thing, look)
            _names(value, where + path, thing, look)
            if isinstance(value.get("op"), str) and isinstance(value.get("inputs"), list):
                _operator(value, where + path, thing, look)
        elif isinstance(value, str) and len(value) > 3:
            if key in ("chat_template", "template") or key.endswith("chat_template"):
                templates.judge(value, thing, where + path, look)
            elif keras.fetches(value):
                look.found("dangerous", thing.at(where + path), f"asks for {value!r}", "keras-fetch")
            elif config:
                judge_text(key, value, where + path, thing, look)


def judge_text(key: str, value: str, path: str, thing: Thing, look: Look) -> None:
    """Look at one text of metadata or a configuration: code, addresses, what it encodes."""
    found = code_in(value)
    if found is not None:
        look.found("unknown", thing.at(path), f"{found[0]}: {found[1]!r}", "code-in-text")
    elif calls_home(key, value):
        look.found("unknown", thing.at(path), f"an address to call: {value!r}", "address")
    elif "{{" in value or "{%" in value:
        templates.judge(value, thing, path, look)
    if (placeholder := _PLACEHOLDER.search(value)) and leads_out(placeholder[1]):
        look.found("dangerous", thing.at(path), f"asks for the file {placeholder[1]!r}", "outside-file")
    if len(value) >= 16:
        for kind, data in embedded(value):
            look.inside(of_bytes(thing, data, f"{path} ({kind})"))


def _names(node: dict[str, Any], path: str, thing: Thing, look: Look) -> None:
    """Names of files and classes that a configuration asks for."""
    place = thing.at(path)
    if isinstance(node.get("auto_map"), dict):
        for kind, target in list(node["auto_map"].items())[:20]:
            look.found("unknown", place, f"with trust_remote_code=True it would import {target} for {kind}", "remote-code")
    files: list[Any] = []
    if isinstance(node.get("weight_map"), dict):
        files += list(node["weight_map"].values())
    for manifest in node["weightsManifest"] if isinstance(node.get("weightsManifest"), list) else []:
        files += manifest.get("paths", []) if isinstance(manifest, dict) and isinstance(manifest.get("paths"), list) else []
    if isinstance(node.get("layers"), list) and thing.suffix == ".manifest":
        files += [layer for layer in node["layers"] if isinstance(layer, str)]
    store = node.get("kvstore")
    if isinstance(store, dict) and isinstance(store.get("path"), str):
        files.append(store["path"])
        if store.get("driver") in ("http", "s3", "gcs"):
            look.found(
                "unknown", place, f"a TensorStore specification that reads from {store.get('driver')}: {store['path']!r}", "outside-file"
            )
    for file in {file for file in files if isinstance(file, str)}:
        if why := look.leads_out(file):
            look.found("dangerous", place, f"asks for the file {file!r}, whose name {why}", "outside-file")
    target = node.get("_target_")
    if isinstance(target, str):
        yamls.target(target, place, look)
    if thing.name == "model_index.json":
        _parts_of_pipeline(node, place, look)
    elif thing.name == "modules.json" and isinstance(kind := node.get("type"), str) and "idx" in node:
        yamls.target(kind, place, look)


def _parts_of_pipeline(node: dict[str, Any], place: str, look: Look) -> None:
    """What diffusers imports for each part of a pipeline: a module and a name in it."""
    for key, value in node.items():
        if not (isinstance(value, list) and len(value) == 2 and all(isinstance(part, str) for part in value)):
            continue
        if key == "_class_name":
            look.found("unknown", place, f"with trust_remote_code=True it would import {value[0]}.py for {value[1]}", "remote-code")
        elif severity(*value) == "dangerous":
            look.found("dangerous", place, f"would import {'.'.join(value)} for {key}", "config-target")


def _operator(node: dict[str, Any], path: str, thing: Thing, look: Look) -> None:
    """What a node of an MXNet graph runs that is no operator of MXNet's own, and the libraries that it names."""
    attributes: dict[str, Any] = next((node[key] for key in ("attrs", "attr", "param") if isinstance(node.get(key), dict)), {})
    if node["op"] == "Custom":
        look.found("unknown", thing.at(path), f"the operator {attributes.get('op_type')!r}, which is code of the author's", "mxnet-custom")
    for key, value in attributes.items():
        if isinstance(value, str) and _LIBRARY.search(value):
            look.found("dangerous", thing.at(f"{path}.{key}"), f"names a library to load: {value!r}", "mxnet-library")


def walk(document: Any) -> Iterator[tuple[str, str, Any]]:
    """Every object, list and text of a document, with its path and the last key on the way."""
    yield "", "", document
    waiting = [("", "", _inside(document))]
    while waiting:
        path, key, inside = waiting[-1]
        for name, child in inside:
            below = f"{path[-200:]}[{name}]" if isinstance(name, int) else f"{path[-200:]}.{name[:60]}" if path else name[:60]
            last = key if isinstance(name, int) else name
            yield below, last, child
            if isinstance(child, (dict, list)):
                waiting.append((below, last, _inside(child)))
                break
        else:
            waiting.pop()


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return ((name, child) for name, child in pairs if isinstance(child, (dict, list, str)))


def _yaml(text: str, thing: Thing, look: Look) -> None:
    yamls.judge(text, thing, look)
    if "{{" in text or "{%" in text:
        templates.judge(text, thing, "", look)
    if thing.suffix in _YAMLS or thing.suffix == ".cfg":
        for number, line in enumerate(text.split("\n", _MOST_LINES)[:_MOST_LINES]):
            if len(line) >= 8:
                key, _, value = line.partition(":")
                judge_text(key, value, f"line {number + 1}", thing, look)


def _xml(text: str, thing: Thing, look: Look) -> None:
    if found := re.search(r"<!ENTITY\s+[^>]{0,200}", text):
        outside = " SYSTEM " in found[0] or " PUBLIC " in found[0]
        what = "an entity that fetches a file or an address" if outside else "entities, which may multiply without end"
        look.found("dangerous", thing.place, f"its XML declares {what}: {found[0][:100]!r}", "xml-entity")
    if found := re.search(r"<xi:include[^>]{0,200}|<\?xml-stylesheet[^>]{0,200}|<script\b[^>]{0,100}", text):
        look.found("unknown", thing.place, f"its XML takes in other things: {found[0][:100]!r}", "xml-include")
    for found in re.finditer(r"(?is)<(?:Extension|script)\b.{0,2000}?(?:</|/>)", text):
        if code := code_in(found[0]):
            look.found("unknown", thing.place, f"{code[0]}: {code[1]!r}", "code-in-text")
    if (found := re.search(r'(?i)library="?([^"\s>]{1,200}\.(?:so|dll|dylib))', text)) is not None:
        look.found("dangerous", thing.place, f"names a library to load: {found[1]!r}", "xml-library")
