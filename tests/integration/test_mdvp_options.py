"""The options of a volume, and directories that are there already, over the protocol."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.plugin import Plugin, serving

from mdvp.disk.record import ATTRIBUTE

SHARED = {"access": "shared"}


@pytest.fixture
def plugin(short_path: Path) -> Iterator[Plugin]:
    (short_path / "root").mkdir()
    with serving(short_path / "root", short_path / "mdvp.sock") as plugin:
        yield plugin


def status(plugin: Plugin, name: str = "vol") -> dict[str, object]:
    shown: dict[str, object] = plugin.call("Get", Name=name).message["Volume"]["Status"]
    return shown


def test_the_directory_has_the_owner_and_permissions_asked_for(plugin: Plugin) -> None:
    options = {"uid": "1000", "gid": "1001", "mode": "2750"}
    assert plugin.call("Create", Name="vol", Opts=options).status == 200
    made = (plugin.root / "vol").stat()
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (1000, 1001, 0o2750)
    assert status(plugin) == {"access": "exclusive", **options, "mounted": False}


def test_a_directory_that_had_vanished_has_them_again(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "1000", "mode": "0700"})
    (plugin.root / "vol").rmdir()
    plugin.call("Mount", Name="vol", ID="id")
    made = (plugin.root / "vol").stat()
    assert (made.st_uid, stat.S_IMODE(made.st_mode)) == (1000, 0o700)


def test_a_shared_volume_is_mounted_by_many_and_removed_when_all_have_gone(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts=SHARED)
    for mount_id in ("one", "two", "three"):
        assert plugin.call("Mount", Name="vol", ID=mount_id).status == 200
    assert status(plugin)["mount_ids"] == ["one", "two", "three"]
    for mount_id in ("one", "two", "three"):
        assert plugin.call("Remove", Name="vol").status == 409
        plugin.call("Unmount", Name="vol", ID=mount_id)
    assert plugin.call("Remove", Name="vol").status == 200


def test_create_with_the_same_options_succeeds_again(plugin: Plugin) -> None:
    options = {**SHARED, "uid": "7", "mode": "0770"}
    plugin.call("Create", Name="vol", Opts=options)
    for again in (options, {**options, "mode": "770"}, SHARED, {}, None):
        assert plugin.call("Create", Name="vol", Opts=again).status == 200
    assert status(plugin)["access"] == "shared"


@pytest.mark.parametrize("asked", [{"mode": "0700"}, {"uid": "0"}, {"gid": "1", **SHARED}])
def test_create_with_other_options_says_what_differs(plugin: Plugin, asked: dict[str, str]) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "7"})
    refused = plugin.call("Create", Name="vol", Opts=asked)
    assert refused.status == 409
    assert "volume 'vol' exists with access=exclusive, uid=7, and you ask for " in refused.error
    for name, text in asked.items():
        assert f"{name}={text}" in refused.error
    assert status(plugin)["access"] == "exclusive"


def test_adopt_takes_over_a_directory_with_its_content(plugin: Plugin) -> None:
    (plugin.root / "vol").mkdir()
    (plugin.root / "vol" / "file").write_text("content")
    assert "`-o adopt=true`" in plugin.call("Create", Name="vol").error
    assert "-o adopt=true vol" in plugin.call("Get", Name="vol").error
    adopt = {"adopt": "true", "gid": "5", "mode": "0750"}
    for _ in range(2):
        assert plugin.call("Create", Name="vol", Opts=adopt).status == 200
    assert plugin.call("Mount", Name="vol", ID="id").status == 200
    assert (plugin.root / "vol" / "file").read_text() == "content"
    adopted = (plugin.root / "vol").stat()
    assert (adopted.st_gid, stat.S_IMODE(adopted.st_mode)) == (5, 0o750)
    plugin.call("Unmount", Name="vol", ID="id")
    plugin.call("Remove", Name="vol")
    assert not (plugin.root / "vol").exists()


def in_the_way(path: Path, kind: str) -> None:
    match kind:
        case "nothing":
            pass
        case "file":
            path.write_text("somebody's")
        case "link":
            path.with_name("target").mkdir()
            path.symlink_to("target")
        case "somebody's":
            path.mkdir()
            os.chown(path, 1000, 1000)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("nothing", "there is no "),
        ("file", "is not a directory itself"),
        ("link", "is not a directory itself"),
        ("somebody's", "it belongs to user 1000"),
    ],
)
def test_what_is_not_a_directory_of_roots_is_not_adopted(
    plugin: Plugin, kind: str, words: str
) -> None:
    in_the_way(plugin.root / "vol", kind)
    before = sorted(plugin.root.iterdir())
    refused = plugin.call("Create", Name="vol", Opts={"adopt": "true", "mode": "0777"})
    assert refused.status == 409
    assert words in refused.error
    assert sorted(plugin.root.iterdir()) == before
    assert plugin.volumes() == []
    if kind == "somebody's":
        assert stat.S_IMODE((plugin.root / "vol").stat().st_mode) != 0o777


def test_the_directory_of_a_volume_is_not_adopted_as_another(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol").rename(plugin.root / "moved")
    refused = plugin.call("Create", Name="moved", Opts={"adopt": "true", "mode": "0777"})
    assert "it is the directory of volume 'vol'" in refused.error
    assert stat.S_IMODE((plugin.root / "moved").stat().st_mode) == 0o755
    (plugin.root / "moved").rename(plugin.root / "vol")
    assert plugin.call("Mount", Name="vol", ID="id").status == 200


def test_what_is_moved_away_removed_and_adopted_again_keeps_its_content(plugin: Plugin) -> None:
    # The engine does not pass on a Create of a volume that it knows.
    plugin.call("Create", Name="vol")
    (plugin.root / "vol" / "file").write_text("content")
    (plugin.root / "vol").rename(plugin.root / "vol.kept")
    plugin.call("Remove", Name="vol")
    (plugin.root / "vol.kept").rename(plugin.root / "vol")
    options = {"adopt": "true", **SHARED}
    assert plugin.call("Create", Name="vol", Opts=options).status == 200
    assert status(plugin)["access"] == "shared"
    assert (plugin.root / "vol" / "file").read_text() == "content"


def test_the_set_group_id_bit_is_kept_with_the_capabilities_of_the_plugin(
    short_path: Path,
) -> None:
    (short_path / "root" / "there").mkdir(parents=True)
    os.chown(short_path / "root" / "there", 0, 33)
    few = ("--bounding-set=-all,+chown,+dac_override,+fowner,+sys_ptrace", "--inh-caps=-all")
    with serving(
        short_path / "root", short_path / "mdvp.sock", prefix=("setpriv", *few, "--")
    ) as plugin:
        for name, options in (("there", {"adopt": "true"}), ("new", {"gid": "33"})):
            made = plugin.call("Create", Name=name, Opts={**options, "mode": "2770"})
            assert made.status == 200
            status = (plugin.root / name).stat()
            assert (status.st_gid, stat.S_IMODE(status.st_mode)) == (33, 0o2770)


def warnings(plugin: Plugin, name: str) -> list[str]:
    shown = status(plugin, name).get("warnings", [])
    assert isinstance(shown, list)
    return shown


def test_a_user_who_owns_a_volume_in_a_place_open_to_all_is_warned_of(plugin: Plugin) -> None:
    plugin.root.chmod(0o1777)
    plugin.call("Create", Name="mine", Opts={"uid": "0"})
    plugin.call("Create", Name="theirs", Opts={"uid": "1000"})
    assert warnings(plugin, "mine") == []
    (warning,) = warnings(plugin, "theirs")
    assert f"its directory is user 1000's, and {plugin.root} is open to others" in warning
    log = plugin.stop()
    assert log.count("is open to others") == 1
    assert f"WARNING volume theirs: {warning}" in log


def test_a_container_that_gives_its_volume_to_a_user_is_warned_of_once(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    os.chown(plugin.root / "vol", 999, 999)
    plugin.call("Mount", Name="vol", ID="one")
    assert warnings(plugin, "vol") == []  # nobody can make a file in the root but root
    plugin.root.chmod(0o1777)
    for mount_id in ("one", "one"):
        assert plugin.call("Mount", Name="vol", ID=mount_id).status == 200
    (warning,) = warnings(plugin, "vol")
    assert "its directory is user 999's" in warning
    assert plugin.stop().count("its directory is user 999's") == 1


def test_a_root_of_another_user_is_warned_of(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts={"uid": "999"})
    assert "can put" not in plugin.stop()
    os.chown(plugin.root, 1000, 1000)
    with serving(plugin.root, plugin.address) as second:
        assert "its directory is user 999's" in warnings(second, "vol")[0]
        assert f"WARNING {plugin.root} belongs to user 1000, who can put" in second.stop()


def test_a_record_of_before_the_directory_was_adopted_does_not_count(plugin: Plugin) -> None:
    # Root in a container keeps the record of its shared volume, and puts it back later.
    plugin.call("Create", Name="vol", Opts=SHARED)
    record = os.getxattr(plugin.root / "vol", ATTRIBUTE)
    (plugin.root / "vol").rename(plugin.root / "vol.kept")
    plugin.call("Remove", Name="vol")
    (plugin.root / "vol.kept").rename(plugin.root / "vol")
    plugin.call("Create", Name="vol", Opts={"adopt": "true"})
    adopted = os.getxattr(plugin.root / "vol", ATTRIBUTE)
    plugin.kill()
    for replayed, volumes in ((record, []), (adopted, ["vol"])):
        (plugin.root / ".mdvp" / "state.db").unlink()
        os.setxattr(plugin.root / "vol", ATTRIBUTE, replayed)
        with serving(plugin.root, plugin.address) as again:
            assert again.volumes() == volumes
            log = again.stop()
        assert ("it is from before the directory was given up or adopted" in log) == (not volumes)
    with serving(plugin.root, plugin.address) as again:
        assert status(again)["access"] == "exclusive"


def test_the_directory_of_a_removed_volume_is_no_volume_when_it_comes_back(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol", Opts=SHARED)
    (plugin.root / "vol").rename(plugin.root / "away")
    assert plugin.call("Remove", Name="vol").status == 200
    (plugin.root / "away").rename(plugin.root / "vol")
    plugin.kill()  # so that all directories are asked
    with serving(plugin.root, plugin.address) as again:
        assert again.volumes() == []


def test_a_directory_that_was_given_up_does_not_replace_the_one_made_after_it(
    plugin: Plugin,
) -> None:
    plugin.call("Create", Name="vol")
    (plugin.root / "vol").rename(plugin.root / "away")
    assert plugin.call("Mount", Name="vol", ID="one").status == 200
    (plugin.root / "vol").rename(plugin.root / "new")
    (plugin.root / "away").rename(plugin.root / "vol")
    plugin.kill()
    with serving(plugin.root, plugin.address) as again:
        assert again.call("Mount", Name="vol", ID="two").status == 409
        assert status(again)["mount_ids"] == ["one"]


def test_what_a_crash_has_cut_of_what_is_void_is_in_the_way_of_no_start(plugin: Plugin) -> None:
    plugin.call("Create", Name="vol")
    inode = (plugin.root / "vol").stat().st_ino
    plugin.kill()
    cut = f"\n{inode} 0 2026-11-24T07:10:19.0\n{inode} 0 2026-11-\n{inode}"
    (plugin.root / ".mdvp" / "void").write_text(cut)
    with serving(plugin.root, plugin.address) as again:
        assert again.volumes() == ["vol"]
