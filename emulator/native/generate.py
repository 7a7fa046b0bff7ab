"""Generate `_core.c`, the cffi binding of the C code, from the public headers.

Run as a script (the package needs the built binding). It writes the file; with `--check` it only
compares, exit 1 if stale.
The headers are the single declaration: everything in them must be plain C that cffi's parser reads,
apart from include guards and comments.
"""

import re
import sys
import tempfile
from pathlib import Path

from cffi import FFI

ROOT = Path(__file__).resolve().parents[2]
TARGET = ROOT / "emulator" / "native" / "_core.c"
HEADERS = (
    "emulator/native/status.h",
    "emulator/native/memory_port.h",
    "emulator/native/random.h",
    "emulator/native/trace_parser.h",
    "emulator/native/trace_pairing.h",
    "emulator/native/guest_memory.h",
    "emulator/native/shared_map.h",
    "emulator/native/event_signal.h",
    "emulator/native/ring.h",
    "emulator/native/split_ring.h",
    "emulator/native/split_driver.h",
    "emulator/native/packed_ring.h",
    "emulator/native/packed_driver.h",
    "emulator/native/report.h",
    "emulator/native/balloon.h",
    "guest_model/native/block.h",
    "guest_model/native/rules.h",
    "guest_model/native/allocator.h",
    "guest_model/native/boundary.h",
    "guest_model/native/free_pages.h",
    "guest_model/native/freed_bitmap.h",
    "guest_model/native/known_zero.h",
    "guest_model/native/replay.h",
    "guest_model/native/bench.h",
    "guest_model/native/report_batch.h",
    "emulator/native/histogram.h",
    "emulator/native/costs.h",
    "host_model/native/host.h",
    "host_model/native/pressure.h",
    "host_model/native/host_load.h",
    "host_model/native/footprint.h",
    "host_model/native/residency.h",
    "host_model/native/oracle.h",
    "guest_model/native/vcpu.h",
    "guest_model/native/vm_clock.h",
    "host_model/native/real_memory.h",
    "host_model/native/page_states.h",
    "host_model/native/shared_discard.h",
    "host_model/native/measure.h",
)


def declarations(text: str) -> str:
    """The part of a header that cffi reads: preprocessor lines go, integer constants stay."""
    kept = []
    for line in re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).splitlines():
        if not line.startswith("#") or re.match(r"#define \w+ (0x[0-9a-fA-F]+|\d+)u?\s*$", line):
            kept.append(re.sub(r"^(#define \w+ \w+?)u\s*$", r"\1", line))
    return "\n".join(kept) + "\n"


def generate(path: Path) -> None:
    """Write the generated C to `path`."""
    ffi = FFI()
    for header in HEADERS:
        ffi.cdef(declarations((ROOT / header).read_text()))
    ffi.set_source("emulator.native._core", "".join(f'#include "{header}"\n' for header in HEADERS))
    ffi.emit_c_code(str(path))


def main() -> int:
    """Command line of this module."""
    if "--check" not in sys.argv[1:]:
        generate(TARGET)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "_core.c"
        generate(fresh)
        if fresh.read_text() == TARGET.read_text():
            return 0
    print("emulator/native/_core.c is stale: run `make native`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
