"""The program of the confined process that parses HDF5 for :mod:`xbackend_fl.formats.confined`.

It runs alone, as a script, with the standard library and h5py: a server that has them imported, and forks a child
for every file. The child may compute, read one open file and answer on one socket; the kernel refuses the rest.
"""

from __future__ import annotations

import codecs
import ctypes
import io
import json
import os
import resource
import signal
import socket
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NoReturn

import h5py
import numpy as np

try:
    import pyseccomp
except (ImportError, RuntimeError):  # not Linux, or no libseccomp
    pyseccomp = None

_MEMORY = 224 << 20
"""Bytes a child may allocate beyond what the server has."""

_FRAME = struct.Struct("<cLQL")
"""Before everything that is sent: so no answer is taken for values, and no values for an answer."""
_ANSWER, _DATA = b"A", b"D"

_LARGEST_CHUNK = 64 << 20
_PIECE = 16 << 20
_MAX_DEPTH = 32
_MAX_OBJECTS = 200_000
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
_CALLS = [
    "read",
    "pread64",
    "readv",
    "lseek",
    "fstat",
    "newfstatat",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "brk",
    "madvise",
    "futex",
    "rt_sigreturn",
    "rt_sigaction",
    "rt_sigprocmask",
    "sigaltstack",
    "exit",
    "exit_group",
    "write",
    "writev",
    "sendto",
    "sendmsg",
    "recvfrom",
    "recvmsg",
    "close",
    "getrandom",
    "clock_gettime",
    "gettimeofday",
    "getpid",
    "gettid",
    "sched_yield",
    "poll",
    "restart_syscall",
    "getrusage",
]


class Refused(Exception):  # noqa: N818
    """A rule of the format or a limit is broken."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def main() -> None:
    """Serve until the other side hangs up."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel forgets ended children
    control = socket.socket(fileno=0)
    _warm_up()
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 4096, 2)
        if not message:
            return
        request = json.loads(message)
        if os.fork() == 0:
            control.close()
            _serve(request, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)


def _serve(request: dict[str, int], descriptors: list[int]) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    file, answers = descriptors
    connection = socket.socket(fileno=answers)
    try:
        guards = _confine(request["seconds"])
        window = _Window(file, request["start"], request["size"])
        with h5py.File(window, "r") as opened:
            datasets, entries, about = _survey(opened, request["declared"])
            _send(connection, {"entries": entries, "about": about, "guards": guards})
            while asked := _receive(connection, 4):
                (index,) = struct.unpack("<L", asked)
                for piece in _pieces(datasets[index]):
                    _frame(connection, _DATA, index, piece)
    except Refused as error:
        _send(connection, {"code": error.code, "message": str(error)})
    except MemoryError:
        _send(connection, {"code": "parser-stopped", "message": "the parser asked for too much memory"})
    except Exception as error:  # noqa: BLE001  h5py has no common base, and nothing else may get out
        _send(connection, {"code": "bad-hdf5", "message": f"is not readable HDF5: {str(error)!r:.200}"})
    os._exit(0)


def _send(connection: socket.socket, answer: dict[str, Any]) -> None:
    text = json.dumps(answer).encode()
    _frame(connection, _ANSWER, 0, memoryview(text))


def _frame(connection: socket.socket, kind: bytes, index: int, content: memoryview) -> None:
    """Send a kind, the number of the dataset, the length and the CRC-32 of what follows, and that."""
    connection.sendall(_FRAME.pack(kind, index, len(content), zlib.crc32(content)))
    connection.sendall(content)


def _receive(connection: socket.socket, length: int) -> bytes:
    parts = b""
    while len(parts) < length:
        part = connection.recv(length - len(parts))
        if not part:
            return b""
        parts += part
    return parts


class _Window(io.RawIOBase):
    """A range of an open file as the file object that h5py reads."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self._size, self._at = descriptor, start, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        content = os.pread(self._descriptor, wanted, self._start + self._at)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


# What is in the file


def _survey(
    file: h5py.File, declared: int
) -> tuple[list[h5py.Dataset], list[dict[str, Any]], dict[str, str]]:
    """All datasets, described; nothing but a description is read."""
    datasets: list[h5py.Dataset] = []
    entries: list[dict[str, Any]] = []
    direct = file.userblock_size == 0
    total = 0
    for name, dataset in _walk(file):
        entry = _describe(name, dataset, direct=direct)
        total += entry["bytes"]
        if total > declared:
            raise Refused(
                "expansion", f"its datasets declare {total} bytes, more than {declared} for its size"
            )
        datasets.append(dataset)
        entries.append(entry)
    about = {}
    for key in ("keras_version", "backend"):
        value = file.attrs.get(key) if key in file.attrs and file.attrs.get_id(key).shape == () else None
        value = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        if isinstance(value, str):
            # The library gives bytes that are no text as halves of characters.
            about[key] = value[:64].encode("utf-8", "backslashreplace").decode()
    return datasets, entries, about


def _walk(file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Datasets by path, through hard links only, every group once."""
    start = h5py.h5g.open(file.id, b"/")
    stack: list[tuple[str, Any, int]] = [("", start, 0)]
    groups = {h5py.h5o.get_info(start).addr}
    count = 0
    while stack:
        path, group, depth = stack.pop()
        if depth > _MAX_DEPTH:
            raise Refused("hdf5-links", f"its groups are nested deeper than {_MAX_DEPTH}")
        links: list[tuple[bytes, int]] = []

        def collect(name: bytes, info: Any, links: list[tuple[bytes, int]] = links) -> None:
            if len(links) < _MAX_OBJECTS:
                links.append((name, info.type))

        group.links.iterate(collect, info=True)
        inner: list[tuple[str, Any, int]] = []
        for name, kind in links:
            count += 1
            if count > _MAX_OBJECTS:
                raise Refused("too-many-tensors", f"holds more than {_MAX_OBJECTS} objects")
            full = f"{path}/{name.decode('utf-8')}" if path else name.decode("utf-8")
            if kind != h5py.h5l.TYPE_HARD:
                word = "to another file" if kind == h5py.h5l.TYPE_EXTERNAL else "instead of an object"
                raise Refused("hdf5-links", f"{full!r:.80} is a link {word}")
            found = h5py.h5o.open(group, name)
            if isinstance(found, h5py.h5g.GroupID):
                address = h5py.h5o.get_info(found).addr
                if address in groups:
                    raise Refused("hdf5-links", f"{full!r:.80} leads back to a group that has another name")
                groups.add(address)
                inner.append((full, found, depth + 1))
            elif isinstance(found, h5py.h5d.DatasetID):
                yield full, h5py.Dataset(found)
        stack.extend(reversed(inner))


def _describe(name: str, dataset: h5py.Dataset, *, direct: bool) -> dict[str, Any]:
    what = f"dataset {name!r:.80}"
    plan = dataset.id.get_create_plist()
    if plan.get_external_count():
        raise Refused("hdf5-external", f"{what} stores its bytes in another file")
    layout = plan.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise Refused("hdf5-external", f"{what} is a view of other datasets")
    for index in range(plan.get_nfilters()):
        number = plan.get_filter(index)[0]
        if number not in _FILTERS:
            raise Refused("hdf5-filter", f"{what} is packed by filter {number}")
    if (
        layout == h5py.h5d.CHUNKED
        and np.prod(plan.get_chunk(), dtype=object) * dataset.dtype.itemsize > _LARGEST_CHUNK
    ):
        raise Refused("expansion", f"{what} has chunks of more than {_LARGEST_CHUNK} bytes")
    dtype = dataset.dtype
    marked = dataset.attrs.get("dtype") if "dtype" in dataset.attrs else None
    if dataset.shape is None:
        # h5py.Empty: a dtype, and neither a shape nor values.
        raise Refused("dtype", f"{what} has no shape and no values (an empty dataspace)")
    if dtype.hasobject or dtype.names or dtype.subdtype:
        raise Refused("dtype", f"{what} holds {str(dtype)!r:.60}, which is no number")
    size = int(np.prod(dataset.shape, dtype=object)) * dtype.itemsize
    offset = dataset.id.get_offset() if direct and layout == h5py.h5d.CONTIGUOUS else None
    if offset is not None and dataset.id.get_storage_size() != size:
        raise Refused("size-mismatch", f"{what} needs {size} bytes and has {dataset.id.get_storage_size()}")
    return {
        "name": name,
        "shape": [int(n) for n in dataset.shape],
        "dtype": dtype.str,
        "marked": "bfloat16" if isinstance(marked, str) and marked == "bfloat16" else "",
        "bytes": size,
        "offset": offset,
        "address": int(h5py.h5o.get_info(dataset.id).addr),
    }


def _check_chunks(dataset: h5py.Dataset) -> None:
    """Refuse a chunk that is not packed and has another size than its values.

    A chunk may say that a filter was left out, as gzip is where it does not help, and damage can take away the
    filters. The library believes that, and fills what is missing with whatever its memory holds.
    """
    plan = dataset.id.get_create_plist()
    if plan.get_layout() != h5py.h5d.CHUNKED:
        return
    filters = [plan.get_filter(index)[0] for index in range(plan.get_nfilters())]
    whole = int(np.prod(dataset.chunks, dtype=object)) * dataset.dtype.itemsize
    wrong = []

    def check(chunk: Any) -> None:
        used = {number for bit, number in enumerate(filters) if not chunk.filter_mask >> bit & 1}
        size = whole + 4 * (h5py.h5z.FILTER_FLETCHER32 in used)
        if h5py.h5z.FILTER_DEFLATE not in used and chunk.size != size:
            wrong.append(chunk.size)

    dataset.id.chunk_iter(check)
    if wrong:
        raise Refused(
            "size-mismatch", f"a chunk of {dataset.name!r:.80} needs {whole} bytes and has {wrong[0]}"
        )


def _pieces(dataset: h5py.Dataset) -> Iterator[memoryview]:
    """The values in C order, as many whole chunks at a time as make a few MiB."""
    _check_chunks(dataset)
    if not dataset.shape or not dataset.size:
        whole = np.ascontiguousarray(dataset[()])
        yield whole.reshape(-1).view(np.uint8).data
        return
    row = dataset.size // dataset.shape[0] * dataset.dtype.itemsize
    step = max(1, _PIECE // row)
    if dataset.chunks:
        step = -(-step // dataset.chunks[0]) * dataset.chunks[0]
    for start in range(0, dataset.shape[0], step):
        part = np.ascontiguousarray(dataset[start : start + step])
        yield part.reshape(-1).view(np.uint8).data


# What the kernel refuses


def _confine(seconds: float) -> list[str]:
    """Give up what parsing does not need; returns the guards that hold."""
    with open("/proc/self/statm", "rb") as status:  # noqa: PTH123  before the process can no longer open anything
        size = int(status.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 1))
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF ends the process
    guards = ["memory and processor time"]
    if _landlock():
        guards.append("files")
    if _seccomp():
        guards.append("system calls")
    return guards


def _landlock() -> bool:
    """Forbid opening any file and any TCP connection. Constants: ``linux/landlock.h``."""
    create, restrict, no_new_privileges = 444, 446, 38
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(create, None, 0, 1)
    if version < 1 or libc.prctl(no_new_privileges, 1, 0, 0, 0):
        return False
    rights = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    network = 0b11 if version >= 4 else 0
    attributes = struct.pack("<QQ", (1 << rights) - 1, network)[: 16 if version >= 4 else 8]
    ruleset = libc.syscall(create, attributes, len(attributes), 0)
    return bool(ruleset >= 0 and libc.syscall(restrict, ruleset, 0) == 0)


def _seccomp() -> bool:
    """Allow the system calls on the list alone; the others fail."""
    if pyseccomp is None:
        return False
    rules = pyseccomp.SyscallFilter(pyseccomp.ERRNO(1))
    for name in _CALLS:
        try:
            rules.add_rule(pyseccomp.ALLOW, name)
        except (OSError, ValueError):  # not on this architecture
            continue
    rules.load()
    return True


def _warm_up() -> None:
    """Import now what h5py imports on first use: later, no file can be opened."""
    for encoding in ("ascii", "latin-1", "utf-8"):
        codecs.lookup(encoding)
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.create_dataset("a/b", data=np.zeros((4, 4)), chunks=(2, 2), compression="gzip")
        file.attrs["keras_version"] = "0"
    with h5py.File(memory, "r") as file:
        for dataset in _survey(file, 1 << 20)[0]:
            list(_pieces(dataset))
    try:
        h5py.File(io.BytesIO(b"x" * 512), "r")
    except OSError as error:
        json.dumps({"error": repr(str(error))})


if __name__ == "__main__":
    main()
