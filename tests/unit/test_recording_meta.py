"""`meta.yaml` of a recording."""

from __future__ import annotations

from pathlib import Path

import pytest

from emulator.inputs.errors import Note, RecordingError
from emulator.inputs.meta import Meta, load_meta
from tests.support import BOOT_TMPFS

TEXT = (BOOT_TMPFS / "meta.yaml").read_text()


def load(tmp_path: Path, text: str | bytes) -> tuple[Meta, list[Note]]:
    path = tmp_path / "meta.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    notes: list[Note] = []
    return load_meta(path, notes), notes


def replaced(key: str, value: str | None) -> str:
    """The real file with one key's value replaced, or the key removed."""
    lines = [line for line in TEXT.splitlines() if not line.startswith(f"{key}:")]
    return "\n".join([*lines, *([] if value is None else [f"{key}: {value}"])]) + "\n"


def test_a_real_file_is_read_whole(tmp_path: Path) -> None:
    """Every key of a recording is known."""
    meta, notes = load(tmp_path, TEXT)
    assert notes == []
    assert meta.kernel == "6.1.0-56-cloud-amd64"
    assert (meta.hz, meta.cpus, meta.page_size, meta.pageblock_order) == (250, 1, 4096, 9)
    assert meta.page_reporting_delay_ms == 2000
    assert meta.workload_s == (13.439662, 19.987891)
    assert meta.trace_from_boot is True


def test_every_mistake_is_reported_at_once(tmp_path: Path) -> None:
    """Wrong values at their place, and each missing key by its name."""
    text = "kernel: 6.1\ncpus: two\nhz: 0\npage_size: 5000\nfree_map_taken_s: [9, 2]\nhz: 3\n"
    with pytest.raises(RecordingError) as caught:
        load(tmp_path, text)
    said = str(caught.value)
    assert len(caught.value.mistakes) == 8
    for part in (
        "meta.yaml:1:9: kernel: ",
        "meta.yaml:2:7: cpus: 'two' does not belong here; write a whole number from 1 to 8192",
        "meta.yaml:3:5: hz: 0 does not",
        "meta.yaml:4:12: page_size: 5000 does not belong here; write 4096",
        "meta.yaml:5:19: free_map_taken_s: [9, 2] does not belong here; write the earlier",
        "meta.yaml:6:1: hz: this key is already on line 3",
        "meta.yaml:1:1: pageblock_order: missing",
        "meta.yaml:1:1: page_reporting_order: missing",
    ):
        assert part in said


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel", "6.1"),
        ("kernel", '"six"'),
        ("kernel_command_line", "[a]"),
        ("cpus", "true"),
        ("cpus", "0"),
        ("cpus", "1.5"),
        ("page_reporting_order", "99"),
        ("first_pass_s", "-1"),
        ("first_pass_s", "soon"),
        ("first_pass_s", "1e300"),
        ("workload_s", "[1, 2, 3]"),
        ("workload_s", "{a: 1}"),
        ("page_size", "[4096]"),
        ("trace_from_boot", "yes"),
        ("trace_from_boot", "1"),
        ("managed_memory_kib", "99999999999999999999"),
    ],
)
def test_a_wrong_value_says_what_to_write(tmp_path: Path, key: str, value: str) -> None:
    """The message names the key and has a remedy."""
    with pytest.raises(RecordingError, match=rf"{key}: .*; write "):
        load(tmp_path, replaced(key, value))


@pytest.mark.parametrize("key", ["pageblock_order", "page_reporting_order"])
def test_no_order_is_above_that_of_the_largest_block(tmp_path: Path, key: str) -> None:
    """4 KiB pages come in blocks of up to order 10, 64 KiB pages of up to order 13."""
    text = replaced(key, "13")
    with pytest.raises(RecordingError, match=rf"{key}: above 10, the largest order"):
        load(tmp_path, text)
    meta, _ = load(tmp_path, text.replace("page_size: 4096", "page_size: 65536"))
    assert meta.top_order == 13


def test_what_can_be_found_elsewhere_is_taken_from_there(tmp_path: Path) -> None:
    """A missing key that something stands for is a note, not an error."""
    for key in ("hz", "page_reporting_delay_ms", "trace_from_boot", "workload_s", "first_pass_s"):
        _, notes = load(tmp_path, replaced(key, None))
        assert [str(note) for note in notes if f"no {key}: taken instead" in note.what]


def test_unknown_keys_are_noted_with_what_they_may_mean(tmp_path: Path) -> None:
    """A later recorder may say more than this reader knows."""
    _, notes = load(tmp_path, TEXT + "thp: always\npage_reporting_delay: 3\n")
    assert "unknown key 'thp': ignored" in str(notes[0])
    assert "(meant page_reporting_delay_ms?)" in str(notes[1])
    assert notes[1].line == TEXT.count("\n") + 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "- a\n",
        "kernel: [\n",
        "a: b: c\n",
        "[" * 50_000,
        "a: &a [*a]\n",
        b"\xff\xfe\x00kernel",
        b"kernel: \xc3\x28\n",
        "hz: 250\n---\nhz: 250\n",
        "x" * (2 << 20),
    ],
)
def test_what_is_no_yaml_is_one_error_with_a_place(tmp_path: Path, text: str | bytes) -> None:
    """Nested without end, not UTF-8, too long, or not keys at all."""
    with pytest.raises(RecordingError, match=r"meta\.yaml:\d+:\d+: "):
        load(tmp_path, text)
