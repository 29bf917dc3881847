"""Where the server is: what REDIS_URL says, and whom of those who know it is believed."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import pytest
import redis
from redis.crc import key_slot
from support import eventually

from sync.core.access import Access
from sync.core.errors import RedisAwayError, SettingsError
from sync.redis.address import Address
from sync.redis.cluster import ClusterNodes, tag
from sync.redis.sentinels import Sentinels
from sync.redis.url import CLUSTER, SENTINEL, Host, parse

ONE, TWO, THREE = Host("one", 1), Host("two", 2), Host("three", 3)
PREFIX = b"{app1}:"
SLOT = key_slot(PREFIX)


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "redis://a:1/2",
            "rediss://a",
            "redis://u:p%40:@[::1]:6379/1/",
            "redis://[::1]",
            "unix:///a?db=1",
        ],
    )
    def test_of_one_server_stay_as_they_are(self, url: str) -> None:
        assert parse(url).plain == url
        assert not parse(url).by

    def test_name_sentinels_and_a_master(self) -> None:
        found = parse("redis+sentinel://u:p%40@one:1,two,[::1]:3,[::2]/my%20master/5?timeout=1")
        assert found.by == SENTINEL
        assert found.name == "my master"
        assert found.hosts == (ONE, Host("two", 26379), Host("::1", 3), Host("::2", 26379))
        assert found.plain == "redis://u:p%40@/5?timeout=1"

    def test_name_nodes_of_a_cluster(self) -> None:
        found = parse("rediss+cluster://:secret@one:1,two?socket_timeout=1")
        assert (found.by, found.hosts) == (CLUSTER, (ONE, Host("two", 6379)))
        assert found.plain == "rediss://:secret@/0?socket_timeout=1"
        assert parse("redis+cluster://one:1/0/").hosts == (ONE,)

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("http://one", "must begin with"),
            ("redis+sentinel://one", "needs the master's name"),
            ("redis+sentinel://one/master/x", "is no number of a database"),
            ("redis+sentinel:///master", "needs the names of hosts"),
            ("redis+cluster://one,,two", "needs the names of hosts"),
            ("redis+cluster://one/1", "no other database than 0"),
            ("redis+cluster://one:x", "'x' is no number of a port"),
            ("redis://one:x/0", "'x' is no number of a port"),
            ("redis://one/x", "'x' is no number of a database"),
            ("redis://one?db=x", "'x' is no number of a database"),
            ("unix:///path?db=x", "'x' is no number of a database"),
            ("redis+sentinel://one//0", "needs the master's name"),
            ("redis://::1:6379/0", "write an IPv6 address in brackets"),
            ("redis+sentinel://::1,two/master", "write an IPv6 address in brackets"),
        ],
    )
    def test_that_cannot_be_meant_are_refused(self, url: str, words: str) -> None:
        with pytest.raises(SettingsError, match=words) as caught:
            Address(Access(url), PREFIX)
        assert str(caught.value).startswith("REDIS_URL cannot be used: ")

    @pytest.mark.parametrize(
        "url",
        [
            "redis://user:sec/ret@one",
            "redis://user:sec[ret]@one",
            "redis://user:secret\u2100@one",
            "redis+sentinel://user:sec/ret@one/master",
            "redis+sentinel://user:12/sec/ret@one/master",
            "redis+cluster://user:12/secret@one",
        ],
    )
    def test_are_refused_without_what_may_be_of_a_password(self, url: str) -> None:
        with pytest.raises(SettingsError, match="REDIS_URL cannot be used") as caught:
            Address(Access(url), PREFIX)
        assert not any(each in str(caught.value) for each in ("sec", "ret"))

    @pytest.mark.parametrize("secret", ["sec/ret", "12/secret", "sec?ret", "1#secret"])
    @pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "redis+cluster"])
    def test_with_a_password_that_ends_them_do_not_show_it(self, scheme: str, secret: str) -> None:
        with pytest.raises(SettingsError, match="set REDIS_PASSWORD instead") as caught:
            Address(Access(f"{scheme}://:{secret}@one:1/0"), PREFIX)
        assert "sec" not in str(caught.value)

    def test_are_shown_without_secrets(self) -> None:
        for url, shown in (
            ("redis://user:secret@one:1/2", "one:1"),
            ("unix://user:secret@/path?db=1", "/path"),
            ("redis+sentinel://user:secret@one:1/master", "master by Sentinel"),
            ("redis+cluster://user:secret@one:1", f"slot {SLOT} of the cluster"),
        ):
            assert str(Address(Access(url), PREFIX)) == shown


class Asked:
    """Those who know where the server is: what they answer, by host and command."""

    def __init__(self, answers: Mapping[Host, Any]) -> None:
        self.answers = dict(answers)
        self.asked: list[Host] = []

    def client(self, host: Host) -> redis.Redis:
        return cast("redis.Redis", One(self, host))


class One:
    def __init__(self, asked: Asked, host: Host) -> None:
        self._asked, self._host = asked, host

    def execute_command(self, command: str, *_: object) -> object:
        self._asked.asked.append(self._host)
        answer = self._asked.answers.get(self._host)
        if answer is None:
            raise redis.ConnectionError("it is gone")
        if command not in answer:
            raise redis.ResponseError(f"unknown command {command!r}")
        if isinstance(answer[command], Exception):
            raise answer[command]
        return answer[command]

    def close(self) -> None:
        pass


def says(host: Host, epoch: int, *, is_down: bool = False) -> dict[str, Any]:
    state = {"is_master": True, "is_sdown": is_down, "is_odown": False}
    return {"SENTINEL MASTER": {**state, "ip": host.name, "port": host.port, "config-epoch": epoch}}


class TestSentinels:
    def test_the_one_with_the_latest_configuration_is_believed(self) -> None:
        """The others are cut off, and name the master that was."""
        for answers in (
            {ONE: says(TWO, 7), TWO: says(THREE, 8), THREE: says(TWO, 7)},
            {ONE: says(THREE, 8), TWO: says(TWO, 7)},
        ):
            assert Sentinels([ONE, TWO, THREE], "m", Asked(answers).client).find() == THREE

    def test_what_is_down_is_not_the_master(self) -> None:
        asked = Asked({ONE: says(TWO, 8, is_down=True), TWO: says(TWO, 8)})
        assert Sentinels([ONE, TWO], "m", asked.client).find() == TWO
        asked.answers = {ONE: says(TWO, 8, is_down=True)}
        with pytest.raises(RedisAwayError, match="one:1: two:2 is down; two:2: it is gone"):
            Sentinels([ONE, TWO], "m", asked.client).find()

    def test_one_that_was_deposed_is_none_though_the_next_one_is_down(self) -> None:
        for answers in (
            {ONE: says(TWO, 8, is_down=True), TWO: says(THREE, 7)},
            {ONE: says(THREE, 7), TWO: says(TWO, 8, is_down=True)},
        ):
            with pytest.raises(RedisAwayError, match="two:2 is down"):
                Sentinels([ONE, TWO], "m", Asked(answers).client).find()

    def test_one_is_left_for_a_later_one_that_is_down(self) -> None:
        asked = Asked({ONE: says(THREE, 7)})
        sentinels = Sentinels([ONE, TWO], "m", asked.client)
        assert sentinels.find() == THREE
        asked.answers[TWO] = says(TWO, 8, is_down=True)
        eventually(sentinels.has_moved, TWO)

    def test_one_is_left_when_all_were_told_to_watch_another(self) -> None:
        """They count anew then; one that was cut off knows of an earlier one, too."""
        asked = Asked({ONE: says(THREE, 7), TWO: says(THREE, 7)})
        sentinels = Sentinels([ONE, TWO], "m", asked.client)
        sentinels.find()
        asked.answers = {ONE: says(TWO, 0)}
        before = len(asked.asked)
        eventually(lambda: (sentinels.has_moved(), len(asked.asked) >= before + 6), (None, True))
        asked.answers[TWO] = says(TWO, 0)
        eventually(sentinels.has_moved, TWO)

    def test_what_answers_nonsense_is_passed_over_for_good(self) -> None:
        """Also by the thread that asks for the next time."""
        asked = Asked({ONE: {"SENTINEL MASTER": {}}, TWO: says(THREE, 7)})
        sentinels = Sentinels([ONE, TWO], "m", asked.client)
        assert sentinels.find() == THREE
        asked.answers[TWO] = {"SENTINEL MASTER": None}
        before = len(asked.asked)
        eventually(lambda: (sentinels.has_moved(), len(asked.asked) >= before + 4)[1], True)
        asked.answers[TWO] = says(TWO, 8)
        eventually(sentinels.has_moved, TWO)
        asked.answers = {ONE: {"SENTINEL MASTER": {}}}
        with pytest.raises(RedisAwayError, match="one:1 does not answer as a Sentinel does"):
            sentinels.find()

    def test_what_is_no_sentinel_is_named(self) -> None:
        """It is a server like any other, and knows no such command."""
        asked = Asked({ONE: {}})
        with pytest.raises(RedisAwayError, match="one:1 is no Sentinel"):
            Sentinels([ONE], "m", asked.client).find()

    def test_a_password_that_they_refuse_is_named(self) -> None:
        """It is not the server's."""
        asked = Asked({ONE: {"SENTINEL MASTER": redis.AuthenticationError("invalid.")}})
        with pytest.raises(RedisAwayError, match=r"one:1 wants .* REDIS_SENTINEL_PASSWORD \(inv"):
            Sentinels([ONE], "m", asked.client).find()


def node(slots: Sequence[tuple[int, int, Host]], state: str = "ok") -> dict[str, Any]:
    told = [[first, last, [host.name.encode(), host.port, b"id"]] for first, last, host in slots]
    return {"CLUSTER INFO": {"cluster_state": state}, "CLUSTER SLOTS": told}


class TestClusters:
    WHOLE = ((0, SLOT - 1, ONE), (SLOT, SLOT, TWO), (SLOT + 1, 16383, THREE))

    def test_the_node_with_the_slot_is_found(self) -> None:
        asked = Asked({ONE: node(self.WHOLE)})
        assert ClusterNodes([ONE], PREFIX, asked.client).find() == TWO

    def test_another_node_is_asked_the_next_time(self) -> None:
        """What the first has told may be late."""
        asked = Asked(dict.fromkeys((ONE, TWO, THREE), node(self.WHOLE)))
        nodes = ClusterNodes([ONE], PREFIX, asked.client)
        for _ in range(6):
            nodes.find()
        assert set(asked.asked) == {ONE, TWO, THREE}

    def test_a_node_without_most_others_is_not_believed(self) -> None:
        stale = node([(0, 16383, ONE)], "fail")
        asked = Asked({ONE: stale, TWO: node(self.WHOLE), THREE: stale})
        nodes = ClusterNodes([ONE, TWO, THREE], PREFIX, asked.client)
        assert {nodes.find() for _ in range(5)} == {TWO}

    def test_nodes_that_were_told_of_are_asked_when_those_of_the_url_are_gone(self) -> None:
        asked = Asked({ONE: node(self.WHOLE)})
        nodes = ClusterNodes([ONE], PREFIX, asked.client)
        nodes.find()
        asked.answers = {THREE: node([(0, 16383, THREE)])}
        assert nodes.find() == THREE

    def test_a_slot_that_nobody_has_is_waited_for(self) -> None:
        asked = Asked({ONE: node([(0, SLOT - 1, ONE)])})
        with pytest.raises(RedisAwayError, match=f"one:1: no node has slot {SLOT}"):
            ClusterNodes([ONE], PREFIX, asked.client).find()

    def test_a_node_without_a_name_is_where_one_has_asked(self) -> None:
        asked = Asked({ONE: node([(0, 16383, Host("", 9))])})
        assert ClusterNodes([ONE], PREFIX, asked.client).find() == Host("one", 9)


@pytest.mark.parametrize("prefix", [b"", b"app1:", b"{}:", b"{}{a}:", b"{a", b"a}", b"}{"])
def test_a_prefix_without_a_hash_tag_is_refused_in_a_cluster(prefix: bytes) -> None:
    assert not tag(prefix)
    with pytest.raises(SettingsError, match="put a hash tag in SYNC_PREFIX, such as"):
        Address(Access("redis+cluster://one:1"), prefix)


@pytest.mark.parametrize("prefix", [b"{a}", b"x{a}y", b"{{a}}", b"a{b}{c}"])
def test_all_keys_with_a_hash_tag_in_the_prefix_are_in_one_slot(prefix: bytes) -> None:
    assert tag(prefix)
    assert {key_slot(prefix + name) for name in (b"", b"a", b"{b}", b"}{c}")} == {key_slot(prefix)}
