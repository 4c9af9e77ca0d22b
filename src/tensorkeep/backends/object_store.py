"""Files at URLs: `https://`, `http://`, `hf://owner/name/file`, and of clouds `s3://bucket/key`, `gs://`, `az://`, `memory://`.

Lives here: what a URL means, for who reads one file. Lives elsewhere: reading by ranges (remote_file), writing (url_writing), objects
under keys (bucket).
"""

import errno
import os
import re
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from tensorkeep.backends.object_places import CLOUDS, place_of
from tensorkeep.backends.remote_file import RemoteFile, http_place
from tensorkeep.errors import FormatError

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")  # a scheme of one letter would be a drive of Windows
_READ: Final = ("https", "http", "hf", *CLOUDS)
_HUB: Final = "https://huggingface.co"
_HUB_FILE: Final = re.compile(r"hf://(?:models/)?([\w.-]+)/([\w.-]+?)(?:@([\w./-]+?))?/([^?#]+)")
_PLAIN: Final = re.compile(r"[^/\\:\x00-\x1f?#%]+(?:/[^/\\:\x00-\x1f?#%]+)*")


def scheme_of(name: str) -> str:
    """The scheme of a URL, in small letters; "" for what is none."""
    match = _SCHEME.match(name)
    return match[1].lower() if match else ""


def is_cloud(name: str) -> bool:
    """Whether it is a URL of an object that can be read and written."""
    return scheme_of(name) in CLOUDS


def local_name(name: str) -> str:
    """The path that a `file://` URL means; whatever else, as it is.

    Raises:
        OSError: its host is another, or it is no path.
    """
    if scheme_of(name) != "file":
        return name
    parts = urlsplit(name)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path or parts.query or parts.fragment:
        raise OSError(errno.EINVAL, "no path of this machine: file:///folder/file is wanted", name)
    return path[1:] if os.name == "nt" and path[2:3] == ":" else path


def open_url(url: str) -> RemoteFile:
    """Open a file at a URL for reading.

    Args:
        url: `https://`, `http://`, or `hf://owner/name/file`, `hf://owner/name@revision/file`. `HF_ENDPOINT` and `HF_TOKEN` count, as
            they do for other tools of the hub; a token is sent to the hub alone. Or `s3://bucket/key`, `gs://`, `az://container/key`,
            with credentials from the environment, as the cloud's own tools find them there.

    Raises:
        FileNotFoundError, PermissionError, OSError: as the server says.
        MissingExtraError: obstore is not installed.
    """
    scheme = scheme_of(url)
    if scheme in CLOUDS:
        store, path = place_of(url)
        if not path or url.endswith("/"):
            raise IsADirectoryError(errno.EISDIR, "a bucket or a folder of one; the URL of a file in it is wanted", url)
        return RemoteFile(url, store, path, cloud=True)
    if scheme not in _READ:
        said = "a URL, which is not supported yet: copy it with a tool that knows it, and pass the path of a local file"
        raise OSError(errno.EINVAL, said, url)
    return RemoteFile(url, http_place(url, *_resolved(url)), "", cloud=False)


def _resolved(url: str) -> tuple[str, dict[str, str]]:
    """Where it is asked for, and with which headers."""
    if not url.lower().startswith("hf:"):
        return url, {}
    match = _HUB_FILE.fullmatch(url)
    if match is None:
        raise OSError(errno.EINVAL, "no file of the hub: hf://owner/name/file or hf://owner/name@revision/file is wanted", url)
    owner, name, revision, file = match.groups()
    # The one place below the command line that reads the environment: these two are how every tool finds the hub and its user.
    endpoint, token = os.environ.get("HF_ENDPOINT", _HUB).rstrip("/"), os.environ.get("HF_TOKEN", "")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return f"{endpoint}/{owner}/{name}/resolve/{quote(revision or 'main', safe='')}/{quote(file)}", headers


class RemoteFolder:
    """The place of a file at a URL: the files beside it that it may name, by plain relative names alone.

    Args:
        url: of the file.
    """

    def __init__(self, url: str) -> None:
        self._literal = is_cloud(url)  # its path is a key, in which `?` and `%20` are what they are
        query = "" if self._literal else urlsplit(url).query
        self._suffix = f"?{query}" if query else ""  # a signature of one file opens no other: the server will say so
        self.name = (url if self._literal else url.partition("?")[0]).rpartition("/")[0]

    def files(self) -> list[str]:
        """None: a server does not list."""
        return []

    def has(self, name: str) -> bool:
        """Whether a file of that name can be opened."""
        try:
            self.open(name).close()
        except (OSError, FormatError):
            return False
        return True

    def link(self, name: str) -> str:
        return ""

    def late(self, name: str) -> RemoteFile:
        return self.open(name)

    def open(self, name: str) -> RemoteFile:
        """Open a file that a file has named.

        Raises:
            FormatError: the name is no plain relative one.
            FileNotFoundError: nothing is there.
        """
        if _PLAIN.fullmatch(name) is None or any(part in (".", "..") for part in name.split("/")):
            raise FormatError(self.name, f"it names {name!r:.200}, which is no plain name inside its folder")
        literal = self._literal or self.name.startswith("hf:")
        return open_url(f"{self.name}/{name if literal else quote(name)}{self._suffix}")
