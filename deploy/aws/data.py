"""What keeps data: Aurora MySQL, Valkey, and buckets for exports and backups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_rds as rds
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager

from deploy.aws.network import DATA, Network
from deploy.aws.sizes import SERVICES, Size

_AURORA = rds.AuroraMysqlEngineVersion.of("8.0.mysql_aurora.3.10.1", "8.0")
_VALKEY = "8.0"
# The same as everywhere else: a service's own keys, and nothing that lists, empties or
# configures the whole server.
REDIS_COMMANDS = (
    "-@all +@read +@write +@connection +@transaction "
    "+eval +evalsha +script|load +script|exists "
    "-@dangerous -scan -randomkey -dbsize -function"
)


def add_database(
    stack: cdk.Stack, size: Size, network: Network, key: kms.Key
) -> rds.DatabaseCluster:
    """MySQL in three zones, which takes only connections over TLS.

    Its administrator's password is made and rotated by RDS; services have users of their own.
    """
    instance = ec2.InstanceType(size.database_type)
    members = {
        "instance_type": instance,
        "publicly_accessible": False,
        "auto_minor_version_upgrade": True,
        "ca_certificate": rds.CaCertificate.of(size.certificate_authority),
        "enable_performance_insights": True,
        "performance_insight_encryption_key": key,
    }
    engine = rds.DatabaseClusterEngine.aurora_mysql(version=_AURORA)
    parameters = rds.ParameterGroup(
        stack,
        "DatabaseParameters",
        engine=engine,
        parameters={
            "require_secure_transport": "ON",
            "tls_version": "TLSv1.2,TLSv1.3",
            "character_set_server": "utf8mb4",
            # A commit is on the disks of the log before it is answered.
            "innodb_flush_log_at_trx_commit": "1",
            "server_audit_logging": "1",
            # Who came and who changed rights and tables; rows are nobody's business.
            "server_audit_events": "CONNECT,QUERY_DCL,QUERY_DDL",
        },
    )
    return rds.DatabaseCluster(
        stack,
        "Database",
        engine=engine,
        manage_master_user_password=True,
        credentials=rds.Credentials.from_username("administrator"),
        writer=rds.ClusterInstance.provisioned("Writer", **members),
        readers=[
            rds.ClusterInstance.provisioned(f"Reader{number}", promotion_tier=1, **members)
            for number in range(1, size.database_readers + 1)
        ],
        vpc=network.vpc,
        vpc_subnets=ec2.SubnetSelection(subnet_group_name=DATA),
        security_groups=[network.database],
        parameter_group=parameters,
        storage_encrypted=True,
        storage_encryption_key=key,
        backup=rds.BackupProps(retention=cdk.Duration.days(size.backup_days)),
        copy_tags_to_snapshot=True,
        cloudwatch_logs_exports=["audit", "error", "slowquery"],
        monitoring_interval=cdk.Duration.seconds(60),
        # Passwords are rotated through it, by a function that needs no way into the network.
        enable_data_api=True,
        iam_authentication=True,
        deletion_protection=True,
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )


def add_cache(
    stack: cdk.Stack,
    size: Size,
    network: Network,
    key: kms.Key,
    passwords: Mapping[str, secretsmanager.Secret],
) -> elasticache.CfnReplicationGroup:
    """Valkey, where each service has its own keys. It keeps nothing that counts."""
    nobody = elasticache.CfnUser(
        stack,
        "CacheNobody",
        engine="valkey",
        user_id="shoptrail-nobody",
        # Every group has a user of this name; ours may do nothing.
        user_name="default",
        access_string="off ~* -@all",
        no_password_required=True,
    )
    users = [nobody]
    for service in SERVICES:
        password = passwords[service].secret_value_from_json("password").unsafe_unwrap()
        users.append(
            elasticache.CfnUser(
                stack,
                f"CacheUser{service.capitalize()}",
                engine="valkey",
                user_id=f"shoptrail-{service}",
                user_name=service,
                access_string=f"on ~{service}:* resetchannels {REDIS_COMMANDS}",
                # A reference, which CloudFormation resolves: no password is in the template.
                passwords=[password],
            )
        )
    group = elasticache.CfnUserGroup(
        stack,
        "CacheUsers",
        engine="valkey",
        user_group_id="shoptrail",
        user_ids=[user.ref for user in users],
    )
    subnets = elasticache.CfnSubnetGroup(
        stack,
        "CacheSubnets",
        description="Shoptrail cache",
        subnet_ids=network.vpc.select_subnets(subnet_group_name=DATA).subnet_ids,
    )
    return elasticache.CfnReplicationGroup(
        stack,
        "Cache",
        replication_group_description="Shoptrail: mutexes and rates",
        engine="valkey",
        engine_version=_VALKEY,
        cache_node_type=size.cache_type,
        num_cache_clusters=1 + size.cache_replicas,
        automatic_failover_enabled=True,
        multi_az_enabled=True,
        transit_encryption_enabled=True,
        transit_encryption_mode="required",
        at_rest_encryption_enabled=True,
        kms_key_id=key.key_arn,
        user_group_ids=[group.ref],
        cache_subnet_group_name=subnets.ref,
        security_group_ids=[network.cache.security_group_id],
        auto_minor_version_upgrade=True,
        snapshot_retention_limit=1,
    )


@dataclass(frozen=True, slots=True)
class Buckets:
    """Where files go."""

    logs: s3.Bucket
    exports: s3.Bucket
    backups: s3.Bucket


def add_buckets(stack: cdk.Stack, size: Size, key: kms.Key) -> Buckets:
    """Buckets that nobody else can read, and whose content leaves by itself."""
    closed = {
        "block_public_access": s3.BlockPublicAccess.BLOCK_ALL,
        "enforce_ssl": True,
        "minimum_tls_version": 1.2,
        "object_ownership": s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        "removal_policy": cdk.RemovalPolicy.RETAIN,
    }
    sealed = {
        **closed,
        "encryption": s3.BucketEncryption.KMS,
        "encryption_key": key,
        "bucket_key_enabled": True,
        "versioned": True,
    }
    access = s3.Bucket(
        stack,
        "AccessLogs",
        # The load balancer can't use a key of ours.
        encryption=s3.BucketEncryption.S3_MANAGED,
        versioned=True,
        lifecycle_rules=[_leaves_after(size.log_days)],
        **closed,
    )
    exports = s3.Bucket(
        stack,
        "Exports",
        server_access_logs_bucket=access,
        server_access_logs_prefix="exports/",
        # Who is erased is erased here by age: nothing else rewrites files that were handed over.
        lifecycle_rules=[_leaves_after(14)],
        **sealed,
    )
    backups = s3.Bucket(
        stack,
        "Backups",
        server_access_logs_bucket=access,
        server_access_logs_prefix="backups/",
        lifecycle_rules=[_leaves_after(size.backup_days)],
        **sealed,
    )
    exporting = iam.Role(
        stack,
        "SnapshotExport",
        assumed_by=iam.ServicePrincipal(
            "export.rds.amazonaws.com",
            conditions={"StringEquals": {"aws:SourceAccount": stack.account}},
        ),
        description="Writes snapshots of the database to the bucket for backups",
    )
    backups.grant_read_write(exporting)
    backups.grant_delete(exporting)
    return Buckets(access, exports, backups)


def _leaves_after(days: int) -> s3.LifecycleRule:
    return s3.LifecycleRule(
        expiration=cdk.Duration.days(days),
        # An object that was deleted is gone the day after, and so are parts that never ended.
        noncurrent_version_expiration=cdk.Duration.days(1),
        abort_incomplete_multipart_upload_after=cdk.Duration.days(1),
    )
