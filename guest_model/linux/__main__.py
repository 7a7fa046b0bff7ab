"""Find or fetch the kernel of a real guest, build what runs with it, and print where they are."""

from __future__ import annotations

import sys

from guest_model.linux.compiled import agent, keeper, whole_xstate
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import find_kernel

if __name__ == "__main__":
    try:
        print(find_kernel().executable)
        print(agent())
        print(keeper())
        print(whole_xstate())
    except GuestUnavailableError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
