"""The way in: a load balancer with a firewall before it, whose targets are the edge's pods."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticloadbalancingv2 as elb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_wafv2 as waf

from deploy.aws.network import OUTSIDE, Network, retention
from deploy.aws.sizes import Size

_EDGE_PORT = 8443
# Within five minutes, from one address. A school or a bus comes from one; the edge has rates too.
_REQUESTS_OF_ADDRESS = 100_000
# Events are what shops make of them: pages' addresses with addresses in them, descriptions in
# HTML, and batches of half a megabyte. A rule that takes these for an attack would lose events, so
# it counts and lets pass. Nothing here puts a body into SQL, a file's name or a page.
_ONLY_COUNTED = (
    "SizeRestrictions_BODY",
    "SizeRestrictions_QUERYSTRING",
    "SizeRestrictions_Cookie_HEADER",
    "NoUserAgent_HEADER",
    "CrossSiteScripting_BODY",
    "CrossSiteScripting_QUERYARGUMENTS",
    "GenericLFI_BODY",
    "GenericLFI_QUERYARGUMENTS",
    "GenericRFI_BODY",
    "GenericRFI_QUERYARGUMENTS",
    "EC2MetaDataSSRF_BODY",
    "EC2MetaDataSSRF_QUERYARGUMENTS",
    "RestrictedExtensions_QUERYARGUMENTS",
)


@dataclass(frozen=True, slots=True)
class WayIn:
    """What alarms watch, and what the cluster binds its pods to."""

    balancer: elb.ApplicationLoadBalancer
    targets: elb.ApplicationTargetGroup
    firewall: waf.CfnWebACL


def add_way_in(
    stack: cdk.Stack, size: Size, *, network: Network, key: kms.Key, access_logs: s3.Bucket
) -> WayIn:
    """HTTPS from everyone, and mutual trust of nobody: the edge behind it speaks TLS as well."""
    certificate = cdk.CfnParameter(
        stack,
        "CertificateArn",
        description="The certificate of the domain that shops send to, in this region",
        allowed_pattern=r"^arn:aws[a-z-]*:acm:[a-z0-9-]+:[0-9]{12}:certificate/[0-9a-f-]+$",
    )
    balancer = elb.ApplicationLoadBalancer(
        stack,
        "Balancer",
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_group_name=OUTSIDE),
        internet_facing=True,
        security_group=network.balancer,
        deletion_protection=True,
        drop_invalid_header_fields=True,
        desync_mitigation_mode=elb.DesyncMitigationMode.STRICTEST,
        # Longer than the edge waits between requests, or it would close what was just used.
        idle_timeout=cdk.Duration.seconds(60),
    )
    balancer.log_access_logs(access_logs, "balancer")
    targets = elb.ApplicationTargetGroup(
        stack,
        "Edges",
        vpc=network.vpc,
        target_type=elb.TargetType.IP,
        protocol=elb.ApplicationProtocol.HTTPS,
        port=_EDGE_PORT,
        # The edge's pods wait 25 s before they end.
        deregistration_delay=cdk.Duration.seconds(20),
        health_check=elb.HealthCheck(
            path="/",
            # Whatever it answers, it lives; without a gateway it says 503.
            healthy_http_codes="200-499",
            interval=cdk.Duration.seconds(5),
            timeout=cdk.Duration.seconds(4),
            healthy_threshold_count=2,
            unhealthy_threshold_count=2,
        ),
    )
    balancer.add_listener(
        "Https",
        port=443,
        open=False,
        protocol=elb.ApplicationProtocol.HTTPS,
        certificates=[elb.ListenerCertificate.from_arn(certificate.value_as_string)],
        ssl_policy=elb.SslPolicy.TLS13_RES,
        default_target_groups=[targets],
    )
    balancer.add_redirect(open=False)
    firewall = _firewall(stack)
    waf.CfnWebACLAssociation(
        stack,
        "FirewallOfBalancer",
        resource_arn=balancer.load_balancer_arn,
        web_acl_arn=firewall.attr_arn,
    )
    _log_refusals(stack, size, key, firewall)
    return WayIn(balancer, targets, firewall)


def let_bind(role: iam.Role, way_in: WayIn) -> None:
    """Let the controller in the cluster put the edge's pods, and no others, behind the balancer."""
    role.add_to_policy(
        iam.PolicyStatement(
            actions=[
                "elasticloadbalancing:RegisterTargets",
                "elasticloadbalancing:DeregisterTargets",
            ],
            resources=[way_in.targets.target_group_arn],
        )
    )
    role.add_to_policy(
        iam.PolicyStatement(
            # AWS knows no narrower resource for these.
            actions=[
                "elasticloadbalancing:DescribeTargetGroups",
                "elasticloadbalancing:DescribeTargetHealth",
                "ec2:DescribeAvailabilityZones",
                "ec2:DescribeInstances",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ],
            resources=["*"],
        )
    )


def _firewall(stack: cdk.Stack) -> waf.CfnWebACL:
    managed = (
        ("AWSManagedRulesAmazonIpReputationList", ()),
        ("AWSManagedRulesKnownBadInputsRuleSet", ()),
        ("AWSManagedRulesCommonRuleSet", _ONLY_COUNTED),
    )
    rules = [_rate_rule()]
    rules += [
        _managed_rule(priority, name, counted)
        for priority, (name, counted) in enumerate(managed, start=1)
    ]
    return waf.CfnWebACL(
        stack,
        "Firewall",
        scope="REGIONAL",
        default_action=waf.CfnWebACL.DefaultActionProperty(allow={}),
        visibility_config=_seen_as("Firewall"),
        rules=rules,
    )


def _rate_rule() -> waf.CfnWebACL.RuleProperty:
    return waf.CfnWebACL.RuleProperty(
        name="Floods",
        priority=0,
        action=waf.CfnWebACL.RuleActionProperty(block={}),
        statement=waf.CfnWebACL.StatementProperty(
            rate_based_statement=waf.CfnWebACL.RateBasedStatementProperty(
                aggregate_key_type="IP", limit=_REQUESTS_OF_ADDRESS
            )
        ),
        visibility_config=_seen_as("Floods"),
    )


def _managed_rule(
    priority: int, name: str, only_counted: tuple[str, ...]
) -> waf.CfnWebACL.RuleProperty:
    group = waf.CfnWebACL.ManagedRuleGroupStatementProperty(
        vendor_name="AWS",
        name=name,
        rule_action_overrides=[
            waf.CfnWebACL.RuleActionOverrideProperty(
                name=rule, action_to_use=waf.CfnWebACL.RuleActionProperty(count={})
            )
            for rule in only_counted
        ],
    )
    return waf.CfnWebACL.RuleProperty(
        name=name,
        priority=priority,
        override_action=waf.CfnWebACL.OverrideActionProperty(none={}),
        statement=waf.CfnWebACL.StatementProperty(managed_rule_group_statement=group),
        visibility_config=_seen_as(name),
    )


def _seen_as(name: str) -> waf.CfnWebACL.VisibilityConfigProperty:
    # No samples: they would hold shops' visitors.
    return waf.CfnWebACL.VisibilityConfigProperty(
        cloud_watch_metrics_enabled=True, metric_name=name, sampled_requests_enabled=False
    )


def _log_refusals(stack: cdk.Stack, size: Size, key: kms.Key, firewall: waf.CfnWebACL) -> None:
    refusals = logs.LogGroup(
        stack,
        "FirewallLogs",
        # WAF takes no others.
        log_group_name="aws-waf-logs-shoptrail",
        encryption_key=key,
        retention=retention(size),
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    waf.CfnLoggingConfiguration(
        stack,
        "FirewallLogging",
        resource_arn=firewall.attr_arn,
        log_destination_configs=[
            stack.format_arn(
                service="logs",
                resource="log-group",
                resource_name="aws-waf-logs-shoptrail",
                arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
            )
        ],
        # Only what was turned away, and neither keys nor what may name a person.
        logging_filter={
            "DefaultBehavior": "DROP",
            "Filters": [
                {
                    "Behavior": "KEEP",
                    "Requirement": "MEETS_ANY",
                    "Conditions": [{"ActionCondition": {"Action": "BLOCK"}}],
                }
            ],
        },
        redacted_fields=[
            waf.CfnLoggingConfiguration.FieldToMatchProperty(single_header={"Name": name})
            for name in ("authorization", "cookie")
        ]
        + [waf.CfnLoggingConfiguration.FieldToMatchProperty(query_string={})],
    ).node.add_dependency(refusals)
