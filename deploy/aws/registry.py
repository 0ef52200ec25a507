"""Where images are, and the role that a pipeline pushes them with."""

from __future__ import annotations

import aws_cdk as cdk
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms

from deploy.aws.sizes import Place

_ISSUER = "token.actions.githubusercontent.com"


def add_registry(stack: cdk.Stack, place: Place, key: kms.Key) -> ecr.Repository:
    """A repository whose tags never move, scanned when something is pushed."""
    repository = ecr.Repository(
        stack,
        "Images",
        repository_name="shoptrail",
        image_tag_mutability=ecr.TagMutability.IMMUTABLE,
        image_scan_on_push=True,
        encryption=ecr.RepositoryEncryption.KMS,
        encryption_key=key,
        lifecycle_rules=[
            ecr.LifecycleRule(max_image_count=50, description="The last fifty releases")
        ],
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )
    issuer = iam.CfnOIDCProvider(
        stack, "PipelineIssuer", url=f"https://{_ISSUER}", client_id_list=["sts.amazonaws.com"]
    )
    pipeline = iam.Role(
        stack,
        "Pipeline",
        description="Pushes images of releases",
        max_session_duration=cdk.Duration.hours(1),
        assumed_by=iam.WebIdentityPrincipal(
            issuer.ref,
            {
                "StringEquals": {f"{_ISSUER}:aud": "sts.amazonaws.com"},
                # Tags of releases, which nobody else may make.
                "StringLike": {f"{_ISSUER}:sub": f"repo:{place.repository}:ref:refs/tags/v*"},
            },
        ),
    )
    repository.grant_pull_push(pipeline)
    return repository
