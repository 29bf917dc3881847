import math

from sync.core.schedule import Rescan, Schedule


def schedule(interval: float = 60.0, share: float = 0.01) -> Schedule:
    return Schedule(Rescan(interval, share))


def test_both_are_due_at_once() -> None:
    new = schedule()
    assert (new.beat, new.step) == (0.0, 0.0)


def test_a_sign_of_life_is_due_every_second() -> None:
    new = schedule()
    new.beaten(10.0)
    assert new.beat == 11.0


def test_a_rescan_begins_when_its_interval_is_over_or_never() -> None:
    for interval, expected in ((60.0, 70.0), (0.0, math.inf)):
        new = schedule(interval)
        new.ended(10.0)
        assert new.step == expected


def test_the_steps_of_a_rescan_take_their_share_of_a_core() -> None:
    new = schedule(share=0.01)
    new.stepped(10.0, worked=0.0008)
    assert math.isclose(new.step, 10.1)


def test_a_rescan_for_which_there_is_a_reason_begins_soon_unless_there_are_to_be_none() -> None:
    for interval, expected in ((60.0, 12.0), (0.0, math.inf)):
        new = schedule(interval)
        new.ended(0.0)
        new.want_rescan(10.0, in_reconcile=False)
        assert new.step == expected


def test_more_reasons_do_not_put_it_off() -> None:
    new = schedule()
    new.ended(0.0)
    for now in (10.0, 11.0):
        new.want_rescan(now, in_reconcile=False)
    assert new.step == 12.0


def test_a_reason_during_a_reconcile_is_remembered_until_its_end() -> None:
    new = schedule()
    new.begun(5.0)
    new.want_rescan(6.0, in_reconcile=True)
    assert new.step == 5.0
    new.ended(10.0)
    assert new.step == 12.0


def test_a_rescan_that_begins_is_what_there_was_a_reason_for() -> None:
    new = schedule()
    new.ended(0.0)
    new.want_rescan(10.0, in_reconcile=False)
    new.begun(12.0)
    new.ended(20.0)
    assert new.step == 80.0
