"""The clock that no calendar moves: it may be slow, and is never fast."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from mdvp.core.clock import Moment
from mdvp.disk.odometer import Odometer

SPANS = st.floats(0, 1e7)
STEPS = st.one_of(
    st.tuples(st.just("passes"), SPANS),
    st.tuples(st.just("kept"), st.just(0.0)),
    st.tuples(st.just("restarted"), SPANS),  # after so long
    st.tuples(st.just("booted"), SPANS),  # and had run for so long when mdvp started
    st.tuples(st.just("lost"), st.just(0.0)),
)


@settings(max_examples=200)
@given(st.lists(STEPS, max_size=30))
def test_it_is_never_fast_and_never_goes_back_while_it_runs(steps: list[tuple[str, float]]) -> None:
    passed, uptime, boot = 0.0, 100.0, 0

    def now() -> Moment:
        return Moment(datetime(2026, 11, 29, tzinfo=UTC), str(boot), uptime)

    with TemporaryDirectory() as folder:
        file = Path(folder, "odometer")
        odometer = Odometer(file, now)
        last = 0.0
        for step, span in steps:
            match step:
                case "passes":
                    passed, uptime = passed + span, uptime + span
                case "kept":
                    odometer.keep()
                case "restarted":
                    passed, uptime = passed + span, uptime + span
                    odometer = Odometer(file, now)
                    last = 0.0
                case "booted":
                    boot, uptime = boot + 1, span
                    odometer = Odometer(file, now)
                    last = 0.0
                case "lost":
                    file.unlink(missing_ok=True)
            reading = odometer.reading()
            assert last <= reading <= passed + 1e-3
            last = reading


def test_a_run_that_ends_well_loses_nothing(tmp_path: Path) -> None:
    uptime, boot = 1000.0, "one"

    def now() -> Moment:
        return Moment(datetime(2026, 11, 29, tzinfo=UTC), boot, uptime)

    odometer = Odometer(tmp_path / "odometer", now)
    uptime = 1500.0
    odometer.keep()
    uptime = 1600.0
    assert Odometer(tmp_path / "odometer", now).reading() == 600
    uptime, boot = 5.0, "two"
    odometer = Odometer(tmp_path / "odometer", now)
    uptime = 10.0
    assert odometer.reading() == 505
    assert Odometer(tmp_path / "odometer", now, floor=700).reading() == 700
