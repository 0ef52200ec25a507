"""Writes what a month costs at each size into docs/aws.md: python -m deploy.aws.costs"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from deploy.aws.prices import A_GIGABYTE, A_MILLION, HOURLY, HOURS, MONTHLY, USAGES, Usage
from deploy.aws.sizes import SIZES, Size

PAGE = Path(__file__).parents[2] / "docs" / "aws.md"
_BEGIN, _END = "<!-- costs -->\n", "<!-- /costs -->"
_ROOT_DISK_GIGABYTES = 50
_JOURNALS_GIGABYTES = 3 * 4
_BYTES = 1e9
_SECONDS = HOURS * 3600
# What one unit of a load balancer takes: a gigabyte an hour, or 25 new connections a second.
_UNIT_CONNECTIONS = 25.0
Counts = Mapping[str, int]


def monthly_costs(size: Size, usage: Usage, counts: Counts) -> dict[str, float]:
    """Dollars a month, by what they are for. `counts` is how many resources there are by type."""
    events = usage.events * 1e6
    requests = events / usage.events_a_request
    sent = events * usage.event_bytes / _BYTES
    stored = (
        events * usage.kept_months * usage.copies * (usage.event_bytes + usage.row_bytes) / _BYTES
    )
    connections = requests / usage.requests_a_connection / _SECONDS
    units = max(sent / HOURS, connections / _UNIT_CONNECTIONS)
    input_and_output = usage.events * usage.inputs_and_outputs_an_event
    disks = size.nodes * _ROOT_DISK_GIGABYTES + _JOURNALS_GIGABYTES
    rules = 4
    return {
        "Kubernetes (EKS)": HOURLY["cluster"] * HOURS,
        "Machines": size.nodes * HOURLY[size.node_type] * HOURS,
        "Database machines (Aurora)": (1 + size.database_readers)
        * HOURLY[size.database_type]
        * HOURS,
        "Database storage": stored * A_GIGABYTE["database storage"],
        "Database input and output": input_and_output * A_MILLION["database input and output"],
        "Database backups": stored * A_GIGABYTE["database backup"],
        "Cache (Valkey)": (1 + size.cache_replicas) * HOURLY[size.cache_type] * HOURS,
        "NAT gateways": size.nat_gateways * HOURLY["nat gateway"] * HOURS
        + usage.nat_gigabytes * A_GIGABYTE["nat gateway"],
        "Load balancer": (HOURLY["load balancer"] + units * HOURLY["load balancer unit"]) * HOURS,
        "Public addresses": (3 + size.nat_gateways) * HOURLY["public address"] * HOURS,
        "Firewall (WAF)": MONTHLY["firewall"]
        + rules * MONTHLY["firewall rule"]
        + requests / 1e6 * A_MILLION["firewall requests"],
        "Disks": disks * A_GIGABYTE["disk"],
        "Logs, alarms": usage.log_gigabytes * A_GIGABYTE["logs taken in"]
        + usage.log_gigabytes * size.log_days / 30 * A_GIGABYTE["logs kept"]
        + counts["AWS::CloudWatch::Alarm"] * MONTHLY["alarm"],
        "Secrets, key": counts["AWS::SecretsManager::Secret"] * MONTHLY["secret"]
        + counts["AWS::KMS::Key"] * MONTHLY["key"],
        "Data between zones": sent * usage.between_zones * A_GIGABYTE["between zones"],
        "Data to the world": usage.read_gigabytes * A_GIGABYTE["to the world"],
    }


def count_resources(template: Path) -> Counter[str]:
    """How many resources of each type a template has."""
    resources = json.loads(template.read_text())["Resources"].values()
    return Counter(each["Type"] for each in resources)


def table(counts: Mapping[str, Counts]) -> str:
    """The table, as the page has it."""
    costs = {name: monthly_costs(size, USAGES[name], counts[name]) for name, size in SIZES.items()}
    lines = ["| a month, in US dollars | " + " | ".join(SIZES) + " |", "| --- |" + " ---: |" * 3]
    what = "events a month, millions (assumed)"
    lines.append(_row(what, [f"{USAGES[name].events:,.0f}" for name in SIZES]))
    machines = [f"{size.nodes} × {size.node_type}" for size in SIZES.values()]
    lines.append(_row("machines", machines))
    databases = [f"{1 + size.database_readers} × {size.database_type}" for size in SIZES.values()]
    lines.append(_row("database", databases))
    for item in next(iter(costs.values())):
        lines.append(_row(item, [f"{costs[name][item]:,.0f}" for name in SIZES]))
    sums = [f"**{sum(costs[name].values()):,.0f}**" for name in SIZES]
    lines.append(_row("**together**", sums))
    return "\n".join(lines) + "\n"


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | " + " | ".join(cells) + " |"


def with_table(page: str, text: str) -> str:
    """The page with the table in its place."""
    before, _, rest = page.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{text}\n{_END}{after}"


def main() -> None:
    """Write the table into the page."""
    rendered = Path(__file__).parent / "rendered"
    counts = {name: count_resources(rendered / f"{name}.template.json") for name in SIZES}
    PAGE.write_text(with_table(PAGE.read_text(), table(counts)))


if __name__ == "__main__":
    main()
