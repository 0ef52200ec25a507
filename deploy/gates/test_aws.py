"""The templates for AWS: valid, closed, complete, and what the cluster asks of them is there."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from deploy.aws.costs import PAGE, count_resources, table, with_table
from deploy.aws.sizes import SERVICES as AWS_SERVICES
from deploy.aws.sizes import SIZES
from deploy.calls import SERVICES
from deploy.gates.conftest import CDK, Manifest
from deploy.gates.test_checkov import failed_checks
from deploy.local.redis import COMMANDS as REDIS_COMMANDS

GATES = Path(__file__).parent
Template = dict[str, Any]

pytestmark = pytest.mark.timeout(600)
# Where AWS knows nothing narrower than everything: questions, and what no resource is made of.
_ABOUT_EVERYTHING = {
    "secretsmanager:GetRandomPassword",
    "elasticloadbalancing:DescribeTargetGroups",
    "elasticloadbalancing:DescribeTargetHealth",
    "ecr:GetAuthorizationToken",
}
_KEEPS_DATA = {
    "AWS::RDS::DBCluster",
    "AWS::S3::Bucket",
    "AWS::KMS::Key",
    "AWS::ECR::Repository",
}


@pytest.fixture
def template(paths: Mapping[str, Path]) -> Template:
    """The medium one, for a test to spoil."""
    read: Template = json.loads(paths["medium"].read_text())
    return read


def cfn_lint(*files: Path) -> str:
    found = subprocess.run(
        [CDK / "bin" / "cfn-lint", "--config-file", GATES / "cfnlint.yaml", "--", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert bool(found.returncode) == bool(found.stdout), found.stderr
    return found.stdout


def test_cfn_lint_finds_nothing(paths: Mapping[str, Path]) -> None:
    assert cfn_lint(*paths.values()) == ""


def of_type(template: Template, kind: str) -> list[Template]:
    """The resources of a type, all that there is to them."""
    found = [each for each in template["Resources"].values() if each["Type"] == kind]
    assert found, kind
    return found


def properties(template: Template, kind: str) -> Template:
    """What the only, or the first, resource of a type is told."""
    told: Template = of_type(template, kind)[0]["Properties"]
    return told


def misspell(template: Template) -> None:
    properties(template, "AWS::RDS::DBCluster")["StorageEncrypt"] = True


def refer_to_nothing(template: Template) -> None:
    properties(template, "AWS::RDS::DBInstance")["DBClusterIdentifier"] = {"Ref": "Nothing"}


def mistake_a_value(template: Template) -> None:
    properties(template, "AWS::RDS::DBInstance")["DBInstanceClass"] = "db.enormous"


@pytest.mark.parametrize("spoil", [misspell, refer_to_nothing, mistake_a_value])
def test_cfn_lint_finds_a_planted_fault(
    template: Template, spoil: Callable[[Template], None], tmp_path: Path
) -> None:
    spoil(template)
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))

    assert cfn_lint(path).startswith("E")


@pytest.mark.parametrize("size", SIZES)
def test_checkov_has_nothing_against_it(paths: Mapping[str, Path], size: str) -> None:
    assert failed_checks(paths[size], config="checkov-aws.yaml") == {}


def open_the_database(template: Template) -> None:
    properties(template, "AWS::RDS::DBInstance")["PubliclyAccessible"] = True


def leave_data_open(template: Template) -> None:
    properties(template, "AWS::RDS::DBCluster")["StorageEncrypted"] = False


def show_a_bucket(template: Template) -> None:
    del properties(template, "AWS::S3::Bucket")["PublicAccessBlockConfiguration"]


def speak_plainly_to_the_cache(template: Template) -> None:
    properties(template, "AWS::ElastiCache::ReplicationGroup")["TransitEncryptionEnabled"] = False


def never_renew_the_key(template: Template) -> None:
    properties(template, "AWS::KMS::Key")["EnableKeyRotation"] = False


def let_tags_move(template: Template) -> None:
    properties(template, "AWS::ECR::Repository")["ImageTagMutability"] = "MUTABLE"


def let_anyone_into_machines(template: Template) -> None:
    properties(template, "AWS::EC2::SecurityGroup")["SecurityGroupIngress"] = [
        {"CidrIp": "0.0.0.0/0", "FromPort": 22, "ToPort": 22, "IpProtocol": "tcp"}
    ]


def allow_everything(template: Template) -> None:
    statement = properties(template, "AWS::IAM::Policy")["PolicyDocument"]["Statement"][0]
    statement |= {"Action": "*", "Resource": "*"}


def test_checkov_finds_planted_faults(template: Template, tmp_path: Path) -> None:
    expected = {
        open_the_database: "CKV_AWS_17",
        leave_data_open: "CKV_AWS_96",
        show_a_bucket: "CKV_AWS_53",
        speak_plainly_to_the_cache: "CKV_AWS_30",
        never_renew_the_key: "CKV_AWS_7",
        let_tags_move: "CKV_AWS_51",
        let_anyone_into_machines: "CKV_AWS_24",
        allow_everything: "CKV_AWS_111",
    }
    for spoil in expected:
        spoil(template)
    path = tmp_path / "template.json"
    path.write_text(json.dumps(template))

    found = failed_checks(path, config="checkov-aws.yaml")

    assert set(expected.values()) - set(found) == set(), found


def statements(template: Template) -> Iterator[Template]:
    """What roles of ours may do."""
    for kind in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::Role"):
        for each in template["Resources"].values():
            if each["Type"] != kind:
                continue
            told = each["Properties"]
            documents = [told.get("PolicyDocument")]
            documents += [policy["PolicyDocument"] for policy in told.get("Policies", ())]
            for document in documents:
                yield from (document or {"Statement": []})["Statement"]


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def check_rights(template: Template) -> None:
    """Raises `AssertionError` where a role may do more than its work."""
    found = list(statements(template))
    assert len(found) > 10
    for statement in found:
        actions = listed(statement["Action"])
        for action in actions:
            service, _, name = action.partition(":")
            assert service != "*", statement
            # Reading or writing objects of one bucket comes in families; nothing else may.
            assert "*" not in name or service in ("s3", "kms"), statement
        if "*" in listed(statement["Resource"]):
            narrower = {
                action
                for action in actions
                if action not in _ABOUT_EVERYTHING and not action.startswith("ec2:Describe")
            }
            assert not narrower, narrower
    for role in of_type(template, "AWS::IAM::Role"):
        for statement in role["Properties"]["AssumeRolePolicyDocument"]["Statement"]:
            assert "AWS" not in statement["Principal"], "somebody's account"


def check_data(template: Template) -> None:
    """Raises `AssertionError` where data could be lost, read by others, or sent in plain text."""
    for each in template["Resources"].values():
        if each["Type"] in _KEEPS_DATA:
            assert each["DeletionPolicy"] == each["UpdateReplacePolicy"] == "Retain", each["Type"]
    cluster = properties(template, "AWS::RDS::DBCluster")
    assert cluster["DeletionProtection"] is True
    assert cluster["BackupRetentionPeriod"] >= 7
    assert cluster["ManageMasterUserPassword"] is True
    assert "MasterUserPassword" not in cluster
    parameters = properties(template, "AWS::RDS::DBClusterParameterGroup")["Parameters"]
    assert parameters["require_secure_transport"] == "ON"
    cache = properties(template, "AWS::ElastiCache::ReplicationGroup")
    assert cache["TransitEncryptionMode"] == "required"
    assert cache["UserGroupIds"]
    for bucket in of_type(template, "AWS::S3::Bucket"):
        assert bucket["Properties"]["LifecycleConfiguration"]["Rules"]
    for user in of_type(template, "AWS::ElastiCache::User"):
        # A reference, and no password.
        passwords = user["Properties"].get("Passwords", [])
        assert all("{{resolve:secretsmanager:" in json.dumps(each) for each in passwords)
    scheduled = {
        json.dumps(each["Properties"]["SecretId"])
        for each in of_type(template, "AWS::SecretsManager::RotationSchedule")
    }
    for name, secret in template["Resources"].items():
        generated = secret.get("Properties", {}).get("GenerateSecretString", {})
        if secret["Type"] == "AWS::SecretsManager::Secret" and "GenerateStringKey" in generated:
            assert json.dumps({"Ref": name}) in scheduled, name


def check_cache_users(template: Template) -> None:
    """Raises `AssertionError` where a user may do other than everywhere else."""
    rights = {
        each["Properties"]["UserName"]: each["Properties"]["AccessString"]
        for each in of_type(template, "AWS::ElastiCache::User")
    }
    assert rights.pop("default") == "off ~* -@all"
    assert rights == {
        service: f"on ~{service}:* resetchannels {REDIS_COMMANDS}" for service in SERVICES
    }


def secrets_made(template: Template) -> set[tuple[str, str]]:
    """The names of all values, with the member of those that are objects."""
    made = set()
    for secret in of_type(template, "AWS::SecretsManager::Secret"):
        told = secret["Properties"]
        generated = told.get("GenerateSecretString", {})
        if "SecretStringTemplate" in generated:
            members = {*json.loads(generated["SecretStringTemplate"]), "password"}
        elif "SecretString" in told:
            members = {"database", "cache"}
        else:
            members = {""}
        made |= {(told["Name"], member) for member in members}
    return made


def check_secrets(template: Template, manifests: list[Manifest]) -> None:
    """Raises `AssertionError` where the cluster asks for a value that nobody makes."""
    asked = {
        (each["remoteRef"]["key"], each["remoteRef"].get("property", ""))
        for secret in manifests
        if secret["kind"] == "ExternalSecret"
        for each in secret["spec"]["data"]
    }
    assert len(asked) > 20
    assert asked - secrets_made(template) == set()


def check_way_in(template: Template) -> None:
    """Raises `AssertionError` where events would be refused, or come in plain text."""
    listeners = {
        each["Properties"]["Port"]: each["Properties"]
        for each in of_type(template, "AWS::ElasticLoadBalancingV2::Listener")
    }
    assert listeners[80]["DefaultActions"][0]["Type"] == "redirect"
    assert "TLS13" in listeners[443]["SslPolicy"]
    (targets,) = of_type(template, "AWS::ElasticLoadBalancingV2::TargetGroup")
    assert targets["Properties"]["Protocol"] == "HTTPS"
    rules = properties(template, "AWS::WAFv2::WebACL")["Rules"]
    overridden = {
        override["Name"]
        for rule in rules
        for override in rule["Statement"]
        .get("ManagedRuleGroupStatement", {})
        .get("RuleActionOverrides", [])
        if "Count" in override["ActionToUse"]
    }
    assert {"SizeRestrictions_BODY", "CrossSiteScripting_BODY"} <= overridden
    assert not any(rule["VisibilityConfig"]["SampledRequestsEnabled"] for rule in rules)


CHECKS = (check_rights, check_data, check_cache_users, check_way_in)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("check", CHECKS)
def test_it_is_as_it_must_be(
    paths: Mapping[str, Path], size: str, check: Callable[[Template], None]
) -> None:
    check(json.loads(paths[size].read_text()))


def let_a_role_do_more(template: Template) -> None:
    statement = next(statements(template))
    statement["Action"] = ["secretsmanager:*"]


def let_a_role_reach_further(template: Template) -> None:
    for statement in statements(template):
        if "secretsmanager:GetSecretValue" in listed(statement["Action"]):
            statement["Resource"] = "*"


def trust_an_account(template: Template) -> None:
    role = properties(template, "AWS::IAM::Role")
    role["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] = {"AWS": "*"}


def let_data_go(template: Template) -> None:
    of_type(template, "AWS::RDS::DBCluster")[0]["DeletionPolicy"] = "Delete"


def take_plain_text(template: Template) -> None:
    del properties(template, "AWS::RDS::DBClusterParameterGroup")["Parameters"][
        "require_secure_transport"
    ]


def write_a_password_down(template: Template) -> None:
    for user in of_type(template, "AWS::ElastiCache::User"):
        if "Passwords" in user["Properties"]:
            user["Properties"]["Passwords"] = ["a-password-of-length"]


def never_rotate(template: Template) -> None:
    for name, each in list(template["Resources"].items()):
        if each["Type"] == "AWS::SecretsManager::RotationSchedule":
            del template["Resources"][name]
            break


def let_a_user_do_more(template: Template) -> None:
    for user in of_type(template, "AWS::ElastiCache::User"):
        user["Properties"]["AccessString"] += " +flushall"


def refuse_large_batches(template: Template) -> None:
    for rule in properties(template, "AWS::WAFv2::WebACL")["Rules"]:
        rule["Statement"].get("ManagedRuleGroupStatement", {}).pop("RuleActionOverrides", None)


@pytest.mark.parametrize(
    "spoil",
    [
        let_a_role_do_more,
        let_a_role_reach_further,
        trust_an_account,
        let_data_go,
        take_plain_text,
        write_a_password_down,
        never_rotate,
        let_a_user_do_more,
        refuse_large_batches,
    ],
)
def test_a_planted_fault_is_found(template: Template, spoil: Callable[[Template], None]) -> None:
    spoil(template)

    with pytest.raises((AssertionError, KeyError)):
        for check in CHECKS:
            check(template)


def test_every_secret_that_the_cluster_asks_for_is_made(
    template: Template, built: Mapping[str, list[Manifest]]
) -> None:
    assert AWS_SERVICES == SERVICES
    check_secrets(template, built["aws"])

    without = deepcopy(template)
    for name, each in list(without["Resources"].items()):
        if each.get("Properties", {}).get("Name") == "shoptrail/keys/pepper-1":
            del without["Resources"][name]
    with pytest.raises(AssertionError):
        check_secrets(without, built["aws"])


def test_what_a_month_costs_is_on_the_page_as_it_is_computed(paths: Mapping[str, Path]) -> None:
    counts = {name: count_resources(path) for name, path in paths.items()}
    page = PAGE.read_text()

    assert with_table(page, table(counts)) == page, "make aws"
    more = {name: count + Counter({"AWS::KMS::Key": 10}) for name, count in counts.items()}
    assert with_table(page, table(more)) != page
