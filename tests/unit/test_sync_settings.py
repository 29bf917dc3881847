import logging
from pathlib import Path

import pytest

from sync.core.errors import SettingsError
from sync.settings import Settings

DEFAULTS = Settings(
    root=Path("/foo"),
    redis_url="redis://127.0.0.1:6379/0",
    password=None,
    trim=False,
    exclude=(".*.sw?", "*~", "4913", ".#*", "#*#"),
    tree=False,
    links=False,
    prefix=b"",
    rescan=60.0,
    rescan_share=0.01,
    status=None,
    log_file=None,
    log_level=logging.INFO,
)
GIVEN = {
    "SYNC_ROOT": "/data",
    "REDIS_URL": "unix:///run/redis.sock",
    "REDIS_PASSWORD": "secret",
    "SYNC_TRIM_NEWLINE": "1",
    "SYNC_EXCLUDE": " *.tmp\n.git*  /a/**/b/ !x ",
    "SYNC_TREE": "1",
    "SYNC_LINKS": "inside",
    "SYNC_PREFIX": "app1:",
    "SYNC_RESCAN": "0.5",
    "SYNC_RESCAN_CPU": "5",
    "SYNC_STATUS": "/run/status.json",
    "SYNC_LOG_FILE": "/var/log/sync.report.log",
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
        exclude=("*.tmp", ".git*", "/a/**/b/", "!x"),
        tree=True,
        links=True,
        prefix=b"app1:",
        rescan=0.5,
        rescan_share=0.05,
        status=Path("/run/status.json"),
        log_file=Path("/var/log/sync.report.log"),
        log_level=logging.WARNING,
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read(dict.fromkeys(GIVEN.keys() - {"SYNC_EXCLUDE"}, "")) == DEFAULTS


@pytest.mark.parametrize("empty", ["", " \n"])
def test_patterns_that_are_empty_leave_nothing_out(empty: str) -> None:
    assert Settings.read({"SYNC_EXCLUDE": empty}).exclude == ()


def test_patterns_may_be_any_bytes() -> None:
    assert Settings.read({"SYNC_EXCLUDE": "\udcff?"}).exclude == ("\udcff?",)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SYNC_LINKS", "outside", "SYNC_LINKS is 'outside': use inside to follow symbolic links"),
        ("SYNC_TRIM_NEWLINE", "yes", "SYNC_TRIM_NEWLINE is 'yes': use 1 to drop a final newline"),
        (
            "LOG_LEVEL",
            "critical",
            "LOG_LEVEL is 'CRITICAL': use one of DEBUG",
        ),
        ("SYNC_RESCAN", "often", "SYNC_RESCAN is 'often': use a number of seconds, or 0 for never"),
        ("SYNC_RESCAN", "-1", "SYNC_RESCAN is '-1'"),
        ("SYNC_RESCAN", "inf", "SYNC_RESCAN is 'inf'"),
        ("SYNC_RESCAN", "nan", "SYNC_RESCAN is 'nan'"),
        (
            "SYNC_RESCAN_CPU",
            "much",
            "SYNC_RESCAN_CPU is 'much': use percent of one core, up to 100",
        ),
        ("SYNC_RESCAN_CPU", "0", "SYNC_RESCAN_CPU is '0'"),
        ("SYNC_RESCAN_CPU", "101", "SYNC_RESCAN_CPU is '101'"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_bad_value_is_refused_and_the_message_says_what_to_write(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read({name: value})
