"""Gives a user another password, and leaves the one before valid until the next.

Called by Secrets Manager, which sends one step after the other, and any of them again.
"""

import json
import os
from typing import Any

import boto3


def handler(event: dict[str, str], _context: object) -> None:
    """Do one step of a rotation. Doing it twice does no more than doing it once."""
    secret, version = event["SecretId"], event["ClientRequestToken"]
    change, check = _ON_DATABASE if "DATABASE" in os.environ else _ON_CACHE
    match event["Step"]:
        case "createSecret":
            _create(secret, version)
        case "setSecret":
            change(
                _read(secret, VersionStage="AWSCURRENT"), _read(secret, VersionId=version), version
            )
        case "testSecret":
            check(_read(secret, VersionId=version)["username"], version)
        case "finishSecret":
            _finish(secret, version)


def _create(secret: str, version: str) -> None:
    secrets: Any = boto3.client("secretsmanager")
    try:
        _read(secret, VersionId=version)
    except secrets.exceptions.ResourceNotFoundException:
        made = secrets.get_random_password(PasswordLength=40, ExcludePunctuation=True)
        value = _read(secret, VersionStage="AWSCURRENT") | {"password": made["RandomPassword"]}
        secrets.put_secret_value(
            SecretId=secret,
            ClientRequestToken=version,
            SecretString=json.dumps(value),
            VersionStages=["AWSPENDING"],
        )


def _finish(secret: str, version: str) -> None:
    secrets: Any = boto3.client("secretsmanager")
    stages = secrets.describe_secret(SecretId=secret)["VersionIdsToStages"]
    (current,) = (each for each, names in stages.items() if "AWSCURRENT" in names)
    if current != version:
        secrets.update_secret_version_stage(
            SecretId=secret,
            VersionStage="AWSCURRENT",
            MoveToVersionId=version,
            RemoveFromVersionId=current,
        )


def _read(secret: str, **which: str) -> dict[str, str]:
    found = boto3.client("secretsmanager").get_secret_value(SecretId=secret, **which)
    value: dict[str, str] = json.loads(found["SecretString"])
    return value


def _change_in_database(_current: dict[str, str], pending: dict[str, str], version: str) -> None:
    user, password = pending["username"], pending["password"]
    if not (user.replace("_", "").isalpha() and password.isalnum()):
        raise ValueError("not a name, or not a password, of ours")
    # Set twice, it would be its own predecessor, and what services know would be valid no more.
    if _version_in_database(user) != version:
        _ask(
            f"ALTER USER '{user}'@'%' IDENTIFIED BY '{password}' RETAIN CURRENT PASSWORD "
            f"""ATTRIBUTE '{{"version": "{version}"}}'"""
        )


def _check_in_database(user: str, version: str) -> None:
    if _version_in_database(user) != version:
        raise RuntimeError("the user has another password")


def _version_in_database(user: str) -> str:
    rows = _ask(
        "SELECT COALESCE(attribute ->> '$.version', '') FROM information_schema.user_attributes "
        "WHERE user = :user AND host = '%'",
        user=user,
    )["records"]
    if not rows:
        raise RuntimeError("there is no such user yet")
    return str(rows[0][0]["stringValue"])


def _ask(sql: str, **values: str) -> dict[str, Any]:
    answer: dict[str, Any] = boto3.client("rds-data").execute_statement(
        resourceArn=os.environ["DATABASE"],
        secretArn=os.environ["ADMINISTRATOR"],
        sql=sql,
        parameters=[{"name": name, "value": {"stringValue": values[name]}} for name in values],
    )
    return answer


def _change_in_cache(current: dict[str, str], pending: dict[str, str], _version: str) -> None:
    boto3.client("elasticache").modify_user(
        UserId=f"shoptrail-{pending['username']}",
        AuthenticationMode={
            "Type": "password",
            "Passwords": [pending["password"], current["password"]],
        },
    )


def _check_in_cache(user: str, _version: str) -> None:
    (found,) = boto3.client("elasticache").describe_users(UserId=f"shoptrail-{user}")["Users"]
    if found["Status"] != "active":  # Secrets Manager tries again.
        raise RuntimeError(f"the user is {found['Status']}")


_ON_DATABASE = (_change_in_database, _check_in_database)
_ON_CACHE = (_change_in_cache, _check_in_cache)
