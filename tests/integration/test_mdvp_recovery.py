"""The state database lost or damaged: volumes are found again by what their directories say."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from integration.plugin import Address, Plugin, serving

from mdvp.disk.record import ATTRIBUTE
from mdvp.disk.root import Root


@pytest.fixture
def plugin(short_path: Path) -> Iterator[Plugin]:
    (short_path / "root").mkdir()
    with serving(short_path / "root", short_path / "mdvp.sock") as plugin:
        yield plugin


def fill(plugin: Plugin) -> None:
    plugin.call("Create", Name="one")
    plugin.call("Create", Name="two", Opts={"access": "shared", "uid": "1000", "mode": "0700"})
    (plugin.root / "one" / "file").write_text("content")
    (plugin.root / "stranger").mkdir()


def shown(plugin: Plugin) -> list[object]:
    return [plugin.call("Get", Name=name).message for name in ("one", "two")]


def states(root: Path) -> list[Path]:
    return sorted((root / ".mdvp").glob("state.db*"))


def remove(root: Path) -> None:
    for file in states(root):
        file.unlink()


def cut_off(file: Path) -> None:
    written = len(file.read_bytes().rstrip(b"\0"))  # the rest is room for more
    os.truncate(file, written // 2)


def cut(root: Path) -> None:
    for file in states(root):
        cut_off(file)


def cut_log(root: Path) -> None:
    cut_off(root / ".mdvp" / "state.db-wal")


def overwrite(root: Path) -> None:
    for file in states(root):
        file.write_bytes(b"nonsense" * 1000)


def spoil_middle(root: Path) -> None:
    with (root / ".mdvp" / "state.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 4096)


AFTER_STOP = [remove, cut, overwrite, spoil_middle]
AFTER_KILL = [remove, cut, overwrite, cut_log]


def check(root: Path, address: Address, before: list[object]) -> str:
    with serving(root, address) as second:
        assert second.volumes() == ["one", "two"]
        assert shown(second) == before
        assert second.call("Mount", Name="one", ID="id").status == 200
        assert (root / "one" / "file").read_text() == "content"
        assert second.call("Create", Name="stranger").status == 409
        second.call("Remove", Name="two")
        log = second.stop()
    with serving(root, address) as third:
        assert third.volumes() == ["one"]
    return log


@pytest.mark.parametrize("lose", AFTER_STOP)
def test_a_database_lost_while_mdvp_is_stopped(
    plugin: Plugin, lose: Callable[[Path], None]
) -> None:
    fill(plugin)
    before = shown(plugin)
    plugin.stop()
    lose(plugin.root)
    log = check(plugin.root, plugin.address, before)
    assert "found again by what their directories say of themselves" in log
    if lose is not remove:
        assert "the state database is damaged" in log
        assert (plugin.root / ".mdvp" / "state.db.damaged").exists()


@pytest.mark.parametrize("lose", AFTER_KILL)
def test_a_database_lost_when_mdvp_was_killed(plugin: Plugin, lose: Callable[[Path], None]) -> None:
    fill(plugin)
    before = shown(plugin)
    plugin.kill()
    lose(plugin.root)
    check(plugin.root, plugin.address, before)


def test_all_state_lost_with_the_key(plugin: Plugin) -> None:
    fill(plugin)
    plugin.call("Remove", Name="two")  # which is not root's: nobody could vouch for its record
    plugin.kill()
    for file in (plugin.root / ".mdvp").rglob("*"):
        if file.is_file():
            file.unlink()
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == ["one"]


@pytest.mark.parametrize(("mode", "believed"), [(0o755, True), (0o777, False), (0o775, False)])
def test_a_record_that_others_may_have_planted_before_the_first_start_is_not_believed(
    plugin: Plugin, mode: int, believed: bool
) -> None:
    plugin.call("Create", Name="vol")
    plugin.kill()
    (plugin.root / "vol").chmod(mode)
    shutil.rmtree(plugin.root / ".mdvp")
    with serving(plugin.root, plugin.address) as first:
        assert first.volumes() == (["vol"] if believed else [])


def test_a_record_forged_by_somebody_is_not_believed(plugin: Plugin) -> None:
    fill(plugin)
    plugin.kill()
    remove(plugin.root)
    record = os.getxattr(plugin.root / "one", ATTRIBUTE)
    (plugin.root / "evil").mkdir()
    os.setxattr(plugin.root / "evil", ATTRIBUTE, record.replace(b'"one"', b'"evil"'))
    os.chown(plugin.root / "evil", 1000, 1000)
    (plugin.root / "link").symlink_to("one")
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == ["one", "two"]
        log = second.stop()
    assert f"1 directories in {plugin.root} have a volume's record that is not to be trusted" in log
    assert "'evil' (it is not signed by this mdvp)" in log
    assert "-o adopt=true NAME" in log


def test_a_record_that_a_container_wrote_on_its_volume_is_not_believed(plugin: Plugin) -> None:
    # Root in a container can write the attribute of the directory that it has.
    plugin.call("Create", Name="vol")
    plugin.kill()
    remove(plugin.root)
    record = os.getxattr(plugin.root / "vol", ATTRIBUTE)
    os.setxattr(plugin.root / "vol", ATTRIBUTE, record.replace(b"exclusive", b"shared"))
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == []
        assert "'vol' (it is not signed by this mdvp)" in second.stop()


def test_a_name_cannot_write_lines_of_the_log(plugin: Plugin) -> None:
    evil = plugin.root / "x\nINFO volume vol removed"
    evil.mkdir()
    os.setxattr(evil, ATTRIBUTE, b"nonsense")
    plugin.kill()
    with serving(plugin.root, plugin.address) as second:
        log = second.stop()
    assert "'x\\nINFO volume vol removed'" in log
    assert "\nINFO volume vol removed" not in log


def test_without_records_the_way_back_is_to_adopt(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("content")
    plugin.kill()
    remove(plugin.root)
    os.removexattr(plugin.root / "vol", ATTRIBUTE)
    with serving(plugin.root, plugin.address) as second:
        refused = second.call("Get", Name="vol")
        assert refused.status == 404
        assert "`docker volume create -d mdvp -o adopt=true vol`" in refused.error
        assert second.call("Create", Name="vol", Opts={"adopt": "true"}).status == 200
        assert second.call("Mount", Name="vol", ID="id").status == 200
        assert "`docker volume create -d mdvp -o adopt=true NAME`" in second.stop()
    assert (plugin.root / "vol" / "file").read_text() == "content"


def test_a_first_start_is_not_taken_for_a_loss(plugin: Plugin) -> None:
    assert "lost" not in plugin.stop()


def no_record(root: Path) -> None:
    os.removexattr(root / "vol", ATTRIBUTE)


def bad_record(root: Path) -> None:
    os.setxattr(root / "vol", ATTRIBUTE, b"nonsense")


def no_key(root: Path) -> None:
    (root / ".mdvp" / "key").unlink()


def half_a_key(root: Path) -> None:
    os.truncate(root / ".mdvp" / "key", 16)


@pytest.mark.parametrize("spoil", [no_record, bad_record, no_key, half_a_key])
def test_a_directory_without_a_good_record_gets_one(
    plugin: Plugin, spoil: Callable[[Path], None]
) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "1000"})
    plugin.stop()
    spoil(plugin.root)
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == ["vol"]
        second.kill()
    remove(plugin.root)
    with serving(plugin.root, plugin.address) as third:
        assert third.volumes() == ["vol"]


def test_the_search_for_what_a_database_lacks_comes_to_an_end(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    plugin.stop()
    for number in range(1000):
        (plugin.root / str(number)).mkdir()
    with closing(Root(plugin.root)) as root:
        assert [volume.name for volume in root.volumes()] == ["vol"]
        before = time.thread_time()
        list(root.volumes(0.0))
        assert time.thread_time() - before < 0.01  # a thousand take more


def test_a_removed_volume_is_not_found_again(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol").rename(plugin.root / "kept")
    plugin.call("Remove", Name="vol")
    (plugin.root / "kept").rename(plugin.root / "vol")
    plugin.stop()
    with serving(plugin.root, plugin.address) as second:
        assert second.volumes() == []
