"""Volumes that begin with the content of another: how that comes to them, and how far it is.

Failure model. A snapshot (btrfs) is made aside, recorded, and put at its place: what a crash leaves
of it before it is on record is deleted. Any other copy is made file by file and can take hours, so
the volume is recorded first, as one that is being filled, with its directory aside; it is put at
its place when all is in it and on disk. Until then nobody gets it. A copy that was cut off goes on
when mdvp is started again, one that has failed when somebody asks for the volume; the first of
which its Create still waits leaves nothing.

As long as a volume is copied that is not to change meanwhile, nobody gets that, either, and it
cannot be removed. All this is asked and decided with the driver's lock; copied is without it.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from threading import Semaphore

from mdvp import threads
from mdvp.core import options as core_options
from mdvp.core.clock import Clock
from mdvp.core.errors import (
    ConflictError,
    LaterError,
    MdvpError,
    NoSuchVolumeError,
    StorageError,
    UnavailableError,
)
from mdvp.core.lease import in_use
from mdvp.core.options import Options
from mdvp.core.volume import NO_DIRECTORY, Means, Volume
from mdvp.custody import Custody
from mdvp.disk import btrfs
from mdvp.disk.copy import Copy, Progress, StoppedError
from mdvp.disk.entry import Found, opened
from mdvp.disk.linux import sync_file_system
from mdvp.disk.root import Aside, Root
from mdvp.disk.store import Store
from mdvp.jobs import Announcer, Job, in_words, say_filled
from mdvp.places import Places

log = logging.getLogger(__name__)

# The engine gives up a Create and a Mount after two minutes.
PATIENCE = 100.0
_AT_ONCE = 2  # copies; the others wait for their turn
_MOST = 100  # that are under way, each with a thread of its own


class Filler:
    """Makes volumes with the content of others. What does not say so is to be called with the lock.

    Whoever holds the driver's lock is to call it, but for `wait` and `close`.
    """

    def __init__(  # noqa: PLR0913, PLR0917  # its collaborators
        self,
        root: Root,
        store: Store,
        places: Places,
        custody: Custody,
        now: Clock,
        ended: Callable[[str], object],
        end: Callable[[], object],
    ) -> None:
        """Fill the volumes in `store` that are not full yet, and those that are begun.

        `ended` is called, without the lock, with the name of each volume of which it is over, and
        with that of its source. Should a thread fail, `end` is called.
        """
        self._root = root
        self._store = store
        self._places = places
        self._custody = custody
        self._lock = custody.lock
        self._now = now
        self._ended = ended
        self._end = end
        self._at_once = Semaphore(_AT_ONCE)
        self._jobs: dict[str, Job] = {}  # those that run, and those that failed
        self._ending: set[Job] = set()  # of volumes that are removed
        self._closing = False

    def stop_all(self) -> None:
        """Stop all, for the next start to go on. Not to be called with the lock."""
        with self._lock:
            self._closing = True
            for job in self._all():
                job.stop()

    def close(self) -> None:
        """Stop all, and wait until it has ended. Not to be called with the lock."""
        self.stop_all()
        with self._lock:
            jobs = self._all()
        for job in jobs:
            if job.thread is not None:
                job.thread.join()

    # What is asked.

    def running(self, name: str) -> Job | None:
        """Return what is under way for the new volume `name`."""
        job = self._jobs.get(name)
        return None if job is None or job.finished else job

    def state(self, volume: Volume) -> str | None:
        """Say how far a volume is with being filled; None if it is not."""
        if not volume.is_being_filled:
            return None
        job = self._jobs.get(volume.name)
        return str(job) if job else "not begun"

    def is_at_work(self, aside: Aside) -> bool:
        """Say whether what is aside is being made, on record or not."""
        return any(job.aside == aside for job in self._all() if not job.finished)

    def check_mount(self, volume: Volume, *, again: bool) -> None:
        """Raise LaterError if a volume is not full yet, or is not to change while it is copied.

        If the copy of one has failed, it is begun again, if `again`.
        """
        if volume.is_being_filled:
            if again and self.running(volume.name) is None:
                self._go_on(volume)
            how_far = self.state(volume)
            state = f"volume {volume.name!r} gets the content of {volume.origin!r}: {how_far}"
            if self.running(volume.name) is not None:
                raise LaterError(state, PATIENCE)
            raise LaterError(
                f"{state}; when that is put right, start the container again, and it goes on; or "
                "remove the volume"
            )
        for job in self._copies_of(volume.name):
            if not job.options.live:
                wait = volume.wait or (0 if job.recorded else PATIENCE)
                raise LaterError(self._is_copied(job), wait)

    def why_copied(self, name: str) -> str | None:
        """Say why volume `name` cannot be removed or renamed while it is copied; None if not."""
        for job in self._copies_of(name):
            return f"{self._is_copied(job)}; wait for that, or remove {job.name!r}, which ends it"
        return None

    def _is_copied(self, job: Job) -> str:
        return f"volume {job.source!r} is being copied to volume {job.name!r}: {job}"

    def _copies_of(self, name: str) -> Iterator[Job]:
        running = [job for job in self._jobs.values() if not job.finished]
        return (job for job in running if job.source == name)

    def _all(self) -> list[Job]:
        return [*self._jobs.values(), *self._ending]

    # What is begun and ended.

    def begin(self, name: str, options: Options) -> Job:
        """Begin to make volume `name`, with the content of the one that `options` name.

        Whoever has begun it is to `wait` for it, without the lock.
        """
        self._check_open()
        if sum(not job.finished for job in self._all()) >= _MOST:
            raise ConflictError(f"{_MOST} volumes are being filled already: wait for some of them")
        source = self._source(options)
        self._root.check_free(name)
        fd = self._open(source)
        try:
            if _can_be_snapshot(fd):
                job = Job(name, source.name, options, fd, self._root.new_aside(), recorded=False)
            else:
                aside = self._make_aside(name, options)
                job = Job(name, source.name, options, fd, aside, recorded=True)
            job.waiting = 1  # from now on: it may fail before this returns
            return self._start(job)
        except BaseException:
            self._store.delete(name)
            os.close(fd)
            raise

    def join(self, name: str) -> Job | None:
        """Return what is under way for the new volume `name`, to `wait` for it without the lock."""
        job = self.running(name)
        if job is not None:
            job.waiting += 1
        return job

    def resume(self, volume: Volume) -> None:
        """Go on with a volume that is not full yet, as mdvp is started."""
        self._go_on(volume)

    def _check_open(self) -> None:
        if self._closing:
            raise ConflictError("mdvp is being ended; ask again when it is back")

    def stop(self, name: str) -> None:
        """End what is under way for volume `name`, which is removed."""
        job = self._jobs.pop(name, None)
        if job is not None and not job.finished:
            job.stop()
            self._ending.add(job)

    def wait(self, job: Job) -> None:
        """Wait for a job that was begun or joined, not for ever. Not to be called with the lock.

        Raises an MdvpError if it fails, and LaterError if a snapshot is not made by then; what is
        copied file by file goes on.
        """
        job.settled.wait(PATIENCE)
        with self._lock:
            job.waiting -= 1
            if job.error is not None:
                raise job.kind(
                    f"volume {job.name!r} cannot get the content of {job.source!r}: {job.error}"
                )
            if job.stopped:
                raise ConflictError(f"volume {job.name!r} was removed, or mdvp ends")
            if not job.finished and not job.recorded:
                raise LaterError(f"a snapshot of volume {job.source!r} is still being made")

    def _source(self, options: Options) -> Volume:
        name = options.origin or ""
        volume = self._store.volume(name)
        if volume is None:
            raise NoSuchVolumeError(name, adoptable=self._root.has_directory(name))
        if volume.identity == NO_DIRECTORY:
            raise ConflictError(
                f"volume {name!r} shows the content of {volume.reader_of!r}: copy that one"
            )
        if volume.is_being_filled:
            raise ConflictError(
                f"volume {name!r} is itself being filled: {self.state(volume)}; wait for that"
            )
        claims = self._custody.claims(volume)
        if not claims.free and not options.live:
            raise ConflictError(
                f"{in_use(volume, claims)}; stop that first, or copy it all the same with "
                "`-o from-live=true`: each file is then as it was at one instant, on btrfs all are"
            )
        return volume

    def _open(self, source: Volume) -> int:
        found = self._places.found(source)
        if found is not Found.OURS:
            raise ConflictError(
                f"volume {source.name!r} cannot be copied: its directory is not at "
                f"{self._root.mountpoint(source.name)}"
            )
        return self._root.open_volume(source)

    def _make_aside(self, name: str, options: Options) -> Aside:
        """Make an empty directory aside for a volume, and record that as being filled."""
        aside, identity = self._root.make(name, options)
        volume = core_options.volume(name, self._now().utc, identity, options)
        try:
            self._store.add(volume)
            self._store.sync()
        except BaseException:
            self._store.delete(name)
            self._root.delete(aside)
            raise
        return aside

    def _start(self, job: Job) -> Job:
        self._jobs[job.name] = job
        try:
            job.thread = threads.start(f"filler of {job.name}", lambda: self._run(job), self._end)
        except BaseException:
            del self._jobs[job.name]
            raise
        return job

    def _go_on(self, volume: Volume) -> None:
        """Begin again to fill a volume; whatever comes in between is said in its state."""
        options = Options(
            uid=volume.uid, gid=volume.gid, mode=volume.mode, origin=volume.origin, live=volume.live
        )
        aside = self._root.left(volume.identity)
        nowhere = self._root.new_aside()
        job = Job(volume.name, volume.origin or "", options, -1, aside or nowhere, recorded=True)
        try:
            self._check_open()
            if aside is None:
                raise StorageError("its directory is gone")
            source = self._store.volume(job.source)
            if source is None:
                raise NoSuchVolumeError(job.source)
            if not volume.live and not (claims := self._custody.claims(source)).free:
                raise ConflictError(in_use(source, claims))
            job.fd = self._open(source)
        except (MdvpError, OSError) as error:
            self._jobs[job.name] = job
            self._fail(job, error)
            job.finished = True
            job.settled.set()
            return
        self._start(job)

    # The thread of a job; what it does it does without the lock, but for what it records.

    def _run(self, job: Job) -> None:
        try:
            if job.recorded or not self._is_snapshot(job):
                self._fill(job)
        except StoppedError:
            pass
        except Exception as error:  # noqa: BLE001  # whatever users have put there
            with self._lock:
                self._fail(job, error)
        finally:
            os.close(job.fd)
            self._note_end(job)

    def _note_end(self, job: Job) -> None:
        with self._lock:
            job.finished = True
            job.settled.set()
            self._ending.discard(job)
            if job.error is None and self._jobs.get(job.name) is job:
                del self._jobs[job.name]
        self._ended(job.name)
        self._ended(job.source)

    def _fail(self, job: Job, error: Exception) -> None:
        job.error = in_words(error)
        if isinstance(error, UnavailableError):
            job.kind = UnavailableError
        undone = job.waiting > 0 or not job.recorded
        log.error(
            "volume %(volume)s cannot get the content of %(source)s: %(error)s%(_undone)s",
            {
                "event": "not_filled",
                "volume": job.name,
                "source": job.source,
                "error": job.error,
                "_undone": "; it is not made" if undone else "; a Mount of it tries again",
            },
            exc_info=None if isinstance(error, MdvpError | OSError) else error,
        )
        if undone and self._jobs.get(job.name) is job:
            del self._jobs[job.name]
            if job.recorded:
                self._store.delete(job.name)
                self._custody.forget(job.name)

    def _is_snapshot(self, job: Job) -> bool:
        """Make a snapshot the directory of a volume; return False if there can be none."""
        began = time.monotonic()
        try:
            btrfs.snapshot(job.fd, job.aside.entry, job.aside.folder)
        except OSError as error:
            log.warning(
                "no snapshot of volume %(source)s: %(error)s; it is copied file by file",
                {"event": "no_snapshot", "source": job.source, "error": error},
            )
            with self._lock:
                job.check()
                job.aside = self._make_aside(job.name, job.options)
                job.recorded = True
            return False
        with self._lock:
            options = self._unlimited(job)
        self._root.give_aside(job.aside, job.options)
        with self._lock:
            job.check()
            self._record_snapshot(job, options)
            job.finished = True  # with what is on record, or somebody is refused in between
        say_filled(job, Means.SNAPSHOT, began, Progress())
        return True

    def _record_snapshot(self, job: Job, options: Options) -> None:
        identity = self._root.identity(job.aside)
        if identity is None:
            raise StorageError("the snapshot is gone")
        volume = core_options.volume(job.name, self._now().utc, identity, options)
        volume = replace(volume, means=Means.SNAPSHOT)
        try:
            self._root.label(job.aside, volume)
            if job.options.size is not None:  # last, as it may be full by that
                self._root.limit_aside(job.aside, job.options.size)
            self._store.add(volume)
            self._store.sync()
            self._root.place(job.aside, job.name)
        except BaseException:
            self._store.delete(job.name)
            raise
        self._root.keep(volume)

    def _unlimited(self, job: Job) -> Options:
        """Take off the limit that a snapshot has of its source; return its options then."""
        try:
            self._root.limit_aside(job.aside, None)
        except UnavailableError:
            source = self._store.volume(job.source)
            if job.options.size is not None or source is None:
                raise
            # Who may not set limits cannot take that off, so it is said that there is one.
            return replace(job.options, size=source.size)
        return job.options

    def _fill(self, job: Job) -> None:
        with self._turn(job), opened(job.aside.entry, job.aside.folder) as target:
            began = time.monotonic()
            announcer = Announcer(job)
            with closing(Copy(job.fd, target, self._now().boot, announcer.go_on)) as copy:
                job.progress = copy.progress
                log.info(
                    "volume %(volume)s: copying the content of %(source)s",
                    {"event": "filling", "volume": job.name, "source": job.source},
                )
                copy.count()
                copy.run()
                means = copy.means
            self._root.give_aside(job.aside, job.options)
            sync_file_system(target)  # before it is on record that all is there
        with self._lock:
            job.check()
            self._record_filled(job, means)
            job.finished = True
        say_filled(job, means, began, job.progress)

    @contextmanager
    def _turn(self, job: Job) -> Iterator[None]:
        while not self._at_once.acquire(timeout=0.2):
            job.check()
        try:
            job.check()
            yield
        finally:
            self._at_once.release()

    def _record_filled(self, job: Job, means: Means) -> None:
        before = self._store.volume(job.name)
        if before is None:
            raise StoppedError
        volume = replace(before, means=means)
        self._root.check_free(job.name)
        self._root.label(job.aside, volume)
        try:
            self._store.replace(volume)
            self._store.sync()
            self._root.place(job.aside, job.name)
        except BaseException:
            with suppress(Exception):  # it is the first error that is told
                self._store.replace(before)
            raise
        self._root.keep(volume)


def _can_be_snapshot(fd: int) -> bool:
    with suppress(OSError):
        return btrfs.subvolume(fd) is not None and not btrfs.has_subvolumes(fd)
    return False
