"""The command `mdvp-sync`, which `python -m sync` is, too.

Fails in one line where the package was installed without the libraries of this part: they are an
extra, and those who want the other part do without.
"""

import signal
import sys


def main() -> int:
    """Run the command; return its exit status."""
    try:
        from sync.cli import main as command  # noqa: PLC0415  # what it needs, it may lack

        return command()
    except KeyboardInterrupt:  # before, or where, nobody waits for one
        return 128 + signal.SIGINT
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "sync" or missing in sys.stdlib_module_names:
            raise
        print(
            f"mdvp-sync: the library {missing} is not installed: pip install 'mdvp[sync]', or pipx "
            "install --force 'mdvp[plugin,sync]', brings all that it needs",
            file=sys.stderr,
        )
        return 1


if __name__ == "__main__":
    sys.exit(main())
