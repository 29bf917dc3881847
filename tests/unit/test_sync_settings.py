import logging
from pathlib import Path

import pytest

from sync.core.access import Access
from sync.core.decision import Mode
from sync.core.endpoint import LOOPBACK, Endpoint
from sync.core.errors import SettingsError
from sync.settings import Settings

DEFAULTS = Settings(
    root=Path("/foo"),
    mode=Mode.ONE_WAY_REPLICA,
    guard=True,
    keeps_expired=False,
    delete_max=0.5,
    file_mode=0o644,
    file_owner=(None, None),
    fsync=False,
    access=Access("redis://127.0.0.1:6379/0"),
    trim=False,
    exclude=(".*.sw?", "*~", "4913", ".#*", "#*#"),
    tree=False,
    links=False,
    prefix=b"",
    rescan=60.0,
    rescan_share=0.01,
    stream=None,
    stream_max=100_000,
    on_change=None,
    status=None,
    metrics=None,
    log_file=None,
    log_level=logging.INFO,
    log_format="text",
)
GIVEN = {
    "SYNC_ROOT": "/data",
    "SYNC_MODE": "two-way-safe",
    "SYNC_GUARD": "0",
    "SYNC_EXPIRE": "keep",
    "SYNC_DELETE_MAX": "100%",
    "SYNC_FILE_MODE": "0600",
    "SYNC_FILE_OWNER": "1000:0",
    "SYNC_FSYNC": "1",
    "REDIS_URL": "unix:///run/redis.sock",
    "REDIS_USERNAME": "app",
    "REDIS_PASSWORD": "secret",
    "REDIS_SENTINEL_USERNAME": "watcher",
    "REDIS_SENTINEL_PASSWORD": "hidden",
    "REDIS_TLS_CA_FILE": "/etc/tls/ca.pem",
    "REDIS_TLS_CERT_FILE": "/etc/tls/cert.pem",
    "REDIS_TLS_KEY_FILE": "/etc/tls/key.pem",
    "SYNC_TRIM_NEWLINE": "1",
    "SYNC_EXCLUDE": " *.tmp\n.git*  /a/**/b/ !x ",
    "SYNC_TREE": "1",
    "SYNC_LINKS": "none",
    "SYNC_PREFIX": "app1:",
    "SYNC_RESCAN": "0.5",
    "SYNC_RESCAN_CPU": "5",
    "SYNC_STREAM": "changes",
    "SYNC_STREAM_MAXLEN": "0",
    "SYNC_ON_CHANGE": "xargs -0 echo",
    "SYNC_STATUS": "/run/status.json",
    "SYNC_METRICS": "127.0.0.1:9121",
    "SYNC_LOG_FILE": "/var/log/sync.report.log",
    "LOG_LEVEL": "warning",
    "LOG_FORMAT": "json",
}


def test_without_variables_the_settings_have_their_defaults() -> None:
    assert Settings.read({}) == DEFAULTS


def test_every_variable_sets_its_setting() -> None:
    assert Settings.read(GIVEN) == Settings(
        root=Path("/data"),
        mode=Mode.TWO_WAY_SAFE,
        guard=False,
        keeps_expired=True,
        delete_max=1.0,
        file_mode=0o600,
        file_owner=(1000, 0),
        fsync=True,
        access=Access(
            "unix:///run/redis.sock",
            "app",
            "secret",
            "watcher",
            "hidden",
            *(Path(f"/etc/tls/{each}.pem") for each in ("ca", "cert", "key")),
        ),
        trim=True,
        exclude=("*.tmp", ".git*", "/a/**/b/", "!x"),
        tree=True,
        links=False,
        prefix=b"app1:",
        rescan=0.5,
        rescan_share=0.05,
        stream=b"changes",
        stream_max=0,
        on_change="xargs -0 echo",
        status=Path("/run/status.json"),
        metrics=Endpoint("127.0.0.1", 9121),
        log_file=Path("/var/log/sync.report.log"),
        log_level=logging.WARNING,
        log_format="json",
    )


def test_an_empty_variable_counts_as_not_set() -> None:
    assert Settings.read(dict.fromkeys(GIVEN.keys() - {"SYNC_EXCLUDE"}, "")) == DEFAULTS


@pytest.mark.parametrize("name", ["REDIS_URL", "REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD"])
def test_what_is_secret_may_be_in_a_file(name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b" s\xff \n")
    access = Settings.read({f"{name}_FILE": str(secret)}).access
    assert " s\udcff " in access
    assert access == Settings.read({name: " s\udcff "}).access


def test_a_secret_is_in_one_place(tmp_path: Path) -> None:
    given = {"REDIS_PASSWORD": "a", "REDIS_PASSWORD_FILE": str(tmp_path / "none")}
    with pytest.raises(SettingsError, match="REDIS_PASSWORD and REDIS_PASSWORD_FILE are both set"):
        Settings.read(given)


def test_a_file_of_a_secret_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"REDIS_PASSWORD_FILE cannot be read: .*No such file"):
        Settings.read({"REDIS_PASSWORD_FILE": str(tmp_path / "none")})


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
        ("SYNC_STREAM", "/changes", "SYNC_STREAM is '/changes': use a name without a slash at its"),
        ("SYNC_STREAM_MAXLEN", "-1", "SYNC_STREAM_MAXLEN is '-1': use a whole number"),
        ("SYNC_STREAM_MAXLEN", "9" * 16, "use a whole number, or 0 for no limit"),
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
        (
            "SYNC_MODE",
            "two-way",
            "SYNC_MODE is 'two-way': use one of one-way-replica, one-way-safe, two-way-safe, "
            "two-way-resolved, redis-to-disk",
        ),
        ("SYNC_GUARD", "on", "SYNC_GUARD is 'on': use 1 to undo what others do"),
        ("SYNC_FSYNC", "yes", "SYNC_FSYNC is 'yes': use 1 to have what is written survive"),
        ("SYNC_EXPIRE", "0", "SYNC_EXPIRE is '0': use delete to have a file go"),
        ("SYNC_DELETE_MAX", "half", "SYNC_DELETE_MAX is 'half': use percent, from 0% to 100%"),
        ("SYNC_DELETE_MAX", "0.5", "SYNC_DELETE_MAX is '0.5': use percent"),
        ("SYNC_DELETE_MAX", "101%", "SYNC_DELETE_MAX is '101%'"),
        ("SYNC_DELETE_MAX", "-1", "SYNC_DELETE_MAX is '-1'"),
        ("SYNC_DELETE_MAX", "nan%", "SYNC_DELETE_MAX is 'nan%'"),
        ("SYNC_FILE_MODE", "rw-r--r--", "SYNC_FILE_MODE is 'rw-r--r--': use three octal digits"),
        ("SYNC_FILE_MODE", "0698", "SYNC_FILE_MODE is '0698'"),
        ("SYNC_FILE_MODE", "4755", "SYNC_FILE_MODE is '4755'"),
        ("SYNC_FILE_MODE", "0x1ff", "SYNC_FILE_MODE is '0x1ff'"),
        ("SYNC_FILE_OWNER", "www-data", "SYNC_FILE_OWNER is 'www-data': use the number of a user"),
        ("SYNC_FILE_OWNER", "33:", "SYNC_FILE_OWNER is '33:'"),
        ("SYNC_FILE_OWNER", "-1", "SYNC_FILE_OWNER is '-1'"),
        ("SYNC_FILE_OWNER", "4294967295", "SYNC_FILE_OWNER is '4294967295'"),
        ("SYNC_FILE_OWNER", "0:4294967295", "SYNC_FILE_OWNER is '0:4294967295'"),
        ("LOG_LEVEL", "loud", "LOG_LEVEL is 'LOUD': use one of DEBUG, INFO, WARNING, ERROR"),
        ("LOG_FORMAT", "JSON", "LOG_FORMAT is 'JSON': use one of text, json"),
    ],
)
def test_a_bad_value_is_refused_and_the_message_says_what_to_write(
    name: str, value: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        Settings.read({name: value})


@pytest.mark.parametrize(
    ("given", "share"), [("50", 0.5), ("0", 0.0), ("0.5%", 0.005), ("1", 0.01), ("100%", 1.0)]
)
def test_what_may_go_at_once_is_in_percent(given: str, share: float) -> None:
    assert Settings.read({"SYNC_DELETE_MAX": given}).delete_max == share


def test_a_group_need_not_be_named() -> None:
    assert Settings.read({"SYNC_FILE_OWNER": "33"}).file_owner == (33, None)


def test_links_are_followed() -> None:
    assert Settings.read({"SYNC_LINKS": "inside"}).links


@pytest.mark.parametrize("mode", [mode for mode in Mode if mode is not Mode.ONE_WAY_REPLICA])
def test_links_are_followed_in_one_mode_alone(mode: Mode) -> None:
    with pytest.raises(SettingsError, match=f"SYNC_MODE={mode.value}: .*SYNC_MODE=one-way-replica"):
        Settings.read({"SYNC_LINKS": "inside", "SYNC_MODE": mode.value})


@pytest.mark.parametrize(
    ("given", "endpoint"),
    [
        ("9121", Endpoint("", 9121)),
        (":9121", Endpoint("", 9121)),
        ("*:9121", Endpoint("", 9121)),
        ("[::]:9121", Endpoint("", 9121)),
        ("0.0.0.0:1", Endpoint("0.0.0.0", 1)),  # noqa: S104  # is only read
        ("[::1]:65535", Endpoint("::1", 65535)),
        ("[FE80:0::1%eth0]:9121", Endpoint("fe80::1%eth0", 9121)),
        ("localhost:9121", Endpoint(LOOPBACK, 9121)),
    ],
)
def test_metrics_are_at_a_port_of_all_addresses_or_of_one(given: str, endpoint: Endpoint) -> None:
    assert Settings.read({"SYNC_METRICS": given}).metrics == endpoint
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0", "has no port from 1 to 65535 in the end"),
        ("65536", "has no port"),
        ("-1", "has no port"),
        ("+9121", "has no port"),
        ("٩", "has no port"),
        ("9" * 5000, "has no port"),
        ("127.0.0.1", "has no port"),
        ("127.0.0.1:", "has no port"),
        ("yes", "has no port"),
        ("http://127.0.0.1:9121/metrics", "has no port"),
        ("shop.example:9121", "names no IP address"),
        ("127.0.0.256:9121", "names no IP address"),
        ("[127.0.0.1]:9121", "names no IP address"),
        ("::1:9121", "needs brackets around the IPv6 address"),
    ],
)
def test_where_metrics_are_is_checked_and_the_message_says_what_to_write(
    given: str, words: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.read({"SYNC_METRICS": given})
    assert str(refused.value).startswith(f"SYNC_METRICS is {given!r}, which {words}")
    assert str(refused.value).endswith("such as 127.0.0.1:9121, [::1]:9121 or localhost:9121")
