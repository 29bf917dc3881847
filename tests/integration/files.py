"""Files for a test, in directories that need not be there."""

from pathlib import Path


def write(path: Path, text: str = "one") -> None:
    """Write a file, and make the directories that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make(root: Path, *names: str) -> None:
    """Make files; the content of each says what it is called."""
    for name in names:
        write(root / name, f"content of {name}")
