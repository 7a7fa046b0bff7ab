"""The folder of results: written under a temporary name, then renamed, never over another one."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.scenario.model import Scenario
from emulator.simulation.outcome import Outcome
from emulator.simulation.summary import Summary

SUMMARY = "summary.json"
SERIES = "series.npz"
MANIFEST = "manifest.json"
LATENCY = "latency.npz"
MEMORY_MAP = "memory_map.npz"
Fill = Callable[[Any], object]
"""Writes a file's content into what is open for writing."""
_NAME_BYTES = 180  # of the 255 that a file system takes; the time and a number follow


class ResultsError(Exception):
    """Results cannot be written; the sentence says why, and what to do."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


def default_folder(of: str, now: datetime) -> Path:
    """results/NAME-TIME below the working directory; another number behind it where that exists.

    Asked again once the results are there, it gives way to a run of the same second.
    """
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in of)
    name = name.lstrip(".").encode()[:_NAME_BYTES].decode(errors="ignore") or "run"
    folder = Path("results") / f"{name}-{now:%Y%m%dT%H%M%S}"
    others = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(each for each in chain([folder], others) if not os.path.lexists(each))


def check_free(folder: Path) -> None:
    """Before a run: raises `ResultsError` where its results could not be written afterwards."""
    if folder.exists() or folder.is_symlink():
        raise ResultsError(
            f"{folder}: exists already, and results never replace others; name another one by -o",
            2,
        )
    parent = next(each for each in folder.absolute().parents if each.exists())
    if not parent.is_dir():
        raise ResultsError(f"{folder}: {parent} is no folder; name another one by -o", 2)
    if not os.access(parent, os.W_OK | os.X_OK):
        raise ResultsError(f"{folder}: {parent} cannot be written to; name another one by -o", 2)


def write(
    folder: Path,
    summary: Summary,
    manifest: dict[str, Any],
    run: Outcome,
    control: Outcome | None,
) -> None:
    """Write the numbers of a run: all of it or nothing."""
    write_files(folder, files_of(summary, manifest, run, control))


def files_of(
    summary: Summary, manifest: dict[str, Any], run: Outcome, control: Outcome | None
) -> dict[str, Fill]:
    """The files of a run, by name. Arrays of the control have names that begin with control_."""
    sides = {"": run} if control is None else {"": run, "control_": control}
    files: dict[str, Fill] = {
        SUMMARY: lambda file: file.write(as_json(summary)),
        MANIFEST: lambda file: file.write(as_json(manifest)),
        SERIES: _arrays(
            {f"{p}{name}": a for p, s in sides.items() for name, a in s.series.items()}
        ),
        LATENCY: _arrays({f"{p}{name}": a for p, s in sides.items() for name, a in _latency(s)}),
    }
    if run.page_states is not None:
        files[MEMORY_MAP] = _arrays(run.page_states.arrays())
    return files


def _latency(outcome: Outcome) -> Iterator[tuple[str, NDArray[np.generic]]]:
    for name in ("alloc_latency", "fault_latency"):
        points = getattr(outcome, name)
        if points is not None:
            yield f"{name}_ns", points[:, 0]
            yield f"{name}_count", points[:, 1]


def _arrays(arrays: Mapping[str, NDArray[np.generic]]) -> Fill:
    return lambda file: np.savez_compressed(file, allow_pickle=False, **arrays)


def write_files(folder: Path, files: Mapping[str, Fill]) -> None:
    """Write a folder with these files, or nothing; a name may lead through folders below it."""
    check_free(folder)
    building = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    parents = [each for each in building.absolute().parents if not each.exists()]
    try:
        building.mkdir(parents=True)
        for name, fill in files.items():
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            _write_file(building / name, fill)
        building.rename(folder)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        for parent in parents:  # empty, unless somebody else has come to use it
            with suppress(OSError):
                parent.rmdir()
        raise _explained(folder, error) from error
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def put_file(path: Path, content: bytes) -> None:
    """Write a file whole, in place of one of that name if there is any; `OSError` if it fails."""
    building = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        _write_file(building, lambda file: file.write(content))
        building.replace(path)
    except BaseException:
        with suppress(OSError):
            building.unlink()
        raise


def replace_file(path: Path, content: bytes) -> None:
    """The same for a file that a user has named: raises `ResultsError`."""
    try:
        put_file(path, content)
    except OSError as error:
        raise _explained(path, error) from error


def as_json(document: object) -> bytes:
    """Bytes of a document: the same for the same content."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def manifest_of(
    scenario: Scenario, *, started: datetime, finished: datetime, arguments: list[str]
) -> dict[str, Any]:
    """What was run, where and when: all that summary.json must not depend on."""
    return {
        "schema": "fpr.manifest/1",
        "version": version("fpr"),
        "arguments": arguments,
        "scenario": scenario.model_dump(mode="json", by_alias=True),
        "started": started.astimezone(UTC).isoformat(),
        "finished": finished.astimezone(UTC).isoformat(),
        "wall_s": round((finished - started).total_seconds(), 3),
        "machine": {
            "kernel": platform.platform(),
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "python": sys.version.split()[0],
        },
    }


def _write_file(path: Path, fill: Fill) -> None:
    with path.open("xb") as file:
        fill(file)
        file.flush()
        os.fsync(file.fileno())


def _explained(folder: Path, error: OSError) -> ResultsError:
    what = error.strerror or str(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        remedy = "make room there, or name a folder on another disk by -o"
        return ResultsError(f"{folder}: {what}; nothing was written: {remedy}", 3)
    return ResultsError(f"{folder}: {what}; nothing was written: name another folder by -o", 2)
