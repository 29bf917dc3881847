"""What the command line refuses."""

import signal
import subprocess
import sys

import pytest

from sync.__main__ import main as command
from sync.cli import main


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "1e9", "soon"])
def test_a_time_to_wait_that_never_comes_is_refused(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["wait", f"--timeout={given}"], {})
    assert ended.value.code == 2  # wrong usage
    assert "is no number of seconds" in capsys.readouterr().err


@pytest.mark.parametrize("given", ["0", "0.05", "nan", "-1", "soon"])
def test_a_picture_is_not_made_without_a_pause(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", f"--interval={given}"], {})
    assert ended.value.code == 2  # wrong usage
    assert "--interval" in capsys.readouterr().err


def test_only_who_looks_at_a_picture_loads_what_draws_it() -> None:
    code = "import sys, sync.cli, sync.commands; sys.exit('rich' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), check=False).returncode == 0


def test_a_keyboards_interrupt_is_no_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("sync.cli.main", interrupted)
    assert command() == 128 + signal.SIGINT
