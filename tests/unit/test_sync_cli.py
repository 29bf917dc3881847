"""What the command line refuses."""

import pytest

from sync.cli import main


@pytest.mark.parametrize("given", ["nan", "inf", "-1", "1e9", "soon"])
def test_a_time_to_wait_that_never_comes_is_refused(
    given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["wait", f"--timeout={given}"], {})
    assert ended.value.code == 2  # wrong usage
    assert "is no number of seconds" in capsys.readouterr().err
