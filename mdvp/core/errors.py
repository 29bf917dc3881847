"""What can go wrong, in words for someone at a `docker` prompt.

Every message names the thing and the way out. The classes say what kind of failure it is; what that
means in HTTP is the business of `mdvp.wire.api`.
"""


class MdvpError(Exception):
    """Any failure that mdvp explains to its caller."""


class BadRequestError(MdvpError):
    """The request is not one of the protocol, or names something that cannot be."""


class NoSuchVolumeError(MdvpError):
    """The volume is not one of ours."""

    def __init__(self, name: str, *, adoptable: bool = False) -> None:
        """Name the volume that is missing; `adoptable`: a directory of its name is there."""
        super().__init__(
            f"no volume {name!r}, but a directory of that name: `docker volume create -d mdvp "
            f"-o adopt=true {name}` makes it one"
            if adoptable
            else f"no volume {name!r}: `docker volume ls -f driver=mdvp` shows those there are"
        )


class ConflictError(MdvpError):
    """The volume, or its place on disk, is somebody else's at the moment."""


class UnavailableError(MdvpError):
    """What is asked for takes what this machine does not have, or mdvp may not do."""


class BusyError(MdvpError):
    """There is no time for this now; it can be asked for again."""


class LaterError(ConflictError):
    """It cannot be had now, and may be later, without the client's doing.

    Attributes:
        seconds: for how long it is worth to wait for that, from when it was asked for.

    """

    def __init__(self, text: str, seconds: float = 0.0) -> None:
        """Say why it cannot be had now."""
        super().__init__(text)
        self.seconds = seconds


class StorageError(MdvpError):
    """The root directory or the state in it cannot be used as it is."""


class SettingsError(MdvpError):
    """A setting is not what it can be."""


class ListenError(MdvpError):
    """mdvp cannot be reached at the address that it was given."""


class NoAnswerError(Exception):
    """The request is to get no answer: its connection is closed, and the client asks again."""
