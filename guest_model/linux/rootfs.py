"""The root file system of a guest: our agent as its first process, the driver, and a plan.

It is a folder that the guest mounts by hostfs. There is no shell in it and no other process, so
that nothing but the plan uses the guest's memory.
"""

from __future__ import annotations

import lzma
import shutil
from pathlib import Path

from guest_model.linux.compiled import agent
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import DRIVER, Kernel
from guest_model.linux.plan import Plan


def build_root(root: Path, kernel: Kernel, plan: Plan) -> None:
    """Fill an empty folder. Raises `GuestUnavailableError` where the agent cannot be built."""
    for name in ("proc", "sys", "dev", "files", "plan", "lib"):
        (root / name).mkdir()
    shutil.copy2(agent(), root / "init")
    modules = [_install(module, root / "lib") for module in driver_modules(kernel)]
    plan.write(root / "plan", [f"/lib/{name}" for name in modules])


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
