"""A network: the load balancer outside, the cluster inside, data without a way out."""

from __future__ import annotations

from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs

from deploy.aws.sizes import Place, Size

_ZONES = 3
OUTSIDE, INSIDE, DATA = "outside", "inside", "data"
_RETENTION = {30: logs.RetentionDays.ONE_MONTH, 90: logs.RetentionDays.THREE_MONTHS}


@dataclass(frozen=True, slots=True)
class Network:
    """The network, and who is who in it."""

    vpc: ec2.Vpc
    balancer: ec2.SecurityGroup
    nodes: ec2.SecurityGroup
    database: ec2.SecurityGroup
    cache: ec2.SecurityGroup


def add_network(stack: cdk.Stack, size: Size, place: Place, key: kms.Key) -> Network:
    """The network. Each group lets in only who needs it, on the one port that they need."""
    vpc = ec2.Vpc(
        stack,
        "Network",
        ip_addresses=ec2.IpAddresses.cidr(place.network),
        # The region's first ones, whatever they are called.
        availability_zones=[cdk.Fn.select(number, cdk.Fn.get_azs()) for number in range(_ZONES)],
        nat_gateways=size.nat_gateways,
        subnet_configuration=[
            ec2.SubnetConfiguration(
                name=OUTSIDE,
                subnet_type=ec2.SubnetType.PUBLIC,
                cidr_mask=24,
                map_public_ip_on_launch=False,
            ),
            # Each pod has an address.
            ec2.SubnetConfiguration(
                name=INSIDE, subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=19
            ),
            ec2.SubnetConfiguration(
                name=DATA, subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24
            ),
        ],
    )
    flows = logs.LogGroup(
        stack,
        "Flows",
        encryption_key=key,
        retention=_RETENTION[size.log_days],
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    # What was refused says who tries; what was let in would cost more than the rest of the logs.
    vpc.add_flow_log(
        "RefusedFlows",
        destination=ec2.FlowLogDestination.to_cloud_watch_logs(flows),
        traffic_type=ec2.FlowLogTrafficType.REJECT,
    )
    # Layers of images come from there, and this way past the NAT gateways.
    vpc.add_gateway_endpoint("Storage", service=ec2.GatewayVpcEndpointAwsService.S3)

    def group(name: str, description: str, *, outbound: bool) -> ec2.SecurityGroup:
        return ec2.SecurityGroup(
            stack,
            name,
            vpc=vpc,
            description=description,
            allow_all_outbound=outbound,
        )

    network = Network(
        vpc=vpc,
        balancer=group("BalancerGroup", "Shoptrail load balancer", outbound=False),
        nodes=group("NodeGroup", "Shoptrail nodes and their pods", outbound=True),
        database=group("DatabaseGroup", "Shoptrail database", outbound=False),
        cache=group("CacheGroup", "Shoptrail cache", outbound=False),
    )
    everyone = ec2.Peer.any_ipv4()
    network.balancer.add_ingress_rule(everyone, ec2.Port.tcp(443), "HTTPS from everyone")
    network.balancer.add_ingress_rule(everyone, ec2.Port.tcp(80), "The redirect to it")
    network.balancer.connections.allow_to(network.nodes, ec2.Port.tcp(8443), "The edge")
    network.database.connections.allow_from(network.nodes, ec2.Port.tcp(3306), "MySQL")
    network.cache.connections.allow_from(network.nodes, ec2.Port.tcp(6379), "Valkey")
    network.nodes.connections.allow_internally(ec2.Port.all_traffic(), "Pods; policies say which")
    return network


def retention(size: Size) -> logs.RetentionDays:
    """How long logs are kept."""
    return _RETENTION[size.log_days]
