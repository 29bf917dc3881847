"""How figures are written for people, in the log and by the commands."""


def counted(number: int, one: str, many: str) -> str:
    """Write a number of things: `1 file`, `1,000 files`."""
    return f"{number:,} {one if number == 1 else many}"


def size(number: float) -> str:
    """Write a number of bytes: `7 B`, `1.2 MB`; a kB is 1000 B."""
    if number < 1000:  # noqa: PLR2004  # which is what a prefix is worth
        return f"{number} B"
    prefixes = iter("kMGTPE")
    prefix = next(prefixes)
    number /= 1000
    while round(number, 1) >= 1000 and (larger := next(prefixes, "")):  # noqa: PLR2004
        prefix = larger
        number /= 1000
    return f"{number:.1f} {prefix}B"


def duration(seconds: float) -> str:
    """Write a time: `0.6 ms`, `120 ms`, `2.5 s`."""
    ms = seconds * 1e3
    if round(ms, 1) < 100:  # noqa: PLR2004  # three digits are enough
        return f"{ms:.1f} ms"
    return f"{ms:.0f} ms" if round(ms) < 1000 else f"{seconds:.1f} s"  # noqa: PLR2004
