"""What the command line does, says and exits with."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from cli.__main__ import main
from services.keys.key_text import Kind, new_key_text
from shoptrail.keys.v1 import api_key_pb2
from shoptrail.maintenance.v1 import maintenance_pb2
from shoptrail.query.v1 import query_pb2
from tests.security.conftest import Town

ROOT = Path(__file__).parent.parent.parent
pytestmark = pytest.mark.parametrize("databases", ["sqlite"], indirect=True)
ON_EVERY_STORE = (
    "stores:read",
    "stores:write",
    "keys:read",
    "keys:write",
    "events:write",
    "events:read",
    "reports:read",
    "audit:read",
    "settings:read",
    "settings:write",
    "cron:run",
)


@dataclass(frozen=True, slots=True)
class Shell:
    """Runs commands with a key, and says what came of them."""

    environment: dict[str, str]
    read: Callable[[], Any]

    async def run(self, *words: str) -> tuple[int, str, str]:
        """The exit code, and what was written to standard output and error."""
        self.read()
        code = await asyncio.to_thread(main, words, self.environment)
        written = self.read()
        return code, written.out, written.err

    async def json(self, *words: str) -> dict[str, Any]:
        """The one JSON object that a command wrote; it must have succeeded."""
        code, out, err = await self.run("--json", *words)
        assert (code, err) == (0, "")
        answer: dict[str, Any] = json.loads(out)
        return answer


@pytest.fixture
async def shell(town: Town, capsys: pytest.CaptureFixture[str]) -> Shell:
    created = await town.new_key("", api_key_pb2.KEY_KIND_SECRET, scopes=ON_EVERY_STORE)
    url = str(town.gateways[0].base_url)
    return Shell({"SHOPTRAIL_URL": url, "SHOPTRAIL_KEY": created.text}, capsys.readouterr)


async def test_a_store_is_made_listed_renamed_deleted_and_restored(shell: Shell) -> None:
    uid = (await shell.json("stores", "create", "Tea and cups"))["uid"]
    _, listed, _ = await shell.run("stores", "list")
    renamed = await shell.json("stores", "rename", uid, "Coffee")
    deleted = await shell.json("stores", "delete", uid)
    _, hidden, _ = await shell.run("stores", "list")
    _, shown, _ = await shell.run("stores", "list", "--deleted")
    restored = await shell.json("stores", "undelete", uid)

    assert listed.splitlines()[0].split() == ["uid", "display_name", "create_time", "delete_time"]
    assert uid in listed and "Tea and cups" in listed
    assert renamed["display_name"] == "Coffee"
    assert deleted["delete_time"]
    assert hidden == "Nothing.\n"
    assert uid in shown
    assert "delete_time" not in restored
    assert await shell.json("stores", "get", uid) == restored


async def test_a_key_is_made_rotated_revoked_and_its_story_told(shell: Shell, town: Town) -> None:
    store = await town.new_store()
    words = ("--origin", "shop.example", "--rotate-every", "90d", "--name", "Shop")
    made = await shell.json("keys", "create", store, "publishable", *words)
    key = made["key"]["uid"]
    rotated = await shell.json("keys", "rotate", store, key, "--overlap", "1h")
    code, _, error = await shell.run("keys", "rotate", store, key)
    revoked = await shell.json("keys", "revoke", store, key)
    _, listed, _ = await shell.run("keys", "list", store)
    _, story, _ = await shell.run("audit", "list", store)

    assert made["text"].startswith("pk_live_")
    assert made["key"]["allowed_origins"] == ["shop.example"]
    assert made["key"]["rotate_period"] == "7776000s"
    assert rotated["old_key"]["uid"] == key
    assert (code, error) == (
        5,
        "shoptrail: The key has a successor that works. Rotate or revoke that one.\n",
    )
    assert revoked["revoke_time"]
    assert len(listed.splitlines()) == 3
    assert [line.split()[1:3] for line in story.splitlines()[1:]] == [
        ["revoke_key", "done"],
        ["rotate_key", "refused"],
        ["create_key", "done"],
        ["rotate_key", "done"],
        ["create_key", "done"],
        ["create_store", "done"],
    ]
    assert "127.0.0.0/24" in story


async def test_the_text_of_a_new_key_is_shown_to_people_too(shell: Shell, town: Town) -> None:
    code, out, _ = await shell.run("keys", "create", await town.new_store(), "secret", "--test")

    assert code == 0
    assert out.splitlines()[0].split()[1].startswith("sk_test_")
    assert out.splitlines()[-1] == "Keep the text: it can't be shown again."


async def test_the_trail_is_verified_from_where_it_was_noted(shell: Shell, town: Town) -> None:
    await town.new_store()
    noted = await shell.json("audit", "verify")
    await town.new_store()

    code, out, _ = await shell.run(
        "audit", "verify", "--position", noted["position"], "--hash", noted["hash"]
    )
    forged = await shell.run(
        "audit", "verify", "--position", noted["position"], "--hash", "A" * 43 + "="
    )

    assert code == 0
    assert "Note position and hash" in out
    assert forged[0] == 1


async def test_a_job_is_run_and_jobs_are_listed(shell: Shell, town: Town) -> None:
    async def run_cron(request: maintenance_pb2.RunCronRequest) -> Message:
        return maintenance_pb2.RunCronResponse(outcome=maintenance_pb2.RUN_CRON_OUTCOME_RAN)

    async def list_jobs(request: maintenance_pb2.ListJobsRequest) -> Message:
        response = maintenance_pb2.ListJobsResponse()
        response.jobs.add(name="expire-keys", overdue=True)
        return response

    town.mesh.jobs["keys"].answers = {"RunCron": run_cron, "ListJobs": list_jobs}

    _, ran, _ = await shell.run("jobs", "run", "keys", "expire-keys")
    _, listed, _ = await shell.run("jobs", "list", "keys")

    assert ran.split() == ["outcome", "RAN"]
    assert listed.splitlines()[1].split() == ["expire-keys", "yes"]


async def test_tail_shows_each_event_once_as_they_come_and_no_control_characters(
    shell: Shell, town: Town
) -> None:
    def add_to(
        response: query_pb2.ListEventsResponse | query_pb2.TailEventsResponse, *numbers: int
    ) -> None:
        for number in numbers:
            response.events.add(uid=f"evt_{number}", name=f"Event\x1b[2J {number % 4}")

    async def list_events(request: query_pb2.ListEventsRequest) -> Message:
        response = query_pb2.ListEventsResponse()
        add_to(response, 1, 0)  # The latest first.
        return response

    async def tail_events(request: query_pb2.TailEventsRequest) -> Message:
        response = query_pb2.TailEventsResponse(next_page_token=f"{request.page_token}+")
        # The second came after the tail began and before the list.
        add_to(response, *{"": (), "+": (1, 2), "++": (), "+++": (3, 4)}[request.page_token])
        return response

    answers = town.mesh.services["query"].answers
    answers |= {"ListEvents": list_events, "TailEvents": tail_events}
    store = await town.new_store()

    code, out, _ = await shell.run("tail", store, "--count", "4")
    _, named, _ = await shell.run("tail", store, "--count", "3", "--name", "Event\x1b[2J 0")

    assert code == 0
    assert [line.strip() for line in out.splitlines() if "Event" in line] == [
        f"Event�[2J {number}" for number in range(4)
    ]
    # What is listed is filtered by the service, and what comes then is not.
    assert [line.strip() for line in named.splitlines() if "Event" in line] == [
        f"Event�[2J {number}" for number in (0, 1, 0)
    ]


async def test_scan_finds_keys_by_their_checksum_and_shows_none(
    shell: Shell, tmp_path: Path
) -> None:
    secret, publishable = (
        new_key_text(kind, test=False) for kind in (Kind.SECRET, Kind.PUBLISHABLE)
    )
    mistyped = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "page.html").write_bytes(b"\xff\n\n<script>'" + publishable.encode())
    (tmp_path / "settings.py").write_text(f"KEY = '{secret}'\nOLD = '{mistyped}'\n")
    (tmp_path / "shop" / "images").mkdir()
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "lib.js").write_text(secret)

    code, out, _ = await shell.run("--json", "scan", str(tmp_path))
    clean = await shell.run("scan", str(tmp_path / "shop" / "images"))
    missing = await shell.run("scan", str(tmp_path / "nowhere"))

    found = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert [(Path(each["path"]).name, each["line"], each["is_secret"]) for each in found] == [
        ("settings.py", 1, True),
        ("page.html", 3, False),
    ]
    assert secret not in out and publishable not in out
    assert clean[:2] == (0, "Nothing.\n")
    assert missing[0] == 2


@pytest.mark.parametrize(
    ("words", "environment", "expected"),
    [
        (("stores", "list"), {"SHOPTRAIL_KEY": "sk_live_nobody"}, 3),
        (("stores", "list"), {"SHOPTRAIL_KEY": ""}, 3),
        (("stores", "get", "sto_nothing"), {}, 4),
        (("stores", "get", "../../x y?"), {}, 4),
        (("stores", "create", ""), {}, 2),
        (("stores", "list"), {"SHOPTRAIL_URL": "http://127.0.0.1:9"}, 6),
        (("stores", "list"), {"SHOPTRAIL_URL": "file:///etc/passwd"}, 2),
    ],
)
async def test_exit_codes_say_why_nothing_was_done(
    shell: Shell, words: tuple[str, ...], environment: dict[str, str], expected: int
) -> None:
    shell.environment.update(environment)

    code, out, error = await shell.run(*words)

    assert (code, out) == (expected, "")
    assert error.startswith("shoptrail: ")


async def test_wrong_usage_exits_with_2_in_a_process_of_its_own(shell: Shell) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cli", "keys", "rotate", "sto_1", "key_1", "--overlap", "soon"),
        cwd=ROOT,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()

    assert process.returncode == 2
    assert "'soon' is not a duration" in error.decode()
