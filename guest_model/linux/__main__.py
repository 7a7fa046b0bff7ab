"""Find or fetch the kernels of real guests, build what runs with them, and print where they are.

Arguments: releases such as 6.12; none: the one that guests have where nothing else is asked for.
"""

from __future__ import annotations

import sys

from guest_model.linux.compiled import agent, keeper, whole_xstate
from guest_model.linux.errors import GuestUnavailableError
from guest_model.linux.kernel import find_kernel
from guest_model.linux.releases import DEFAULT

if __name__ == "__main__":
    try:
        for version in sys.argv[1:] or [DEFAULT.series]:
            print(find_kernel(version=version).executable)
        for build in (agent, keeper, whole_xstate):
            print(build())
    except GuestUnavailableError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
