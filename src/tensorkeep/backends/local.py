"""TEMPORARY stand-in until the real one lands."""

import os, mmap, stat
from contextlib import contextmanager


class ReadFile:
    def __init__(self, path):
        self.name = os.fsdecode(path)
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.nbytes = os.fstat(self.fd).st_size
        self.remote = False
        self._m = None

    def identity(self):
        s = os.fstat(self.fd)
        return (s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)

    def read_into(self, offset, into):
        n = 0
        while n < into.nbytes:
            k = os.preadv(self.fd, [into[n:]], offset + n)
            if not k:
                raise OSError(5, "cut")
            n += k

    def read_vector(self, offset, into):
        for p in into:
            self.read_into(offset, p)
            offset += p.nbytes

    def mapping(self):
        return memoryview(mmap.mmap(self.fd, 0, access=mmap.ACCESS_COPY)) if self.nbytes else None

    def read_ahead(self, a, b):
        pass

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class P:
    def __init__(s, fd):
        s.fd = fd

    def write(s, offset, parts):
        for p in parts:
            n = 0
            while n < p.nbytes:
                n += os.pwrite(s.fd, p[n:], offset + n)
            offset += p.nbytes


@contextmanager
def replacing(path, *, nbytes, durable=True, overwrite=True):
    if not overwrite and os.path.exists(path):
        raise FileExistsError(17, "exists", path)
    tmp = os.fsdecode(path) + ".tmp"
    fd = os.open(tmp, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield P(fd)
    except BaseException:
        os.close(fd)
        os.unlink(tmp)
        raise
    if durable:
        os.fsync(fd)
    os.close(fd)
    os.replace(tmp, path)


def kind_of(path):
    try:
        m = os.stat(path).st_mode
    except FileNotFoundError:
        return "missing"
    return "file" if stat.S_ISREG(m) else "folder" if stat.S_ISDIR(m) else "stream"


def is_stream(path):
    return kind_of(path) == "stream"


def read_stream(path, limit):
    return open(path, "rb").read()


@contextmanager
def streaming(path):
    with open(path, "wb") as f:
        yield f.write
