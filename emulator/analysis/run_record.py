"""What a run left behind, as its report needs it: from the run itself, or from its folder."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emulator.simulation import results
from emulator.simulation.outcome import Outcome
from emulator.simulation.summary import Summary

CONTROL = "control_"
Arrays = dict[str, NDArray[Any]]


class FolderError(Exception):
    """A folder holds no results, or not all of them; the sentence says what is missing."""

    exit_code = 2


@dataclass(frozen=True)
class Side:
    """Of the run or of its control. `series` are columns of series.npz; `latencies` are tables as
    `Histogram.points` gives them, by name."""

    series: Arrays
    latencies: Arrays


@dataclass(frozen=True)
class RunRecord:
    """`memory_map` are the arrays of memory_map.npz; empty where there is no map."""

    summary: Summary
    manifest: Mapping[str, Any]
    run: Side
    control: Side | None
    memory_map: Arrays


def record_of(
    summary: Summary, manifest: Mapping[str, Any], run: Outcome, control: Outcome | None
) -> RunRecord:
    """Of a run that has just ended."""
    states = run.page_states
    return RunRecord(
        summary,
        manifest,
        _side(run),
        None if control is None else _side(control),
        {} if states is None else dict(states.arrays()),
    )


def _side(outcome: Outcome) -> Side:
    found = {"alloc_latency": outcome.alloc_latency, "fault_latency": outcome.fault_latency}
    return Side(dict(outcome.series), {k: v for k, v in found.items() if v is not None})


def read_folder(folder: Path) -> RunRecord:
    """Of a run that ended some time ago; `FolderError` where the folder does not hold one."""
    documents = {name: read_document(folder / name) for name in (results.SUMMARY, results.MANIFEST)}
    series = _arrays(folder / results.SERIES)
    latency = _arrays(folder / results.LATENCY, may_lack=True)
    names = {name.removeprefix(CONTROL) for name in series if name.startswith(CONTROL)}
    run = {name: array for name, array in series.items() if not name.startswith(CONTROL)}
    if not {"time_ns", "resident_bytes"} <= set(run):
        raise FolderError(f"{folder / results.SERIES}: no resident memory over time in it")
    control = {name: series[CONTROL + name] for name in names}
    return RunRecord(
        documents[results.SUMMARY],
        documents[results.MANIFEST],
        Side(run, _latencies(latency, "")),
        Side(control, _latencies(latency, CONTROL)) if control else None,
        _arrays(folder / results.MEMORY_MAP, may_lack=True),
    )


def _latencies(arrays: Arrays, prefix: str) -> Arrays:
    found = {}
    for name in ("alloc_latency", "fault_latency"):
        keys = f"{prefix}{name}_ns", f"{prefix}{name}_count"
        if all(key in arrays for key in keys):
            found[name] = np.column_stack([arrays[key] for key in keys])
    return found


def read_document(path: Path) -> dict[str, Any]:
    """A JSON document of a folder of results; `FolderError` where it cannot be read."""
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise FolderError(
            f"{path}: there is no such file; name a folder that `fpr run` has written"
        ) from None
    except (ValueError, OSError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; run the scenario again") from error
    if not isinstance(document, dict):
        raise FolderError(f"{path}: is not what `fpr run` writes; run the scenario again")
    return document


def _arrays(path: Path, *, may_lack: bool = False) -> Arrays:
    if may_lack and not path.exists():
        return {}
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except FileNotFoundError:
        raise FolderError(
            f"{path}: there is no such file; name a folder that `fpr run` has written"
        ) from None
    except (ValueError, OSError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise FolderError(f"{path}: cannot be read: {error}; run the scenario again") from error
