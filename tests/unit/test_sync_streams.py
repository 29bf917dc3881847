"""Which large file is next, and on which terms."""

from sync.service.streams import Streams
from sync.service.streams import at_once as do_at_once


def test_a_file_that_waits_is_overdue_as_it_was_when_it_was_last_looked_at() -> None:
    streams = Streams(do_at_once, lambda: None)
    streams.wait(b"a", overdue=True, heard=True)
    streams.wait(b"b", overdue=True, heard=True)
    streams.wait(b"a", overdue=False, heard=False)
    streams.wait(b"c", overdue=True, heard=True)
    streams.hold_back(b"c")
    assert [streams.next() for _ in range(4)] == [
        *[(b"a", False, False), (b"b", True, True), (b"c", False, False), None]
    ]
