"""The command: `fpr` where it is installed, or `python -m fpr`."""

from __future__ import annotations

import sys

from fpr.own_packages import ForeignPackageError, adopt


def main() -> None:
    """Run the command line with the packages of this fpr; the process ends with its exit code."""
    try:
        adopt()
    except ForeignPackageError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    from emulator.cli import interrupt

    interrupt.install()  # before all else that takes time to import
    from emulator.cli.main import main as run

    run()


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # by `python -m` the folder of the user, where nothing is ours
    main()
