"""Alerts fire when they should, have a runbook, and ask for metrics that there are."""

from __future__ import annotations

import importlib
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

from deploy.observability.dashboards import dashboard, expressions
from gateway.metrics import Metrics

CHECKOUT = Path(__file__).parents[2]
DIRECTORY = CHECKOUT / "deploy" / "observability"
RUNBOOKS = CHECKOUT / "docs" / "runbooks.md"
PROMTOOL = CHECKOUT / ".promtool" / "usr" / "bin" / "promtool"
Rules = dict[str, Any]

# Of Envoy, which tests/deploy/envoy reads the metrics of; and of Prometheus itself.
NAMES_OF_OTHERS = re.compile(r"envoy_\w+|shoptrail:\w+(:\w+)?")
WORDS = re.compile(r"[a-z_][a-z0-9_:]*")
_IN_BRACES = re.compile(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"")
_GROUPING = re.compile(r"\b(by|without|on|ignoring)\s*\([^)]*\)")
FUNCTIONS = {
    *("sum", "min", "max", "rate", "increase", "absent", "histogram_quantile", "and", "or"),
    *("time", "unless", "bool", "last_over_time"),
}


@pytest.fixture
def rules() -> Rules:
    found: Rules = yaml.safe_load((DIRECTORY / "alerts.yaml").read_text())
    return found


def alerts_of(rules: Rules) -> Iterator[Rules]:
    for group in rules["groups"]:
        yield from (rule for rule in group["rules"] if "alert" in rule)


def metrics_there_are() -> set[str]:
    """The names of all series that our processes show."""
    for module in (
        "common.cron.runner",
        "common.cron.timetable",
        "common.interceptors.observe",
        "services.query.projector",
        "services.ingest.journaled_writer",
    ):
        importlib.import_module(module)
    registry = CollectorRegistry()
    Metrics(registry).watch_waiting_events(lambda: 0)
    names = set()
    for source in (REGISTRY, registry):
        for metric in source.collect():
            names.add(metric.name)
            suffixes = {
                "counter": ("_total",),
                "histogram": ("_bucket", "_sum", "_count"),
            }.get(metric.type, ())
            names |= {metric.name + suffix for suffix in suffixes}
    return names


def metrics_in(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    bare = _GROUPING.sub(" ", _IN_BRACES.sub(" ", expression))
    return {word for word in WORDS.findall(bare) if word not in FUNCTIONS and "_" in word}


def unknown_metrics(expressions: list[str]) -> set[str]:
    there = metrics_there_are()
    asked = set().union(*(metrics_in(expression) for expression in expressions))
    return {name for name in asked if name not in there and not NAMES_OF_OTHERS.fullmatch(name)}


def test_alerts_and_dashboards_ask_for_metrics_that_there_are(rules: Rules) -> None:
    asked = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]

    assert unknown_metrics([*asked, *expressions()]) == set()
    # And a wrong one would be found.
    assert unknown_metrics(["rate(http_reqests_total[5m])"]) == {"http_reqests_total"}
    assert "http_requests_total" in metrics_there_are()


def test_metrics_that_runbooks_name_are_there_too() -> None:
    named = re.findall(r"`([^`]+)`", RUNBOOKS.read_text())
    ours = re.compile(r"(^|\()(http|grpc|cron|query|gateway|ingest)_[a-z_]+")
    asked = [text for text in named if ours.search(text)]

    assert len(asked) > 5
    assert unknown_metrics(asked) == set()


def runbooks() -> dict[str, str]:
    """The sections of the page, by their headings."""
    parts = re.split(r"^## (\w+)$", RUNBOOKS.read_text(), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def check_alerts(rules: Rules, pages: Mapping[str, str]) -> None:
    names = [alert["alert"] for alert in alerts_of(rules)]
    assert sorted(names) == sorted(pages)
    for alert in alerts_of(rules):
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["summary"]
        assert len(pages[alert["alert"]].split()) > 15


def test_each_alert_has_a_runbook_and_each_runbook_an_alert(rules: Rules) -> None:
    check_alerts(rules, runbooks())


def add_an_alert(rules: Rules) -> None:
    rules["groups"][0]["rules"].append({**next(alerts_of(rules)), "alert": "Unheard"})


def drop_an_alert(rules: Rules) -> None:
    rules["groups"][0]["rules"].remove(next(alerts_of(rules)))


def forget_the_severity(rules: Rules) -> None:
    next(alerts_of(rules))["labels"]["severity"] = "whatever"


@pytest.mark.parametrize("spoil", [add_an_alert, drop_an_alert, forget_the_severity])
def test_a_planted_fault_is_found(rules: Rules, spoil: Callable[[Rules], None]) -> None:
    spoil(rules)

    with pytest.raises(AssertionError):
        check_alerts(rules, runbooks())


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROMTOOL, *arguments], capture_output=True, text=True, check=False, cwd=DIRECTORY
    )


def test_prometheus_takes_the_rules_and_they_do_as_their_tests_say() -> None:
    checked = promtool("check", "rules", "alerts.yaml")
    played = promtool("test", "rules", "alerts_test.yaml")

    assert checked.returncode == 0, checked.stderr
    assert played.returncode == 0, played.stdout


def test_prometheus_finds_planted_faults(tmp_path: Path) -> None:
    text = (DIRECTORY / "alerts.yaml").read_text()
    (tmp_path / "syntax.yaml").write_text(text.replace("sum(rate(", "sum((rate(", 1))
    assert promtool("check", "rules", tmp_path / "syntax.yaml").returncode != 0

    # An alert that would never fire is one that the tests find.
    (tmp_path / "alerts.yaml").write_text(text.replace("14.4 * 0.001", "14.4 * 0.1"))
    (tmp_path / "alerts_test.yaml").write_text((DIRECTORY / "alerts_test.yaml").read_text())
    assert promtool("test", "rules", tmp_path / "alerts_test.yaml").returncode != 0


def test_every_panel_can_be_drawn(tmp_path: Path) -> None:
    made = dashboard()
    ids = [panel["id"] for panel in made["panels"]]
    places = [
        (panel["gridPos"]["x"], panel["gridPos"]["y"])
        for panel in made["panels"]
        if panel["type"] != "row"
    ]

    assert len(ids) == len(set(ids))
    assert len(places) == len(set(places))
    queries = [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
    rules = {
        "groups": [
            {
                "name": "panels",
                "rules": [
                    {"record": f"panel:{number}", "expr": query}
                    for number, query in enumerate(queries)
                ],
            }
        ]
    }
    path = tmp_path / "panels.yaml"
    path.write_text(yaml.safe_dump(rules))
    assert promtool("check", "rules", path).returncode == 0
