"""What docs/monitoring has for Prometheus and Grafana, beside what both parts really say."""

import json
import re
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from integration.conftest import RedisServer, Service, Start
from integration.plugin import Plugin, serving
from integration.prometheus import SLOW, Prometheus, promtool, scraping
from integration.topology import free_port
from support import eventually, running

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"
RULES = MONITORING / "alerts.yml"
TESTS = MONITORING / "alerts_test.yml"
PAGE = MONITORING.with_suffix(".md")
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
ALERTS = re.findall(r"^      - alert: (\w+)$", RULES.read_text(), re.MULTILINE)
# Names of metrics in an expression; what follows is neither a label nor its value.
NAME = re.compile(r"\b(?:mdvp|process|node_textfile)_\w+\b")
FOREIGN = {"node_textfile_mtime_seconds"}  # node_exporter's own
INTERVAL = "1m"


def expressions() -> Iterator[tuple[str, str]]:
    """Yield each expression of the dashboard with the title of its panel, as Grafana sends it."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            sent = target["expr"].replace("$__rate_interval", INTERVAL)
            yield panel["title"], re.sub(r"\$\w+", ".*", sent)


@pytest.fixture
def plugin(short_path: Path) -> Iterator[Plugin]:
    """Return a plugin that has a volume, and writes its metrics to a folder beside its root."""
    root = short_path / "root"
    folder = short_path / "metrics"
    root.mkdir()
    folder.mkdir()
    with serving(root, short_path / "mdvp.sock", f"--metrics-dir={folder}") as plugin:
        plugin.call("Create", Name="vol")
        eventually((folder / "mdvp.prom").exists, True)
        yield plugin


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def service(redis_server: RedisServer, start: Start, port: int) -> Service:  # noqa: ARG001
    return start(in_step=True, SYNC_METRICS=f"127.0.0.1:{port}")


@pytest.fixture
def prometheus(
    place: Path, short_path: Path, plugin: Plugin, service: Service, port: int
) -> Iterator[Prometheus]:
    """Return a Prometheus that scrapes both parts, by the rules of the docs, without patience."""
    assert plugin.process.poll() is service.process.poll() is None
    node = free_port()
    exporter = (
        "prometheus-node-exporter",
        *("--collector.disable-defaults", "--collector.textfile"),
        f"--collector.textfile.directory={short_path / 'metrics'}",
        f"--web.listen-address=127.0.0.1:{node}",
        "--log.level=error",
    )
    rules = place / "alerts.yml"
    rules.write_text(re.sub(r"^        for: \w+\n", "", RULES.read_text(), flags=re.MULTILINE))
    targets = {"mdvp-sync": f"127.0.0.1:{port}", "node": f"127.0.0.1:{node}"}
    with ExitStack() as stack:
        stack.enter_context(running(exporter, {}))
        found = stack.enter_context(scraping(place, targets, [rules]))
        eventually(found.up, dict.fromkeys(targets, "up"), SLOW)
        yield found


class TestAlerts:
    def test_are_rules(self) -> None:
        status, said = promtool("check", "rules", RULES)
        assert (status, f"SUCCESS: {len(ALERTS)} rules found" in said) == (0, True)
        assert len(ALERTS) > 10

    def test_fire_when_they_should_and_not_when_not(self) -> None:
        assert promtool("test", "rules", TESTS)[0] == 0

    @pytest.mark.parametrize("alert", ALERTS)
    def test_are_each_tested_both_ways(self, alert: str) -> None:
        text = TESTS.read_text()
        assert re.search(rf"alertname: {alert}\n        exp_alerts:\n          - exp_labels:", text)
        assert re.search(rf"alertname: {alert}, exp_alerts: \[\]", text)

    @pytest.mark.parametrize("alert", ALERTS)
    def test_would_fail_their_tests_if_they_were_others(self, alert: str, tmp_path: Path) -> None:
        # A rule that never fires is found by its test.
        text = RULES.read_text()
        other, count = re.subn(
            rf"(      - alert: {alert}\n)        expr: (?:>-\n(?:          .*\n)+|.*\n)",
            "\\1        expr: vector(0) > 1\n",
            text,
        )
        assert count == 1
        (tmp_path / RULES.name).write_text(other)
        (tmp_path / TESTS.name).write_text(TESTS.read_text())
        status, said = promtool("test", "rules", tmp_path / TESTS.name)
        assert status != 0
        assert f"alertname: {alert}" in said


class TestWhatIsNamed:
    @pytest.fixture
    def named(self) -> set[str]:
        in_dashboard = " ".join(
            [
                *(expression for _, expression in expressions()),
                *(str(each["query"]) for each in DASHBOARD["templating"]["list"]),
            ]
        )
        in_rules = re.sub(r"annotations:.*?(?=- alert|\Z)", "", RULES.read_text(), flags=re.DOTALL)
        return set(NAME.findall(in_dashboard + in_rules)) - FOREIGN

    def test_is_what_both_parts_say(self, prometheus: Prometheus, named: set[str]) -> None:
        said = set(prometheus.get("label/__name__/values"))
        assert named - said == set()
        assert len(named) > 25

    def test_is_all_that_both_parts_say_on_the_page(self, prometheus: Prometheus) -> None:
        rows = re.findall(r"^\| `(mdvp_\w+)", PAGE.read_text(), re.MULTILINE)
        said = {
            re.sub(r"_(bucket|count|sum)$", "", each)
            for each in prometheus.get("label/__name__/values")
            if each.startswith("mdvp_")
        }
        assert set(rows) == said
        assert len(rows) == len(set(rows))


class TestPrometheus:
    def test_takes_each_expression_of_the_dashboard(self, prometheus: Prometheus) -> None:
        found = dict(expressions())
        assert len(found) > 15
        for title, expression in expressions():
            assert isinstance(prometheus.get("query", query=expression)["result"], list), title

    def test_has_something_to_show_in_each_panel(self, prometheus: Prometheus) -> None:
        # What is 0 while nothing happens is left out there.
        shown = [(title, each.removesuffix(" > 0")) for title, each in expressions()]

        def empty() -> list[tuple[str, str]]:
            return [each for each in shown if not prometheus.get("query", query=each[1])["result"]]

        eventually(empty, [], SLOW)

    def test_evaluates_each_rule(self, prometheus: Prometheus) -> None:
        eventually(prometheus.rules, set(ALERTS), SLOW)

    def test_tells_that_a_mirror_has_ended_and_that_the_plugin_has(
        self, prometheus: Prometheus, plugin: Plugin, service: Service
    ) -> None:
        eventually(lambda: prometheus.value('mdvp_volumes{access="exclusive"}'), 1, SLOW)
        eventually(lambda: prometheus.value("mdvp_sync_healthy"), 1, SLOW)
        eventually(prometheus.rules, set(ALERTS), SLOW)
        eventually(prometheus.alerts, {}, SLOW)
        service.stop(signal.SIGTERM)
        eventually(prometheus.alerts, {"MdvpSyncDown": "firing"}, SLOW)
        plugin.process.terminate()
        ended = {"MdvpSyncDown": "firing", "MdvpSilent": "firing"}
        eventually(prometheus.alerts, ended, SLOW)


class TestDashboard:
    def test_is_what_grafana_takes(self) -> None:
        assert DASHBOARD["schemaVersion"] >= 39
        panels = DASHBOARD["panels"]
        assert len({each["id"] for each in panels}) == len(panels)
        assert {each["type"] for each in panels} == {"row", "stat", "timeseries"}
        assert all(each.get("description") for each in panels if each["type"] != "row")

    def test_asks_the_data_source_that_was_chosen(self) -> None:
        sources = re.findall(r'"uid": "(\S*)"', json.dumps(DASHBOARD["panels"]))
        assert set(sources) == {"${datasource}"}
        assert DASHBOARD["templating"]["list"][0]["name"] == "datasource"
        variables = {each["name"] for each in DASHBOARD["templating"]["list"]}
        used = set(re.findall(r"\$(\w+)", json.dumps(DASHBOARD["panels"])))
        assert used <= variables | {"__rate_interval"}

    def test_has_no_panel_over_another(self) -> None:
        taken = set[tuple[int, int]]()
        for panel in DASHBOARD["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken, panel["title"]
            assert at["x"] + at["w"] <= 24
            taken |= cells
