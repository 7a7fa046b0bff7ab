"""Starts a User-mode Linux guest on a vhost-user socket, reads its console, and ends it."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from guest_model.linux.compiled import keeper, whole_xstate
from guest_model.linux.console import Console
from guest_model.linux.errors import GuestFailedError
from guest_model.linux.kernel import Kernel

MAX_LOG_BYTES = 4 << 20
"""Of a console; a guest whose device died can print without end."""
GRACE_S = 3
"""That a kernel has to end by itself when it is told to."""
COMPLAINTS = ("is not a head", "out of range", "scheduling from the idle thread")
"""What the kernel prints when a device breaks its rings."""
_PREFIX = "fpr: "
_END = None


@dataclass(frozen=True, slots=True)
class Said:
    """A line of the agent's, without its prefix, and when it came: CLOCK_MONOTONIC of the host."""

    time_ns: int
    text: str

    @property
    def facts(self) -> dict[str, str]:
        """Its `name=value` words."""
        return dict(word.split("=", 1) for word in self.text.split() if "=" in word)


class UmlMachine:
    """A running guest. Use as a context manager: its processes and its folder end with it.

    It ends with the thread that made it, also where this process is killed, and after `timeout_s`.
    """

    def __init__(
        self,
        kernel: Kernel,
        folder: Path,
        socket: Path,
        *,
        memory_bytes: int,
        timeout_s: int,
        parameters: Sequence[str] = (),
    ) -> None:
        """Boot with folder/root as root file system; `socket` is the balloon device's.

        `parameters` are further words of the kernel's command line.
        """
        self.folder = folder
        self.complaints: list[str] = []
        self._lines: queue.SimpleQueue[Said | None] = queue.SimpleQueue()
        self._console = Console()
        self._log_bytes = 0
        command = [str(keeper()), str(os.getpid()), str(timeout_s), str(GRACE_S)]
        command += [
            str(kernel.executable),
            f"mem={memory_bytes >> 20}M",
            f"virtio_uml.device={socket}:5",
            "rootfstype=hostfs",
            f"rootflags={folder / 'root'}",
            "rw",
            "init=/init",
            "norandmaps",
            "con=null",
            "con0=fd:0,fd:1",
            f"uml_dir={folder / 'uml'}",
            *parameters,
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=kernel.library,
            env=_environment(kernel, folder),
        )
        self._reader = threading.Thread(target=self._read, daemon=True, name="guest console")
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.stop()

    def say(self, timeout_s: float) -> Said | None:
        """What the agent says next; None where the guest has ended.

        Raises `TimeoutError` where nothing comes, `GuestFailedError` where the agent failed.
        """
        try:
            line = self._lines.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError from None
        if line is not None and line.text.startswith("error "):
            raise GuestFailedError(f"the guest's agent: {line.text.removeprefix('error ')}")
        return line

    def go_on(self) -> None:
        """Let the agent go on that waits; where the guest has died, `say` tells."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            os.write(self._process.stdin.fileno(), b"\n")

    def failure(self, what: str) -> GuestFailedError:
        """The error for what happened, with what the console shows of its cause and a remedy."""
        return self._console.error(what)

    def wait(self, timeout_s: float) -> None:
        """Let it end by itself; one that does not is ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def stop(self) -> None:
        """Kill all of its processes, if it still runs. May be called twice."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _read(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        for raw in stream:
            self._log_bytes += len(raw)
            if self._log_bytes > MAX_LOG_BYTES:
                continue
            line = raw.decode("utf-8", "replace").rstrip()
            self._console.add(line)
            self.complaints += [line] if any(each in line for each in COMPLAINTS) else []
            _, found, said = line.partition(_PREFIX)
            if found:
                self._lines.put(Said(time.monotonic_ns(), said))
        self._lines.put(_END)


def preloaded() -> list[Path]:
    """Libraries whose functions come before those of a kernel's C library."""
    return [whole_xstate()]


def _environment(kernel: Kernel, folder: Path) -> dict[str, str]:
    """The keeper is linked statically: what is said of libraries concerns the kernel alone."""
    own = {} if kernel.library is None else {"LD_LIBRARY_PATH": "."}  # where it is started
    return {
        "TMPDIR": str(folder),
        "HOME": str(folder),
        "PATH": os.defpath,
        "LD_PRELOAD": ":".join(_linked(each, folder) for each in preloaded()),
        **own,
    }


def _linked(library: Path, folder: Path) -> str:
    """A name in the guest's folder, which has no space and no colon: these end a name there."""
    (folder / library.name).symlink_to(library)
    return str(folder / library.name)
