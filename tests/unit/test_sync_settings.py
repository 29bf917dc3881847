import logging
from pathlib import Path

import pytest

from sync.errors import SettingsError
from sync.settings import Settings

DEFAULTS = Settings(
    root=Path("/foo"),
    redis_url="redis://127.0.0.1:6379/0",
    password=None,
    trim=False,
    heartbeat=None,
    log_file=None,
    log_level=logging.INFO,
)
GIVEN = {
    "SYNC_ROOT": "/data",
    "REDIS_URL": "unix:///run/redis.sock",
    "REDIS_PASSWORD": "secret",
    "SYNC_TRIM_NEWLINE": "1",
    "SYNC_HEARTBEAT": "/run/heartbeat",
    "SYNC_LOG_FILE": "/var/log/sync.log",
    "LOG_LEVEL": "warning",
}


def test_without_variables_the_settings_have_their_defaults() -> None:
    assert Settings.read({}) == DEFAULTS


def test_every_variable_sets_its_setting() -> None:
    assert Settings.read(GIVEN) == Settings(
        root=Path("/data"),
        redis_url="unix:///run/redis.sock",
        password="secret",  # noqa: S106  # not one
        trim=True,
        heartbeat=Path("/run/heartbeat"),
        log_file=Path("/var/log/sync.log"),
        log_level=logging.WARNING,
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read(dict.fromkeys(GIVEN, "")) == DEFAULTS


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SYNC_TRIM_NEWLINE", "yes", "SYNC_TRIM_NEWLINE is 'yes': use 1 to drop a final newline"),
        (
            "LOG_LEVEL",
            "critical",
            "LOG_LEVEL is 'CRITICAL': use one of DEBUG",
        ),
        ("LOG_LEVEL", "loud", "LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_bad_value_is_refused_and_the_message_says_what_to_write(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read({name: value})
