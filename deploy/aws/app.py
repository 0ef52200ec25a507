"""Writes the templates: python -m deploy.aws.app deploy/aws/rendered

Nothing is looked up and nothing uploaded, so it needs neither an account nor a network, and the
templates can be deployed by themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

import aws_cdk as cdk

from deploy.aws.cluster import Cluster, add_cluster
from deploy.aws.data import Buckets, add_buckets, add_cache, add_database
from deploy.aws.edge import WayIn, add_way_in, let_bind
from deploy.aws.encryption import add_key
from deploy.aws.network import add_network
from deploy.aws.registry import add_registry
from deploy.aws.secrets import AllSecrets, add_places, add_secrets, rotate_passwords
from deploy.aws.sizes import PLACE, SIZES, Place, Size
from deploy.aws.watch import add_alarms

# What the CDK does better than it did at first, and only if told to.
_BEHAVIOURS = (
    "@aws-cdk/aws-iam:minimizePolicies",
    "@aws-cdk/aws-kms:aliasNameRef",
    "@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy",
    "@aws-cdk/aws-s3:createDefaultLoggingPolicy",
)


def add_stack(app: cdk.App, size: Size, place: Place) -> cdk.Stack:
    """All that a deployment of the size needs."""
    stack = cdk.Stack(
        app,
        size.name,
        env=cdk.Environment(region=place.region),
        description=f"Shoptrail, {size.name}",
        termination_protection=True,
        # No bucket and no roles have to be there before.
        synthesizer=cdk.BootstraplessSynthesizer(),
    )
    key = add_key(stack)
    network = add_network(stack, size, place, key)
    secrets = add_secrets(stack, key)
    database = add_database(stack, size, network, key)
    cache = add_cache(stack, size, network, key, secrets.cache)
    places = add_places(stack, key, database=database, cache=cache)
    buckets = add_buckets(stack, size, key)
    cluster = add_cluster(stack, size, network=network, key=key)
    way_in = add_way_in(stack, size, network=network, key=key, access_logs=buckets.logs)
    let_bind(cluster.targets_binder, way_in)
    _let_read_secrets(cluster, secrets)
    places.grant_read(cluster.secrets_reader)
    rotations = rotate_passwords(stack, size, secrets, database=database, key=key)
    topic = add_alarms(
        stack, key=key, way_in=way_in, database=database, cache=cache, rotations=rotations
    )
    images = add_registry(stack, place, key)
    _tell(
        stack,
        way_in,
        buckets,
        Database=database.cluster_endpoint.hostname,
        DatabaseArn=database.cluster_arn,
        DatabaseAdministrator=database.secret.secret_arn,
        Cache=cache.attr_primary_end_point_address,
        Images=images.repository_uri,
        Alarms=topic.topic_arn,
    )
    return stack


def _let_read_secrets(cluster: Cluster, secrets: AllSecrets) -> None:
    for group in (secrets.database, secrets.migration, secrets.cache, secrets.keys):
        for secret in group.values():
            secret.grant_read(cluster.secrets_reader)


def _tell(stack: cdk.Stack, way_in: WayIn, buckets: Buckets, **more: str) -> None:
    """What an operator puts into the overlay, and looks at."""
    told = {
        "Balancer": way_in.balancer.load_balancer_dns_name,
        "Edges": way_in.targets.target_group_arn,
        "Exports": buckets.exports.bucket_name,
        "Backups": buckets.backups.bucket_name,
        **more,
    }
    for name, value in told.items():
        cdk.CfnOutput(stack, f"{name}Output", value=value)


def main() -> None:
    """Write a template for each size into the directory that is named."""
    (directory,) = sys.argv[1:]
    app = cdk.App(
        outdir=str(Path(directory)),
        analytics_reporting=False,
        context=dict.fromkeys(_BEHAVIOURS, True),
    )
    for size in SIZES.values():
        add_stack(app, size, PLACE)
    app.synth()


if __name__ == "__main__":
    main()
