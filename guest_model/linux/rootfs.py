"""The root file system of a guest: our agent as its first process, the driver, and a plan.

It is a folder that the guest mounts by hostfs. There is no shell in it and no other process, so
that nothing but the plan uses the guest's memory.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import DRIVER, Kernel, cache_folder
from guest_model.linux.plan import Plan

AGENT_SOURCES = tuple(
    Path(__file__).with_name(name) for name in ("agent.c", "agent_task.c", "agent.h")
)
COMPILE_TIMEOUT_S = 120
_FLAGS = ("-std=gnu11", "-O2", "-static")


def build_root(root: Path, kernel: Kernel, plan: Plan) -> None:
    """Fill an empty folder. Raises `GuestUnavailableError` where the agent cannot be built."""
    for name in ("proc", "sys", "dev", "files", "plan", "lib"):
        (root / name).mkdir()
    shutil.copy2(agent(), root / "init")
    modules = [_install(module, root / "lib") for module in driver_modules(kernel)]
    plan.write(root / "plan", [f"/lib/{name}" for name in modules])


def agent() -> Path:
    """The agent's executable: built by the machine's C compiler once for each version of it."""
    source = b"".join(path.read_bytes() for path in AGENT_SOURCES)
    compiler = next(filter(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang")), None)
    if compiler is None:
        raise GuestUnavailableError(
            "the agent of a real guest is a C program, and there is no C compiler: install gcc and "
            "libc6-dev"
        )
    digest = hashlib.sha256(source + " ".join((compiler, *_FLAGS)).encode()).hexdigest()[:16]
    folder = cache_folder().parent
    target = folder / f"agent-{digest}"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".agent-", dir=folder) as name:
        built = Path(name) / "agent"
        done = subprocess.run(
            [compiler, *_FLAGS, "-o", str(built), *map(str, AGENT_SOURCES[:2])],
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise GuestUnavailableError(_why(compiler, done.stderr))
        built.replace(target)
    return target


def driver_modules(kernel: Kernel) -> list[Path]:
    """The balloon's driver and what it needs, in the order in which they are to be loaded."""
    needs: dict[str, list[str]] = {}
    for line in (kernel.modules / "modules.dep").read_text().splitlines():
        name, _, rest = line.partition(":")
        needs[name] = rest.split()
    driver = next(name for name in needs if f"/{DRIVER}.ko" in name)
    return [kernel.modules / name for name in (*reversed(needs[driver]), driver)]


def _install(module: Path, folder: Path) -> str:
    """Copy a module, unpacked; its name there."""
    name = module.name
    content = module.read_bytes()
    if name.endswith(".xz"):
        name, content = name.removesuffix(".xz"), lzma.decompress(content)
    elif not name.endswith(".ko"):
        raise GuestUnavailableError(f"{module}: is packed in a way that is not known; unpack it")
    (folder / name).write_bytes(content)
    return name


def _why(compiler: str, text: str) -> str:
    if "cannot find -lc" in text or "libc.a" in text:
        return (
            f"the agent of a real guest is linked statically, and {compiler} found no libc.a: "
            "install libc6-dev (glibc-static on Fedora)"
        )
    lines = text.strip().splitlines() or ["no word why"]
    return f"{compiler} could not build the agent of a real guest: {lines[-1]}; install libc6-dev"
