"""Short probes of the machine: each tries what it asks about, on memory of its own."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from host_model.backing.machine import huge_pool

PROBE_BYTES = 16 << 20
"""Large against the error of the kernel's own counters, small against any machine."""
RESERVED_BYTES = 1 << 40
"""As much address space as an idle 1 TiB guest takes."""
_SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
_UFFD_USER_MODE_ONLY = 1
_MADV_HUGEPAGE = getattr(mmap, "MADV_HUGEPAGE", 14)
_FALLOC_KEEP_SIZE, _FALLOC_PUNCH_HOLE = 1, 2
_THP = Path("/sys/kernel/mm/transparent_hugepage")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found. `required` is what every command needs; the rest is for some of them.

    `fails`: it is there, and does not do what it is for.
    """

    name: str
    ok: bool
    found: str
    why: str
    remedy: str
    required: bool = False
    fails: bool = False


def _read(path: str | Path) -> str:
    """The file's text, or an empty one where it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def python() -> Finding:
    """The interpreter's version."""
    return Finding(
        "python",
        sys.version_info >= (3, 11),
        platform.python_version(),
        "all of fpr runs on it",
        "apt-get install python3",
        required=True,
    )


def compiler() -> Finding:
    """A C compiler and Python's headers."""
    name = next(filter(shutil.which, (os.environ.get("CC", "cc"), "gcc", "clang")), None)
    folders = (sysconfig.get_path("include"), sys.prefix + "/include")
    header = any(Path(folder, "Python.h").is_file() for folder in folders)
    found = f"{shutil.which(name)}" if name else "no compiler"
    return Finding(
        "compiler",
        name is not None and header,
        found if header else f"{found}; no Python.h",
        "`make setup` builds the C core with it",
        "apt-get install gcc python3-dev",
    )


def c_core() -> Finding:
    """The compiled extension."""
    try:
        from emulator.native import lib

        ok, found = lib is not None, "loaded"
    except ImportError as error:
        ok, found = False, str(error)
    return Finding("c-core", ok, found, "it holds the models", "make native", required=True)


def _selected(text: str) -> str:
    """The choice in brackets of a sysfs file such as `always [madvise] never`."""
    return text.partition("[")[2].partition("]")[0]


def huge_pages() -> Finding:
    """Transparent huge pages: asks for one, and looks whether it came."""
    setting = _selected(_read(_THP / "enabled"))
    got = setting not in ("", "never") and _huge_bytes_of_a_mapping() > 0
    return Finding(
        "thp",
        got,
        f"{setting or 'not in this kernel'}" + ("" if got else ", no huge page came"),
        "real backings with `thp: true` are mapped by huge pages",
        "as root: echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    )


def _huge_bytes_of_a_mapping() -> int:
    try:
        with mmap.mmap(-1, PROBE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            memory.madvise(_MADV_HUGEPAGE)
            before = _rollup("AnonHugePages")
            _touch(memory)
            return _rollup("AnonHugePages") - before
    except OSError:
        return 0


def _rollup(key: str) -> int:
    """Bytes of this process by a key of /proc/self/smaps_rollup."""
    for line in _read("/proc/self/smaps_rollup").splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    return 0


def _touch(memory: mmap.mmap) -> None:
    for offset in range(0, len(memory), mmap.PAGESIZE):
        memory[offset] = 1


def shmem_huge_pages() -> Finding:
    """Huge pages of shared memory: asks for one, and looks whether it came."""
    setting = _selected(_read(_THP / "shmem_enabled"))
    try:
        from host_model.backing.shmem_thp import ShmemThpBacking

        got = ShmemThpBacking.available()
    except (ImportError, OSError):  # no C core: another probe says so
        got = setting in ("always", "within_size", "advise", "force")
    return Finding(
        "thp-shmem",
        got,
        (setting or "not in this kernel") + ("" if got else ", no huge page came"),
        "the `shmem_thp` backing, and `memfd` with `thp: true`, are mapped by huge pages",
        "as root: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
    )


def anonymous_discard() -> Finding:
    """MADV_DONTNEED on touched private memory: whether the resident size falls."""
    try:
        with mmap.mmap(-1, PROBE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            _touch(memory)
            before = _rollup("Rss")
            memory.madvise(mmap.MADV_DONTNEED)
            freed = before - _rollup("Rss")
            found = f"{freed >> 20} of {PROBE_BYTES >> 20} MiB came back"
    except OSError as error:
        freed, found = 0, str(error)
    return Finding(
        "anonymous-discard",
        freed > PROBE_BYTES // 2,
        found,
        "the `anonymous` backing gives memory back with madvise",
        "use a kernel or container that lets it (not gVisor)",
    )


def memfd_hole() -> Finding:
    """A hole punched into a written memfd: whether its blocks are gone."""
    try:
        freed = _punched_bytes()
        found = f"{freed >> 20} of {PROBE_BYTES >> 20} MiB came back"
    except (OSError, AttributeError) as error:
        freed, found = 0, str(error)
    return Finding(
        "memfd-hole",
        freed == PROBE_BYTES,
        found,
        "the `memfd` backing and vhost-user give memory back with fallocate",
        "use Linux 3.17 or newer, and a container that lets it",
    )


def _punched_bytes() -> int:
    file = os.memfd_create("fpr-doctor", os.MFD_CLOEXEC)
    try:
        os.ftruncate(file, PROBE_BYTES)
        with mmap.mmap(file, PROBE_BYTES) as memory:
            _touch(memory)
        before = os.fstat(file).st_blocks * 512
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(file, _FALLOC_PUNCH_HOLE | _FALLOC_KEEP_SIZE, 0, PROBE_BYTES) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return before - os.fstat(file).st_blocks * 512
    finally:
        os.close(file)


def userfaultfd() -> Finding:
    """The userfaultfd system call, for user-mode faults."""
    number = _SYS_USERFAULTFD.get(platform.machine())
    found = f"number unknown on {platform.machine()}"
    descriptor = -1
    if number is not None:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
        descriptor = syscall(number, os.O_CLOEXEC | os.O_NONBLOCK | _UFFD_USER_MODE_ONLY)
        found = "available" if descriptor >= 0 else os.strerror(ctypes.get_errno())
    if descriptor >= 0:
        os.close(descriptor)
    return Finding(
        "userfaultfd",
        descriptor >= 0,
        found,
        "it shows each fault of a guest on shared memory",
        "as root: sysctl vm.unprivileged_userfaultfd=1; in a container, allow the system call",
    )


def hugetlb() -> Finding:
    """Free pages in the hugetlb pool."""
    pool = huge_pool()
    return Finding(
        "hugetlb",
        pool.available > 0,
        f"{pool.available} of {pool.total} pages of 2 MiB are free",
        "the `hugetlb` backing takes all pages of its guest from this pool",
        "as root: sysctl vm.nr_hugepages=512",
    )


def overcommit() -> Finding:
    """Whether a large guest's address space can be reserved."""
    mode = {"0": "heuristic", "1": "always", "2": "never"}.get(
        _read("/proc/sys/vm/overcommit_memory"), "unknown"
    )
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000)
    try:
        mmap.mmap(-1, RESERVED_BYTES, flags=flags).close()
        ok = True
    except (OSError, ValueError):
        ok = False
    return Finding(
        "overcommit",
        ok,
        f"mode {mode}; 1 TiB {'can' if ok else 'cannot'} be reserved",
        "a guest larger than this machine is reserved, and only what it touches is used",
        "as root: sysctl vm.overcommit_memory=0, and raise `ulimit -v`",
    )


def busybox() -> Finding:
    """A statically linked busybox: one that names no dynamic loader."""
    path = shutil.which("busybox")
    linked = path is None
    if path is not None:
        with open(path, "rb") as file:
            linked = b"/ld-" in file.read(4096)
    found = "not found" if path is None else f"{path}{', not static' if linked else ''}"
    why = "it is all that a real kernel needs as its user space"
    return Finding("busybox-static", not linked, found, why, "apt-get install busybox-static")


ALL: tuple[Callable[[], Finding], ...] = (
    python,
    compiler,
    c_core,
    huge_pages,
    shmem_huge_pages,
    anonymous_discard,
    memfd_hole,
    userfaultfd,
    hugetlb,
    overcommit,
    busybox,
)
"""Every probe that boots nothing, in the order in which the doctor shows them."""
