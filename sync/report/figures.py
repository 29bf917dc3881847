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


# Figures that are numbers for programs, and are written in a log's line as people read them.


class Count(int):
    """How many of something there are: in words `1 file` if told of what, else `1,000`."""

    one: str
    many: str

    def __new__(cls, number: int, one: str = "", many: str = "") -> "Count":
        """Count `number` things, each of which is `one`, and several `many`."""
        made = super().__new__(cls, number)
        made.one, made.many = one, many
        return made

    def __str__(self) -> str:
        """Write it for people."""
        return counted(self, self.one, self.many) if self.one else f"{self:,}"


class Bytes(int):
    """A number of bytes: in words `1.2 MB`."""

    def __str__(self) -> str:
        """Write it for people."""
        return size(int(self))


class Seconds(float):
    """A time: in words `120 ms`."""

    def __str__(self) -> str:
        """Write it for people."""
        return duration(self)
