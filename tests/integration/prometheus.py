"""A real Prometheus on a loopback port, which scrapes what a test tells it to."""

import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration.topology import free_port
from support import eventually, running

SLOW = 30.0  # seconds; a Prometheus that starts on a busy machine
# As often as it can be set to with figures that are still of use.
CONFIG = """
global:
  scrape_interval: 200ms
  scrape_timeout: 200ms
  evaluation_interval: 200ms
rule_files: {rules}
scrape_configs:
{jobs}
"""
JOB = """
  - job_name: {name}
    static_configs:
      - targets: [{target!r}]
"""


class Prometheus:
    """Its HTTP API (https://prometheus.io/docs/prometheus/latest/querying/api/)."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            url = f"{self._url}/-/ready"
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  # it is HTTP
                return True
        except OSError:
            return False

    def get(self, path: str, **query: str) -> Any:  # noqa: ANN401  # it is JSON
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310  # it is HTTP
            said = json.load(answer)
        assert said["status"] == "success", said
        return said["data"]

    def up(self) -> dict[str, str]:
        """Return the health of the target of each job."""
        targets = self.get("targets")["activeTargets"]
        return {each["labels"]["job"]: each["health"] for each in targets}

    def value(self, expression: str) -> float | None:
        """Return the only value that an expression has, None if it has none."""
        result = self.get("query", query=expression)["result"]
        assert len(result) < 2, result
        return float(result[0]["value"][1]) if result else None

    def alerts(self) -> dict[str, str]:
        """Return the state of each alert that is pending or firing."""
        return {each["labels"]["alertname"]: each["state"] for each in self.get("alerts")["alerts"]}

    def rules(self) -> set[str]:
        """Return the names of the rules that it has loaded, and evaluates without an error."""
        groups = self.get("rules")["groups"]
        return {
            rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "ok"
        }


@contextmanager
def scraping(
    place: Path, targets: Mapping[str, str], rules: Sequence[Path] = ()
) -> Iterator[Prometheus]:
    """Run a Prometheus that scrapes targets (HOST:PORT), each of a job, until the block ends."""
    jobs = "".join(JOB.format(name=name, target=target) for name, target in targets.items())
    config = place / "prometheus.yml"
    config.write_text(CONFIG.format(rules=json.dumps([*map(str, rules)]), jobs=jobs))
    port = free_port()
    command = (
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={place / 'prometheus'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    )
    with running(command, os.environ) as process:
        prometheus = Prometheus(port)
        try:
            eventually(prometheus.is_ready, True, SLOW)
        except AssertionError:
            process.kill()
            print(process.communicate()[0])
            raise
        yield prometheus


def promtool(*arguments: str | Path, given: str = "") -> tuple[int, str]:
    """Run promtool; return its exit status and what it says."""
    done = subprocess.run(
        ("promtool", *map(str, arguments)),
        input=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout
