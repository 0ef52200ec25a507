"""Secrets Manager: one secret for each value, since it makes one value for each secret."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aws_cdk as cdk
from aws_cdk import aws_elasticache as elasticache
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_logs as logs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_secretsmanager as secretsmanager

from deploy.aws.network import retention
from deploy.aws.sizes import SERVICES, Size

Secrets = Mapping[str, secretsmanager.Secret]
_PASSWORD_LENGTH = 40
_ROTATE_AFTER = cdk.Duration.days(30)
_HEX_EXCLUDED = "ghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# 64 hex digits. None of them is rotated by itself: a pepper or the key of people's ids can't be
# without the old one, and the others would end sessions and lists; docs/operations.md has how.
HEX_KEYS = (
    *(f"{service}/page-token-key" for service in SERVICES),
    "gateway/session-key",
    "keys/pepper-1",
    "ingest/subject-key",
    "maintenance/subject-key",
    "maintenance/receipt-key",
)


@dataclass(frozen=True, slots=True)
class AllSecrets:
    """The secrets, by service."""

    database: Secrets
    migration: Secrets
    cache: Secrets
    keys: Secrets


def add_secrets(stack: cdk.Stack, key: kms.Key) -> AllSecrets:
    """A password for each user of database and cache, and the keys that processes want."""
    return AllSecrets(
        database={name: _password(stack, key, name, "database", name) for name in SERVICES},
        migration={
            name: _password(stack, key, name, "migration", f"{name}_migration") for name in SERVICES
        },
        cache={name: _password(stack, key, name, "cache", name) for name in SERVICES},
        keys={name: _hex_key(stack, key, name) for name in HEX_KEYS},
    )


def add_places(
    stack: cdk.Stack,
    key: kms.Key,
    *,
    database: rds.DatabaseCluster,
    cache: elasticache.CfnReplicationGroup,
) -> secretsmanager.Secret:
    """Where database and cache are: no secret, but read by the same way."""
    places = {
        "database": database.cluster_endpoint.hostname,
        "cache": cache.attr_primary_end_point_address,
    }
    return secretsmanager.Secret(
        stack,
        "Places",
        secret_name="shoptrail/places",  # noqa: S106 - its name, and no password
        encryption_key=key,
        secret_string_value=cdk.SecretValue.unsafe_plain_text(stack.to_json_string(places)),
    )


def _password(
    stack: cdk.Stack, key: kms.Key, service: str, kind: str, username: str
) -> secretsmanager.Secret:
    return secretsmanager.Secret(
        stack,
        f"{service.capitalize()}{kind.capitalize()}Password",
        secret_name=f"shoptrail/{service}/{kind}",
        encryption_key=key,
        generate_secret_string=secretsmanager.SecretStringGenerator(
            secret_string_template=f'{{"username": "{username}"}}',
            generate_string_key="password",
            password_length=_PASSWORD_LENGTH,
            # It stands in URLs and in statements.
            exclude_punctuation=True,
        ),
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )


def _hex_key(stack: cdk.Stack, key: kms.Key, name: str) -> secretsmanager.Secret:
    words = name.replace("/", "-").split("-")
    return secretsmanager.Secret(
        stack,
        "".join(word.capitalize() for word in words),
        secret_name=f"shoptrail/{name}",
        encryption_key=key,
        generate_secret_string=secretsmanager.SecretStringGenerator(
            password_length=64,
            exclude_punctuation=True,
            exclude_characters=_HEX_EXCLUDED,
            require_each_included_type=False,
        ),
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )


def rotate_passwords(
    stack: cdk.Stack,
    size: Size,
    secrets: AllSecrets,
    *,
    database: rds.DatabaseCluster,
    key: kms.Key,
) -> list[lambda_.Function]:
    """Have passwords changed each month; the one before works until the month after."""
    of_database = _function(stack, size, key, "RotateDatabase")
    of_database.add_environment("DATABASE", database.cluster_arn)
    of_database.add_environment("ADMINISTRATOR", database.secret.secret_arn)
    _allow(of_database, ["rds-data:ExecuteStatement"], [database.cluster_arn])
    database.secret.grant_read(of_database)
    users = [*secrets.database.values(), *secrets.migration.values()]
    _let_rotate(of_database, users, key)

    of_cache = _function(stack, size, key, "RotateCache")
    names = [
        stack.format_arn(
            service="elasticache",
            resource="user",
            resource_name=f"shoptrail-{service}",
            arn_format=cdk.ArnFormat.COLON_RESOURCE_NAME,
        )
        for service in SERVICES
    ]
    _allow(of_cache, ["elasticache:ModifyUser", "elasticache:DescribeUsers"], names)
    _let_rotate(of_cache, secrets.cache.values(), key)
    return [of_database, of_cache]


def _function(stack: cdk.Stack, size: Size, key: kms.Key, name: str) -> lambda_.Function:
    group = logs.LogGroup(
        stack,
        f"{name}Logs",
        encryption_key=key,
        retention=retention(size),
        removal_policy=cdk.RemovalPolicy.DESTROY,
    )
    role = iam.Role(
        stack,
        f"{name}Role",
        assumed_by=iam.ServicePrincipal("lambda.amazonaws.com"),
        description="Rotates passwords",
    )
    group.grant_write(role)
    return lambda_.Function(
        stack,
        name,
        runtime=lambda_.Runtime.PYTHON_3_13,
        handler="index.handler",
        code=lambda_.Code.from_inline(_rotation_source()),
        timeout=cdk.Duration.seconds(60),
        memory_size=256,
        role=role,
        log_group=group,
        environment_encryption=key,
        reserved_concurrent_executions=2,
    )


def _rotation_source() -> str:
    """What fits into the template itself, 4096 characters, so that nothing is to be uploaded."""
    return ast.unparse(ast.parse(Path(__file__).with_name("rotate.py").read_text()))


def _let_rotate(
    function: lambda_.Function, secrets: Iterable[secretsmanager.Secret], key: kms.Key
) -> None:
    secrets = list(secrets)
    _allow(
        function,
        [
            "secretsmanager:DescribeSecret",
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        ],
        [secret.secret_arn for secret in secrets],
    )
    # It is of no secret.
    _allow(function, ["secretsmanager:GetRandomPassword"], ["*"])
    key.grant_encrypt_decrypt(function)
    for secret in secrets:
        secretsmanager.CfnRotationSchedule(
            secret,
            "Rotation",
            secret_id=secret.secret_arn,
            rotation_lambda_arn=function.function_arn,
            # Users must have been made first, and pods know the password that there is.
            rotate_immediately_on_update=False,
            rotation_rules=secretsmanager.CfnRotationSchedule.RotationRulesProperty(
                automatically_after_days=_ROTATE_AFTER.to_days()
            ),
        )
    function.add_permission(
        "CalledBySecretsManager",
        principal=iam.ServicePrincipal("secretsmanager.amazonaws.com"),
        source_account=cdk.Aws.ACCOUNT_ID,
    )


def _allow(function: lambda_.Function, actions: list[str], resources: list[str]) -> None:
    function.add_to_role_policy(iam.PolicyStatement(actions=actions, resources=resources))
