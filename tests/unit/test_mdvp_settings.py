from pathlib import Path

import pytest

from mdvp.core.errors import SettingsError
from mdvp.core.volume import DELETE, Fate, OnRemove
from mdvp.settings import Settings


@pytest.mark.parametrize(
    "environ",
    [{}, dict.fromkeys(("GRACE", "LOCK_DIRECTORIES", "LOG_LEVEL", "METRICS_DIR", "ON_REMOVE"), "")],
)
def test_what_is_not_set_is_as_usual(environ: dict[str, str]) -> None:
    assert Settings.read(environ) == Settings(
        "INFO", "text", 60.0, lock_directories=True, on_remove=DELETE, metrics_dir=None
    )


def test_each_setting_is_read() -> None:
    environ = {
        "GRACE": "5",
        "LOCK_DIRECTORIES": "0",
        "LOG_LEVEL": "debug",
        "LOG_FORMAT": "json",
        "METRICS_DIR": "/m",
        "ON_REMOVE": "trash:2h",
    }
    assert Settings.read(environ) == Settings(
        "DEBUG",
        "json",
        5.0,
        lock_directories=False,
        on_remove=OnRemove(Fate.TRASH, 7200),
        metrics_dir=Path("/m"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GRACE", "-1"),
        ("GRACE", "0"),
        ("GRACE", "86401"),
        ("GRACE", "1.5"),
        ("GRACE", "nan"),
        ("GRACE", "soon"),
        ("LOCK_DIRECTORIES", "yes"),
        ("LOG_LEVEL", "loud"),
        ("ON_REMOVE", "burn"),
        ("ON_REMOVE", "trash:forever"),
        ("LOG_FORMAT", "xml"),
    ],
)
def test_a_bad_value_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is .*: use "):
        Settings.read({name: value})
