"""Archives of guests, good and hostile."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from emulator.inputs.errors import RecordingError
from emulator.inputs.guest_archive import MEMBERS, unpack

GOOD = {"facts": b"format x\n", "trace.txt.gz": b"y" * 1000, "iomem": b""}


def packed(
    files: dict[str, bytes], *more: tarfile.TarInfo, form: int = tarfile.USTAR_FORMAT
) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in more:
            tar.addfile(info)
    return raw.getvalue()


def special(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def refused(data: bytes, tmp_path: Path) -> str:
    """The error's text; nothing was written outside the folder."""
    archive, into = tmp_path / "guest.tar.gz", tmp_path / "into"
    archive.write_bytes(data)
    into.mkdir(exist_ok=True)
    with pytest.raises(RecordingError) as caught:
        unpack(archive, into)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["guest.tar.gz", "into"]
    assert {path.name for path in into.iterdir()} <= {*MEMBERS, ".console"}
    text = str(caught.value)
    assert text.startswith(str(archive))
    return text


def test_files_of_known_names_are_unpacked(tmp_path: Path) -> None:
    """Bytes and names as packed, in any member order, with or without ./ before them."""
    archive, into = tmp_path / "guest.tar.gz", tmp_path / "into"
    into.mkdir()
    files = {f"./{name}": data for name, data in reversed(GOOD.items())}
    archive.write_bytes(gzip.compress(packed(files, form=tarfile.GNU_FORMAT)))
    assert unpack(archive, into) == GOOD.keys()
    assert {path.name: path.read_bytes() for path in into.iterdir()} == GOOD


@pytest.mark.parametrize(
    "hostile",
    [
        special("iomem", tarfile.SYMTYPE),
        special("iomem", tarfile.LNKTYPE),
        special("iomem", tarfile.CHRTYPE),
        special("iomem", tarfile.FIFOTYPE),
        special("iomem", tarfile.DIRTYPE),
        tarfile.TarInfo("/etc/cron.d/x"),
        tarfile.TarInfo("../facts"),
        tarfile.TarInfo("a/../facts"),
        tarfile.TarInfo("reports.csv"),
        tarfile.TarInfo("x" * 90 + "/" + "y" * 90),
        tarfile.TarInfo("meta.yaml"),
    ],
    ids=lambda info: f"{info.name[:12]}-{info.type.decode()}",
)
def test_whatever_else_a_member_is_is_refused(hostile: tarfile.TarInfo, tmp_path: Path) -> None:
    """Links, devices, folders, other places, names that the script does not write."""
    text = refused(gzip.compress(packed({"facts": b""}, hostile)), tmp_path)
    assert "which the script does not write" in text


def test_a_member_comes_once(tmp_path: Path) -> None:
    """A second one of the same name could replace what was checked."""
    data = gzip.compress(packed(GOOD, tarfile.TarInfo("facts")))
    assert "holds facts twice" in refused(data, tmp_path)


def test_a_member_that_says_to_be_huge_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """64 MiB for the small files; a bomb is not inflated."""
    info = tarfile.TarInfo("iomem")
    info.size = (64 << 20) + 1
    data = gzip.compress(info.tobuf(tarfile.USTAR_FORMAT))
    assert "above the limit" in refused(data, tmp_path)


def test_extended_headers_are_refused(tmp_path: Path) -> None:
    """The script's names and sizes need none, and a reader that obeys them can be led astray."""
    info = tarfile.TarInfo("facts")
    info.pax_headers = {"path": "/etc/passwd"}
    data = gzip.compress(packed({}, info, form=tarfile.PAX_FORMAT))
    assert "which the script does not write" in refused(data, tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 2, 10, 20, 60, 90])
def test_a_cut_archive_is_an_error(kept: int, tmp_path: Path) -> None:
    """A download that broke off is no recording."""
    assert "again" in refused(gzip.compress(packed(GOOD))[:kept], tmp_path)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"hello\n" * 100, "neither a gzip file nor a console log"),
        (gzip.compress(b"hello" * 500), "is no tar file"),
        (gzip.compress(b""), "ends early"),
        (gzip.compress(packed({"facts": b""})), "lacks trace.txt.gz"),
        (b"\x1f\x8b" + bytes(100), "gzip is damaged"),
        (b"fpr> 1 !!!!\n", "line 1 of the script is damaged"),
        (b"fpr> 2 aGk=\n", "line 1 of the script is missing"),
        (b"fpr> 1 aGk=\nfpr> end 00\n", "differs from what the script sent"),
    ],
    ids=["text", "no-tar", "empty", "lacking", "damaged", "no-base64", "missing", "digest"],
)
def test_what_is_no_archive_says_so(data: bytes, says: str, tmp_path: Path) -> None:
    """Each with the file's name and the remedy."""
    assert says in refused(data, tmp_path)
