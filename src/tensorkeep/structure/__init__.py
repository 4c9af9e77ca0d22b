"""The structure: the JSON document that holds a tree without its tensor bytes.

JSON's null, true, false, integers up to 2^53, texts and arrays stand for themselves, an array for a list. All else is an object
whose first key is a tag; keys that a reader does not know are ignored, tags are not:

    {"dict": [[key, node], ...]}        also "OrderedDict", "Counter", and "defaultdict" with its "factory"; an entry that is a text
                                        alone is the key of a tensor whose path is the dict's path, a dot, and that key (not below a
                                        key whose name another program could not tell, such as a tuple)
    {"tuple": [node, ...]}              also "set", "frozenset", and "deque" with its "maxlen"
    {"tensor": path}                    "dtype" where the header's does not say it all, "as" where the framework differs
    {"packed": "str", "tensor": path}   a long text, byte string or list of numbers
    {"object": kind, "class": name, "state": node}
    {"float": 0.5}, ...                 plain values: see plain.py

Lives here: `encode`, tree -> document, bit for bit; `decode`, document -> tree, read as untrusted; what both know (`grammar`); dicts and
sets of keys that a stranger chose (`keys`). Lives elsewhere: the container around it.
Source of the layout: docs/format.md, section "Structure".
"""

from tensorkeep.structure.decode import decode
from tensorkeep.structure.encode import Encoded, encode
from tensorkeep.structure.grammar import PATHS_EACH

__all__ = ["PATHS_EACH", "Encoded", "decode", "encode"]
