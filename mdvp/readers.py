"""Volumes that show the directory of another, read-only, to any number of containers at a time.

That a reader cannot write is the kernel's doing: it has its directory from a view of the whole
root, which is mounted read-only in mdvp's folder, and with a mark by which a reader's mount is told
from others (`mdvp.host.mountinfo.Mount.is_readers`). To mount that takes CAP_SYS_ADMIN. Where mdvp
has it, it mounts the view when the first reader is asked for; else somebody may have mounted it.

Failure model. A view that is there now may be gone later, and mdvp may not see what the engine
sees. So it is looked up at each Create and Mount of a reader, by the path by which the engine finds
it. A mdvp that is killed leaves its view, which is as good as a new one. A reader has nothing of
its own: it is a record, which is lost with the state database.
"""

import logging

from mdvp.core.errors import ConflictError, UnavailableError
from mdvp.core.lease import in_use
from mdvp.core.volume import Volume
from mdvp.custody import Custody, Kernel
from mdvp.disk.entry import Found
from mdvp.disk.root import Root
from mdvp.disk.store import Store

log = logging.getLogger(__name__)


class Readers:
    """The volumes that show another's directory. To be used by who holds the driver's lock."""

    def __init__(self, root: Root, store: Store, kernel: Kernel, custody: Custody) -> None:
        """Have readers of the volumes in `store`; nothing is mounted yet."""
        self._root = root
        self._store = store
        self._kernel = kernel
        self._custody = custody
        self._mounted = False

    def close(self) -> None:
        """Take away the view, if it is ours: who reads goes on."""
        if self._mounted:
            self._unmount()

    def ensure(self, reader: Volume) -> None:
        """Have what a reader shows where the engine finds it.

        Raises ConflictError and UnavailableError, with what is missing.
        """
        volume = self._store.volume(reader.reader_of or "")
        if volume is None:
            raise ConflictError(
                f"volume {reader.name!r} shows {reader.reader_of!r}, which is no volume any more: "
                f"create that, or remove {reader.name!r}"
            )
        self._check_readable(volume)
        self._ensure_view()

    def check_source(self, name: str) -> None:
        """See to it that a reader of volume `name` can be made; raises as `check`."""
        volume = self._store.volume(name)
        if volume is None:
            raise ConflictError(f"there is no volume {name!r} to read: create that first")
        if volume.reader_of is not None:
            raise ConflictError(
                f"volume {name!r} is a reader itself: use -o reader-of={volume.reader_of}"
            )
        self._ensure_view()

    def refusal(self, volume: Volume) -> str | None:
        """Return why a volume cannot be removed, if somebody reads it."""
        for reader in self._store.readers_of(volume.name):
            claims = self._custody.claims(reader)
            if not claims.free:
                return f"volume {volume.name!r} is being read: {in_use(reader, claims)}"
        return None

    def _check_readable(self, volume: Volume) -> None:
        if volume.is_being_filled:
            raise ConflictError(
                f"volume {volume.name!r} gets the content of {volume.origin!r} still: wait for "
                "that; `docker volume inspect` shows how far it is"
            )
        if self._root.find(volume.name, volume.identity) is not Found.OURS:
            raise ConflictError(
                f"volume {volume.name!r} cannot be read: what is at "
                f"{self._root.mountpoint(volume.name)} is not its directory"
            )

    # The view.

    def _ensure_view(self) -> None:
        root, view = self._root.path, self._root.view
        if self._kernel.has_mark():
            raise UnavailableError(
                f"{root} is mounted with nodiratime, by which mdvp would know the mount of a "
                "reader: mount it without (`mount -o remount,diratime`), and start mdvp again"
            )
        if self._kernel.has_view(str(root), view):
            return
        reason = self._mount()
        if not self._kernel.has_view(str(root), view):
            self.close()
            raise UnavailableError(
                f"a reader takes a read-only view of {root} at {root}/{view}, where the engine has "
                f"none{reason}: that takes CAP_SYS_ADMIN, which a plugin has that was built with "
                "scripts/build_plugin.sh --sys-admin; for a service of systemd there is "
                "systemd/readers.conf (docs/life.md has both, and docs/security.md what it costs)"
            )

    def _mount(self) -> str:
        """Mount the view; return why it cannot be, for a message."""
        try:
            self._root.mount_view()
        except OSError as error:
            return f", and mdvp cannot mount it ({error.strerror})"
        self._mounted = True
        log.info(
            "mounted a read-only view of %(root)s at %(view)s, for readers",
            {"event": "view_mounted", "root": self._root.path, "view": self._root.view},
        )
        return ""

    def _unmount(self) -> None:
        self._mounted = False
        try:
            self._root.unmount_view()
        except OSError as error:
            log.warning(
                "cannot unmount the read-only view at %(view)s: %(error)s",
                {"event": "view_stays", "view": self._root.view, "error": error},
            )
