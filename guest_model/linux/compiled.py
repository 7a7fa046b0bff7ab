"""C programs of ours that run in a real guest or beside it, built by the machine's compiler."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import cache_folder

COMPILE_TIMEOUT_S = 120
_PROGRAM = ("-std=gnu11", "-O2", "-static")
_PRELOADED = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-nostdlib")
"""With no library of its own: it takes that of the program into which it is loaded."""
_HERE = Path(__file__).parent


def agent() -> Path:
    """The guest's first process."""
    return _compiled("agent", ("agent.c", "agent_task.c", "agent.h"))


def keeper() -> Path:
    """The parent of a guest's processes on the host."""
    return _compiled("keeper", ("keeper.c",))


def whole_xstate() -> Path:
    """What is preloaded into a kernel, for processors that have more state than it knows."""
    return _compiled("whole_xstate", ("whole_xstate.c",), _PRELOADED)


def _compiled(program: str, names: tuple[str, ...], flags: tuple[str, ...] = _PROGRAM) -> Path:
    """An executable or a library, built once for each version of its sources.

    Raises `GuestUnavailableError` where it cannot be built.
    """
    sources = [_HERE / name for name in names]
    compiler = next(filter(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang")), None)
    if compiler is None:
        raise GuestUnavailableError(
            f"the {program} of a real guest is a C program, and there is no C compiler: install "
            "gcc and libc6-dev"
        )
    content = b"".join(path.read_bytes() for path in sources)
    digest = hashlib.sha256(content + " ".join((compiler, *flags)).encode()).hexdigest()[:16]
    folder = cache_folder().parent
    target = folder / f"{program}-{digest}"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{program}-", dir=folder) as name:
        built = Path(name) / program
        c_files = [str(path) for path in sources if path.suffix == ".c"]
        done = subprocess.run(
            [compiler, *flags, "-o", str(built), *c_files],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise GuestUnavailableError(_why(program, compiler, done.stderr))
        built.replace(target)
    return target


def _why(program: str, compiler: str, text: str) -> str:
    if "cannot find -lc" in text or "libc.a" in text:
        return (
            f"the {program} of a real guest is linked statically, and {compiler} found no libc.a: "
            "install libc6-dev (glibc-static on Fedora)"
        )
    lines = text.strip().splitlines() or ["no word why"]
    return (
        f"{compiler} could not build the {program} of a real guest: {lines[-1]}; install libc6-dev"
    )
