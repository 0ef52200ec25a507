"""EKS: the cluster, its nodes, and what may act in AWS from inside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import aws_cdk as cdk
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_eks as eks
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_logs as logs

from deploy.aws.network import INSIDE, Network, retention
from deploy.aws.sizes import Size

NAME = "shoptrail"
_VERSION = "1.33"
_ADDONS = ("kube-proxy", "coredns", "eks-pod-identity-agent", "metrics-server")


@dataclass(frozen=True, slots=True)
class Cluster:
    """The cluster, and the roles of pods in it."""

    cluster: eks.CfnCluster
    secrets_reader: iam.Role
    targets_binder: iam.Role


def add_cluster(stack: cdk.Stack, size: Size, *, network: Network, key: kms.Key) -> Cluster:
    """A cluster whose API takes only who may, over nodes in three zones.

    Made of plain resources: the CDK's own cluster brings functions that would have to be
    uploaded, and a role that may do everything in the cluster.
    """
    subnets = network.vpc.select_subnets(subnet_group_name=INSIDE).subnet_ids
    audit = logs.LogGroup(
        stack,
        "ClusterLogs",
        log_group_name=f"/aws/eks/{NAME}/cluster",
        encryption_key=key,
        retention=retention(size),
        removal_policy=cdk.RemovalPolicy.RETAIN,
    )
    cluster = eks.CfnCluster(
        stack,
        "Cluster",
        name=NAME,
        version=_VERSION,
        role_arn=_role(stack, "ClusterRole", "eks.amazonaws.com", ["AmazonEKSClusterPolicy"]),
        resources_vpc_config=eks.CfnCluster.ResourcesVpcConfigProperty(
            subnet_ids=subnets,
            security_group_ids=[network.nodes.security_group_id],
            endpoint_private_access=True,
            # Reached through the network: by a pipeline's runner in it, or a session manager.
            endpoint_public_access=False,
        ),
        access_config=eks.CfnCluster.AccessConfigProperty(
            authentication_mode="API", bootstrap_cluster_creator_admin_permissions=True
        ),
        encryption_config=[
            eks.CfnCluster.EncryptionConfigProperty(
                resources=["secrets"],
                provider=eks.CfnCluster.ProviderProperty(key_arn=key.key_arn),
            )
        ],
        logging=eks.CfnCluster.LoggingProperty(
            cluster_logging=eks.CfnCluster.ClusterLoggingProperty(
                enabled_types=[
                    eks.CfnCluster.LoggingTypeConfigProperty(type=name)
                    for name in ("api", "audit", "authenticator", "controllerManager", "scheduler")
                ]
            )
        ),
        deletion_protection=True,
    )
    cluster.node.add_dependency(audit)
    nodes = _nodes(stack, size, cluster, subnets, network=network, key=key)
    for name in _ADDONS:
        _addon(stack, cluster, name).add_resource_dependency(nodes)
    # What may connect to what is for policies to say, and this is what heeds them.
    _addon(
        stack,
        cluster,
        "vpc-cni",
        configuration={"enableNetworkPolicy": "true"},
        account="aws-node",
        policy="AmazonEKS_CNI_Policy",
    )
    _addon(
        stack,
        cluster,
        "aws-ebs-csi-driver",
        account="ebs-csi-controller-sa",
        policy="service-role/AmazonEBSCSIDriverPolicyV2",
    ).add_resource_dependency(nodes)
    return Cluster(
        cluster=cluster,
        secrets_reader=_pod_role(
            stack, cluster, "SecretsReader", "external-secrets", "external-secrets"
        ),
        targets_binder=_pod_role(
            stack, cluster, "TargetsBinder", "kube-system", "aws-load-balancer-controller"
        ),
    )


def _nodes(
    stack: cdk.Stack,
    size: Size,
    cluster: eks.CfnCluster,
    subnets: Sequence[str],
    *,
    network: Network,
    key: kms.Key,
) -> eks.CfnNodegroup:
    template = ec2.CfnLaunchTemplate(
        stack,
        "NodeTemplate",
        launch_template_data=ec2.CfnLaunchTemplate.LaunchTemplateDataProperty(
            security_group_ids=[
                cluster.attr_cluster_security_group_id,
                network.nodes.security_group_id,
            ],
            # Pods that ask the machine who it is get no answer: one hop is too few for them.
            metadata_options=ec2.CfnLaunchTemplate.MetadataOptionsProperty(
                http_tokens="required", http_put_response_hop_limit=1
            ),
            block_device_mappings=[
                ec2.CfnLaunchTemplate.BlockDeviceMappingProperty(
                    device_name="/dev/xvda",
                    ebs=ec2.CfnLaunchTemplate.EbsProperty(
                        encrypted=True, volume_size=50, volume_type="gp3"
                    ),
                )
            ],
        ),
    )
    return eks.CfnNodegroup(
        stack,
        "Nodes",
        cluster_name=cluster.ref,
        node_role=_role(
            stack,
            "NodeRole",
            "ec2.amazonaws.com",
            ["AmazonEKSWorkerNodeMinimalPolicy", "AmazonEC2ContainerRegistryPullOnly"],
        ),
        subnets=list(subnets),
        instance_types=[size.node_type],
        ami_type="BOTTLEROCKET_x86_64",
        launch_template=eks.CfnNodegroup.LaunchTemplateSpecificationProperty(
            id=template.ref, version=template.attr_latest_version_number
        ),
        scaling_config=eks.CfnNodegroup.ScalingConfigProperty(
            min_size=size.nodes, desired_size=size.nodes, max_size=size.most_nodes
        ),
        update_config=eks.CfnNodegroup.UpdateConfigProperty(max_unavailable=1),
        node_repair_config=eks.CfnNodegroup.NodeRepairConfigProperty(enabled=True),
    )


def _addon(
    stack: cdk.Stack,
    cluster: eks.CfnCluster,
    name: str,
    *,
    configuration: dict[str, str] | None = None,
    account: str = "",
    policy: str = "",
) -> eks.CfnAddon:
    words = "".join(word.capitalize() for word in name.split("-"))
    associations = None
    if account:
        associations = [
            eks.CfnAddon.PodIdentityAssociationProperty(
                service_account=account,
                role_arn=_role(stack, f"{words}Role", "pods.eks.amazonaws.com", [policy]),
            )
        ]
    return eks.CfnAddon(
        stack,
        f"Addon{words}",
        cluster_name=cluster.ref,
        addon_name=name,
        configuration_values=json.dumps(configuration) if configuration else None,
        pod_identity_associations=associations,
        resolve_conflicts="OVERWRITE",
    )


def _role(stack: cdk.Stack, name: str, service: str, policies: Sequence[str]) -> str:
    role = iam.Role(
        stack,
        name,
        assumed_by=_principal(service),
        managed_policies=[
            iam.ManagedPolicy.from_aws_managed_policy_name(policy) for policy in policies
        ],
    )
    arn: str = role.role_arn
    return arn


def _pod_role(
    stack: cdk.Stack, cluster: eks.CfnCluster, name: str, namespace: str, account: str
) -> iam.Role:
    role = iam.Role(stack, name, assumed_by=_principal("pods.eks.amazonaws.com"))
    eks.CfnPodIdentityAssociation(
        stack,
        f"{name}Pods",
        cluster_name=cluster.ref,
        namespace=namespace,
        service_account=account,
        role_arn=role.role_arn,
    )
    return role


def _principal(service: str) -> iam.IPrincipal:
    principal = iam.ServicePrincipal(service)
    # Pod identity says by tags which pod it is.
    return principal.with_session_tags() if service.startswith("pods.") else principal
