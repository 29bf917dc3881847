"""The log of a real mdvp process in JSON: one line an event, with its fields, whatever is asked."""

import json
from pathlib import Path
from typing import Any

import pytest
from integration.plugin import serving


def written(log: str) -> list[dict[str, Any]]:
    """Return the lines of a log: each of them is a line of JSON."""
    return [json.loads(line) for line in log.splitlines()]


def test_each_line_says_what_was_done_with_which_volume(short_path: Path) -> None:
    root = short_path / "root"
    root.mkdir()
    with serving(root, short_path / "mdvp.sock", LOG_FORMAT="json", LOG_LEVEL="DEBUG") as plugin:
        plugin.call("Create", Name="vol", Opts={"mode": "0750"})
        plugin.call("Mount", Name="vol", ID='one"')
        plugin.call("Mount", Name="vol", ID="two")
        plugin.call("Remove", Name="vol")
        plugin.call("Unmount", Name="vol", ID='one"')
        plugin.call("Unmount", Name="vol", ID="two")
        plugin.call("Remove", Name="vol")
        plugin.raw(b"no http\r\n\r\n")
        lines = written(plugin.stop())
    assert all(line["time"].endswith("Z") and line["message"] for line in lines)
    of_volume = [line for line in lines if line.get("volume") == "vol" and line["level"] != "DEBUG"]
    # Standard error and output are one pipe here, and what is written to one waits for nothing.
    assert [(line["event"], line["level"], line.get("mount_id")) for line in of_volume] == [
        ("created", "INFO", None),
        ("mounted", "INFO", 'one"'),
        ("mount_refused", "WARNING", "two"),
        ("remove_refused", "WARNING", None),
        ("unmounted", "INFO", 'one"'),
        ("unmount_unknown", "WARNING", "two"),
        ("removed", "INFO", None),
    ]
    assert of_volume[0]["options"]["mode"] == "0750"
    assert of_volume[0]["mountpoint"] == str(root / "vol")
    assert [line["mounts"] for line in of_volume if "mounts" in line] == [1, 0]
    started = next(line for line in lines if line["event"] == "started")
    assert (started["root"], started["address"]) == (str(root), str(short_path / "mdvp.sock"))
    assert lines[-1]["event"] == "stopped"


def test_a_defect_is_a_line_with_what_python_says_of_it(short_path: Path) -> None:
    with serving(short_path, short_path / "mdvp.sock", LOG_FORMAT="json") as plugin:
        (short_path / ".mdvp" / "new").rmdir()
        assert plugin.call("Create", Name="vol").status == 500
        lines = written(plugin.stop())
    failed = [line for line in lines if line["event"] == "request_failed"]
    assert failed
    assert failed[0]["path"] == "/VolumeDriver.Create"
    assert "\n" in failed[0]["exception"]
    assert "Traceback" in failed[0]["exception"]


@pytest.mark.parametrize(
    ("name", "value", "status"), [("GRACE", "never", 2), ("LOG_LEVEL", "loud", 2)]
)
def test_a_setting_that_is_wrong_is_a_line_too(
    short_path: Path, name: str, value: str, status: int
) -> None:
    environ = {"LOG_FORMAT": "json", name: value}
    with serving(short_path, short_path / "mdvp.sock", **environ) as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    (line,) = written(log)
    assert plugin.process.returncode == status
    assert (line["event"], line["level"]) == ("failed", "ERROR")
    assert line["error"].startswith(name)


def test_a_root_that_is_missing_is_a_line_too(short_path: Path) -> None:
    with serving(short_path / "nope", short_path / "mdvp.sock", LOG_FORMAT="json") as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    (line,) = written(log)
    assert (plugin.process.returncode, line["event"]) == (1, "failed")


def test_a_format_that_is_none_is_refused_as_text(short_path: Path) -> None:
    with serving(short_path, short_path / "mdvp.sock", LOG_FORMAT="xml") as plugin:
        log, _ = plugin.process.communicate(timeout=10)
    assert plugin.process.returncode == 2
    assert "mdvp: error: LOG_FORMAT is 'xml': use one of text, json" in log
