"""Reading `/proc`: small functions, each of which reads one thing about one process.

They take a process' id, or a thread's, as text. Each raises FileNotFoundError or ProcessLookupError
when the process has gone, and PermissionError when we may not know. None can be made to wait: a
process is asked for its links, and no file of its is looked at, which may be on a file system that
does not answer.

Source: proc_pid_ns(5), proc_pid_root(5), proc_pid_cgroup(5), proc_pid_stat(5), proc_pid_fd(5),
proc_pid_fdinfo(5), cgroups(7).
"""

import array
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_CONTAINER = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)
_INODE = re.compile(rb"^ino:\s*(\d+)$", re.MULTILINE)  # since Linux 5.14
_NS_GET_USERNS = 0xB701  # linux/nsfs.h
_NS_GET_OWNER_UID = 0xB704  # linux/nsfs.h
_NS_GET_MNTNS_ID = 0x8008B705  # linux/nsfs.h, since Linux 6.11

TICKS = os.sysconf("SC_CLK_TCK")


class Process(NamedTuple):
    """A process, and no other that gets its id later: the kernel gives that another inode."""

    pid: str
    inode: int


def processes() -> Iterator[Process]:
    """Yield all processes."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                yield Process(entry.name, entry.inode())


def living(pid: str) -> tuple[str, str]:
    """Return a thread of a process, and its namespace; the first thread may end before others."""
    with suppress(FileNotFoundError):
        return pid, namespace(pid)
    for thread in threads(pid):
        with suppress(FileNotFoundError):
            return thread, namespace(thread)
    raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH), pid)


def threads(pid: str) -> list[str]:
    """Return the threads of a process."""
    return os.listdir(f"/proc/{pid}/task")


class Directory(NamedTuple):
    """A directory as a process has it: the mount that it is reached through, and its path.

    The path is from the root of the process' namespace, where another may be mounted over it. Of a
    directory whose path is too long for the kernel to tell, it is the number of the inode.
    """

    mount: bytes
    path: str


def root(pid: str) -> Directory:
    """Return the directory that is `/` for a process."""
    # The path alone does not tell it: that of any mount that was detached is "/", too.
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_CLOEXEC)
    try:
        return Directory(mount_of(fd), path_of(fd) or f"inode {_of_file(_INODE, fd)!r}")
    finally:
        os.close(fd)


def path_of(fd: int) -> str | None:
    """Return the path of a file that we have open; None if it is too long to be told."""
    return _link(f"/proc/self/fd/{fd}")


def mount_of(fd: int) -> bytes:
    """Return the id of the mount that a file of ours was opened through."""
    return _of_file(_MOUNT_ID, fd)


def _of_file(field: re.Pattern[bytes], fd: int) -> bytes:
    found = field.search(read(f"/proc/self/fdinfo/{fd}"))
    return found[1] if found else b""


def _link(path: str) -> str | None:
    """Return what a link names; None where that is longer than a page, which any user can have."""
    try:
        return os.readlink(path)  # noqa: PTH115  # of every process: a Path is slow
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def namespace(pid: str) -> str:
    """Return the name of the mount namespace that a process is in."""
    return os.readlink(f"/proc/{pid}/ns/mnt")  # noqa: PTH115  # as above


def number_of_namespace(pid: str) -> int:
    """Return the number of the mount namespace that a process is in; 0 on a kernel before 6.11.

    Its name goes to another namespace when it is gone, its number never does.
    """
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        number = array.array("Q", [0])
        with suppress(OSError):
            fcntl.ioctl(fd, _NS_GET_MNTNS_ID, number)
        return number[0]
    finally:
        os.close(fd)


def owner_of_namespace(pid: str) -> int:
    """Return who made the user namespace that owns the mount namespace that a process is in.

    That is root (0) for what was made on the host by root; any user can make one that is theirs.
    Source: ioctl_nsfs(2), NS_GET_USERNS and NS_GET_OWNER_UID.
    """
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        users = fcntl.ioctl(mounts, _NS_GET_USERNS)
    finally:
        os.close(mounts)
    try:
        uid = array.array("I", [0])
        fcntl.ioctl(users, _NS_GET_OWNER_UID, uid)
        return uid[0]
    finally:
        os.close(users)


def program(pid: str) -> str | None:
    """Return the path of the program that a process runs, as it knows it; None if too long."""
    return _link(f"/proc/{pid}/exe")


def used(pid: str) -> Iterator[str]:
    """Yield what a process, or a thread, has open or is in, each as a path in its namespace.

    What has a path that is too long for the kernel to tell is left out.
    """
    for name in ("cwd", "root", "exe", *(f"fd/{fd}" for fd in os.listdir(f"/proc/{pid}/fd"))):
        with suppress(FileNotFoundError):
            if (path := _link(f"/proc/{pid}/{name}")) is not None:
                yield path


def read(path: str) -> bytes:
    """Return the content of a file in `/proc`."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # as above
            return file.read()
    except OSError as error:
        if error.errno == errno.EINVAL:  # a process that has ended but was not waited for
            raise ProcessLookupError(error.errno, error.strerror, path) from error
        raise


def containers_in(cgroup: bytes) -> list[str]:
    """Return the ids of the containers that a `/proc/<pid>/cgroup` names, the outermost first.

    What is in a user's slice is not looked at: there users make what cgroups they like.
    """
    paths = [line.partition(b"/user.slice/")[0] for line in cgroup.splitlines()]
    found = _CONTAINER.findall(b"\n".join(paths))
    return [each.decode() for each in dict.fromkeys(found)]


def containers(pid: str) -> list[str]:
    """Return the ids of the containers that a process is in, the outermost first."""
    return containers_in(read(f"/proc/{pid}/cgroup"))


def command_and_start(pid: str) -> tuple[str, int]:
    """Return what a process is called, in ASCII, and when it began, in TICKS since the boot."""
    stat = read(f"/proc/{pid}/stat")
    # The command is in parentheses, and may itself have any character.
    opening, closing = stat.index(b"("), stat.rindex(b")")
    start_time = int(stat[closing + 2 :].split()[19])  # field 22
    return ascii(os.fsdecode(stat[opening + 1 : closing]))[1:-1], start_time
