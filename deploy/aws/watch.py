"""Alarms for what Prometheus doesn't see, or couldn't tell of if the cluster were gone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_rds as rds
from aws_cdk import aws_sns as sns

from deploy.aws.edge import WayIn

_MINUTE = cdk.Duration.minutes(1)
_FIVE_MINUTES = cdk.Duration.minutes(5)
_GIBIBYTE = 1024**3


def add_alarms(
    stack: cdk.Stack,
    *,
    key: kms.Key,
    way_in: WayIn,
    database: rds.DatabaseCluster,
    cache: elasticache.CfnReplicationGroup,
    rotations: Iterable[lambda_.Function],
) -> sns.Topic:
    """A topic, and alarms that tell it. Whom it tells in turn is for an operator to say."""
    topic = sns.Topic(stack, "Alarms", master_key=key, enforce_ssl=True)
    raised = _Alarms(stack, topic)
    balancer, edges = way_in.balancer.metrics, way_in.targets.metrics
    raised.add(
        "ShopsGetErrors",
        "More than one request in a hundred is answered with 5xx",
        cloudwatch.MathExpression(
            expression="100 * (FILL(balancer, 0) + FILL(edges, 0)) / requests",
            using_metrics={
                "balancer": balancer.http_code_elb(elb.HttpCodeElb.ELB_5XX_COUNT),
                "edges": edges.http_code_target(elb.HttpCodeTarget.TARGET_5XX_COUNT),
                "requests": balancer.request_count(),
            },
            period=_FIVE_MINUTES,
        ),
        above=1,
        times=2,
    )
    raised.add(
        "EdgesMissing",
        "Fewer than two edges are well",
        edges.healthy_host_count(period=_MINUTE, statistic="Minimum"),
        below=2,
        times=5,
        silence_is_bad=True,
    )
    raised.add(
        "ShopsWait",
        "One request in a hundred takes longer than a second",
        edges.target_response_time(period=_FIVE_MINUTES, statistic="p99"),
        above=1,
        times=3,
    )
    raised.add(
        "FirewallRefusesMuch",
        "The firewall turns requests away; are they attacks, or events?",
        _metric(
            "AWS/WAFV2",
            "BlockedRequests",
            {"WebACL": "Firewall", "Region": stack.region, "Rule": "ALL"},
            "Sum",
        ),
        above=1000,
        times=3,
    )
    raised.add(
        "DatabaseBusy",
        "The database's processors are at their end",
        database.metric_cpu_utilization(period=_FIVE_MINUTES),
        above=80,
        times=3,
    )
    raised.add(
        "DatabaseShortOfMemory",
        "The database has less than a gibibyte of memory left",
        database.metric_freeable_memory(period=_FIVE_MINUTES, statistic="Minimum"),
        below=_GIBIBYTE,
        times=3,
    )
    raised.add(
        "DatabaseConnections",
        "Many connections: more replicas than the database has room for?",
        database.metric_database_connections(period=_FIVE_MINUTES, statistic="Maximum"),
        above=800,
        times=3,
    )
    raised.add(
        "DatabaseLags",
        "A replica is behind, so its taking over would lose no event but take long",
        database.metric("AuroraReplicaLagMaximum", period=_FIVE_MINUTES, statistic="Maximum"),
        above=1000,
        times=3,
    )
    name = {"ReplicationGroupId": cache.ref}
    raised.add(
        "CacheBusy",
        "Valkey's one core is at its end",
        _metric("AWS/ElastiCache", "EngineCPUUtilization", name, "Maximum"),
        above=80,
        times=3,
    )
    raised.add(
        "CacheFull",
        "Valkey has little room left",
        _metric("AWS/ElastiCache", "DatabaseMemoryUsagePercentage", name, "Maximum"),
        above=80,
        times=3,
    )
    for function in rotations:
        raised.add(
            f"{function.node.id}Fails",
            "Passwords are not rotated",
            function.metric_errors(period=_FIVE_MINUTES),
            above=0,
            times=1,
        )
    return topic


class _Alarms:
    """Makes alarms that all tell the same topic."""

    def __init__(self, stack: cdk.Stack, topic: sns.Topic) -> None:
        self._stack = stack
        self._action = actions.SnsAction(topic)

    def add(
        self,
        name: str,
        description: str,
        metric: cloudwatch.IMetric,
        *,
        above: float | None = None,
        below: float | None = None,
        times: int,
        silence_is_bad: bool = False,
    ) -> None:
        """Raise the alarm when the metric is beyond the bound so many times in a row."""
        operator = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self._stack,
            name,
            alarm_description=description,
            metric=metric,
            threshold=below if above is None else above,
            comparison_operator=(
                operator.LESS_THAN_THRESHOLD if above is None else operator.GREATER_THAN_THRESHOLD
            ),
            evaluation_periods=times,
            treat_missing_data=(
                cloudwatch.TreatMissingData.BREACHING
                if silence_is_bad
                else cloudwatch.TreatMissingData.NOT_BREACHING
            ),
        )
        alarm.add_alarm_action(self._action)
        alarm.add_ok_action(self._action)


def _metric(
    namespace: str, name: str, dimensions: Mapping[str, str], statistic: str
) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=namespace,
        metric_name=name,
        dimensions_map=dict(dimensions),
        statistic=statistic,
        period=_FIVE_MINUTES,
    )
