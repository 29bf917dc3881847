"""Ends a process by SIGKILL right before a system call that would change its disk: the nth of all.

strace(1) can inject a signal, too, but counts each system call and each thread on its own, so that
most of the moments in the work of several threads cannot be named to it. Here one number counts
them all. A call that is about to be made when SIGKILL comes is not made any more (ptrace(2): the
process stops before each, and a fatal signal ends it there).

Only for 64-bit x86, whose numbers of system calls these are.
"""

import ctypes
import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

_SEIZE, _INTERRUPT, _SYSCALL, _LISTEN, _SYSCALL_INFO = 0x4206, 0x4207, 24, 0x4208, 0x420E
_OPTIONS = 0x1 | 0x8 | 0x100000  # TRACESYSGOOD, TRACECLONE, EXITKILL
_SYSCALL_STOP = signal.SIGTRAP | 0x80
_EVENT_STOP = 128
_ENTRY = 1
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_INFO = struct.Struct("=B3xIQQQ6Q")  # struct ptrace_syscall_info, on entry
_ANY_THREAD = 0x40000000  # __WALL

# asm/unistd_64.h
_WORDS = [
    "76",
    "truncate",
    "77",
    "ftruncate",
    "82",
    "rename",
    "83",
    "mkdir",
    "84",
    "rmdir",
    "85",
    "creat",
    "86",
    "link",
    "87",
    "unlink",
    "88",
    "symlink",
    "90",
    "chmod",
    "91",
    "fchmod",
    "92",
    "chown",
    "93",
    "fchown",
    "94",
    "lchown",
    "133",
    "mknod",
    "165",
    "mount",
    "166",
    "umount2",
    "188",
    "setxattr",
    "189",
    "lsetxattr",
    "190",
    "fsetxattr",
    "197",
    "removexattr",
    "198",
    "lremovexattr",
    "199",
    "fremovexattr",
    "258",
    "mkdirat",
    "259",
    "mknodat",
    "260",
    "fchownat",
    "263",
    "unlinkat",
    "264",
    "renameat",
    "265",
    "linkat",
    "266",
    "symlinkat",
    "268",
    "fchmodat",
    "280",
    "utimensat",
    "285",
    "fallocate",
    "316",
    "renameat2",
    "429",
    "move_mount",
    "442",
    "mount_setattr",
    "452",
    "fchmodat2",
]
_ALWAYS = {int(number): name for number, name in zip(_WORDS[::2], _WORDS[1::2], strict=True)}
# Each to a descriptor, which may as well be a socket's or the log's.
_WRITES = {1: "write", 18: "pwrite64", 20: "writev", 40: "sendfile", 296: "pwritev"}
_COPY_FILE_RANGE = 326  # the descriptor that is written to is the third
_OPEN, _OPENAT, _OPENAT2, _IOCTL = 2, 257, 437, 16
_MAKES = os.O_CREAT | os.O_TRUNC
_FILE_SYSTEMS_OWN = 0x94  # of an ioctl: btrfs', and FICLONE; but not those that only look
_LOOKS = {18}  # BTRFS_IOC_INO_LOOKUP

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long


def _ptrace(
    request: int, thread: int, first: int = 0, second: int | ctypes.Array[ctypes.c_char] = 0
) -> None:
    if _libc.ptrace(request, thread, first, second) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class Tracer:
    """Watches a process until it has ended, from a process of its own: see ptrace(2) on waiting.

    Attributes:
        calls: once it has ended, those that change the disk, in their order, each as `rename` or
            `write state.db-wal`.
        killed: once it has ended, whether it was this that ended it.

    """

    def __init__(self, pid: int, at: int, root: Path) -> None:
        """Kill it before call `at` (from 0), if it comes; return when it is watched.

        What is written to a file counts if that is below `root`.
        """
        self.calls: list[str] = []
        self.killed = False
        command = [sys.executable, "-ISE", __file__, str(pid), str(at), f"{root}/"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._output = self._process.stdout
        assert self._output.readline() == "watching\n"

    def watches(self) -> bool:
        """Say whether the process has not ended yet."""
        return self._process.poll() is None

    def end(self) -> None:
        """Wait until the process has ended."""
        with self._output:
            self.killed, self.calls = json.loads(self._output.read())
        assert self._process.wait() == 0


class _Watch:
    def __init__(self, pid: int, at: int, root: str) -> None:
        self.calls: list[str] = []
        self.killed = False
        self._pid = pid
        self._at = at
        self._root = root
        self._threads: set[int] = set()
        self._to_stop: set[int] = set()

    def run(self) -> None:
        self._attach()
        while self._threads:
            thread, status = os.waitpid(-1, _ANY_THREAD)
            if os.WIFSTOPPED(status):
                self._threads.add(thread)  # a new one, perhaps
                with suppress(ProcessLookupError):  # it was killed meanwhile
                    self._go_on(thread, status)
            else:
                self._threads.discard(thread)
            if self._to_stop:
                self._to_stop.discard(thread)
                if not self._to_stop:
                    print("watching", flush=True)

    def _attach(self) -> None:
        while new := set(map(int, os.listdir(f"/proc/{self._pid}/task"))) - self._threads:
            for thread in new:
                _ptrace(_SEIZE, thread, 0, _OPTIONS)
                _ptrace(_INTERRUPT, thread)
            self._threads |= new
        self._to_stop = set(self._threads)

    def _go_on(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if event == _EVENT_STOP and number in _STOPPING:
            _ptrace(_LISTEN, thread)
            return
        if number == _SYSCALL_STOP:
            self._look(thread)
            number = 0
        _ptrace(_SYSCALL, thread, 0, 0 if event else number)

    def _look(self, thread: int) -> None:
        buffer = ctypes.create_string_buffer(_INFO.size)
        _ptrace(_SYSCALL_INFO, thread, _INFO.size, buffer)
        operation, _, _, _, number, *arguments = _INFO.unpack(buffer.raw)
        if operation != _ENTRY or self.killed:
            return
        call = self._changing(thread, number, arguments)
        if call is None:
            return
        if len(self.calls) == self._at:
            self.killed = True
            os.kill(self._pid, signal.SIGKILL)
        self.calls.append(call)

    def _changing(self, thread: int, number: int, arguments: list[int]) -> str | None:
        """Return the call as it is shown, if it changes the disk."""
        if number in _ALWAYS:
            return _ALWAYS[number]
        if number in _WRITES:
            return self._written(_WRITES[number], arguments[0])
        if number == _COPY_FILE_RANGE:
            return self._written("copy_file_range", arguments[2])
        if number == _IOCTL:
            kind, which = arguments[1] >> 8 & 0xFF, arguments[1] & 0xFF
            is_change = kind == _FILE_SYSTEMS_OWN and which not in _LOOKS
            return f"ioctl {which}" if is_change else None
        return "open" if self._flags(thread, number, arguments) & _MAKES else None

    def _flags(self, thread: int, number: int, arguments: list[int]) -> int:
        """Return the flags of a call that opens a file; 0 for any other."""
        if number != _OPENAT2:
            return {_OPEN: arguments[1], _OPENAT: arguments[2]}.get(number, 0)
        with open(f"/proc/{thread}/mem", "rb") as memory:  # noqa: PTH123  # it is no file
            memory.seek(arguments[2])
            (flags,) = struct.unpack("=Q", memory.read(8))  # struct open_how
        return int(flags)

    def _written(self, call: str, descriptor: int) -> str | None:
        try:
            path = str(Path(f"/proc/{self._pid}/fd/{descriptor}").readlink())
        except OSError:  # there is no such descriptor
            return None
        is_ours = path.startswith(self._root)
        return f"{call} {path.rpartition('/')[2]}" if is_ours else None


def _main(pid: str, at: str, root: str) -> None:
    watch = _Watch(int(pid), int(at), root)
    watch.run()
    print(json.dumps([watch.killed, watch.calls]))


if __name__ == "__main__":
    _main(*sys.argv[1:])
