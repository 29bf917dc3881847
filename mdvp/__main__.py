"""The command `mdvp`, which `python -m mdvp` is, too.

Fails in one line where the package was installed without the libraries of this part: they are an
extra, and those who want the other part do without.
"""

import sys


def main() -> int:
    """Run the command; return its exit status."""
    try:
        from mdvp.cli import main as command  # noqa: PLC0415  # which needs the libraries
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "mdvp" or missing in sys.stdlib_module_names:
            raise
        print(
            f"mdvp: the library {missing} is not installed: pip install 'mdvp[plugin]', or pipx "
            "install --force 'mdvp[plugin,sync]', brings all that it needs",
            file=sys.stderr,
        )
        return 1
    return command()


if __name__ == "__main__":
    sys.exit(main())
