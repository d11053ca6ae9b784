"""Networks of two users on a real engine: own containers meet, others' are out of reach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.raw_socket import ask
from tests.integration.conftest import Lab, eventually

pytestmark = pytest.mark.dockerd
SERVE = ("busybox", "sh", "-c", "mkdir /w; echo found-it >/w/index.html; httpd -f -p 8000 -h /w")
GET = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 3 {} 8000"  # the static busybox has no wget that works
ADDRESS = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"


def reaches(lab: Lab, user: str, address: str, *options: str) -> bool:
    """Whether a container of `user` gets the page that is served at `address`."""
    result = lab.docker(user, "run", "--rm", *options, "busybox", "sh", "-c", GET.format(address))
    return result.status == 0 and "found-it" in result.out


def engines_bridge(lab: Lab) -> dict[str, Any]:
    """The bridge of dockerd itself; not by its name, by which root finds a bridge of its own."""
    admin, default = lab.root / "run/admin.sock", "com.docker.network.bridge.default_bridge"
    listed = ask(admin, "root", "GET", "/v1.41/networks").json
    named = next(item["Id"] for item in listed if (item["Options"] or {}).get(default) == "true")
    found: dict[str, Any] = ask(admin, "root", "GET", f"/v1.41/networks/{named}").json
    return found


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[str]:
    """Alice serves a page on her default network; gives the address."""
    lab.clean()
    lab.ok(lab.alice, "run", "-d", "--name", "server", *SERVE)
    yield lab.ok(lab.alice, "inspect", "-f", ADDRESS, "server")
    lab.clean()


def test_own_containers_meet_on_the_default_network(lab: Lab, served: str) -> None:
    """By address, and names resolve, which the engine's own bridge does not offer."""
    assert reaches(lab, lab.alice, served)
    asked = ("run", "--rm", "busybox", "nslookup", "server", "127.0.0.11")
    assert served in lab.docker(lab.alice, *asked).out
    assert served not in lab.docker(lab.bob, *asked).out


def test_another_users_containers_are_out_of_reach(lab: Lab, served: str) -> None:
    """From bob's default network and from one that he makes."""
    assert not reaches(lab, lab.bob, served)
    lab.ok(lab.bob, "network", "create", "bobs-own")
    assert not reaches(lab, lab.bob, served, "--network", "bobs-own")


@pytest.mark.parametrize("network", ["bridge", "default"])
def test_no_spelling_leads_onto_the_engines_bridge(lab: Lab, served: str, network: str) -> None:
    """What is called the bridge is the user's own; the engine's has no container of anybody's on it."""
    assert reaches(lab, lab.alice, served, "--network", network)
    engines = engines_bridge(lab)
    assert engines["Containers"] == {}
    for spelling in (engines["Id"], engines["Id"][:12]):
        assert reaches(lab, lab.alice, served, "--network", spelling)
    lab.ok(lab.alice, "network", "create", "elsewhere")
    lab.ok(lab.alice, "create", "--name", "joiner", "--network", "elsewhere", "busybox")
    by_id = lab.docker(lab.alice, "network", "connect", engines["Id"], "joiner")
    assert "network_mode" in by_id.err
    lab.ok(lab.alice, "network", "connect", "bridge", "joiner")
    assert "bridge" in lab.ok(lab.alice, "inspect", "-f", "{{json .NetworkSettings.Networks}}", "joiner")
    assert engines_bridge(lab)["Containers"] == {}
    lab.ok(lab.alice, "rm", "joiner")
    lab.ok(lab.alice, "network", "rm", "elsewhere")


def test_the_default_network_carries_its_owners_seal(lab: Lab, served: str) -> None:
    """Made once for each user, labelled, and nobody else's to see."""
    del served
    networks = ask(lab.root / "run/admin.sock", "root", "GET", "/v1.41/networks").json
    own = [item for item in networks if item["Name"].endswith(".bridge")]
    owners = sorted(item["Labels"]["ds01.owner"] for item in own)
    assert owners == sorted({*owners})
    assert {lab.alice, lab.bob} >= {*owners}
    theirs = next(item["Id"] for item in own if item["Labels"]["ds01.owner"] == lab.alice)
    assert "not found" in lab.docker(lab.bob, "network", "inspect", theirs).err
    assert theirs[:12] not in lab.ok(lab.bob, "network", "ls")


def test_the_default_network_outlives_a_prune(lab: Lab, served: str) -> None:
    """A stopped container starts again after everything unused was pruned, and the network cannot be removed by hand."""
    del served
    lab.ok(lab.bob, "create", "--name", "later", "busybox", "true")
    lab.ok(lab.bob, "network", "prune", "-f")
    assert lab.ok(lab.bob, "start", "-a", "later") == ""
    network = lab.ok(lab.bob, "inspect", "-f", "{{.HostConfig.NetworkMode}}", "later")
    refused = lab.docker(lab.bob, "network", "rm", network)
    assert "network_mode" in refused.err
    lab.ok(lab.bob, "rm", "later")


def test_published_ports_are_at_the_address_of_policy(lab: Lab, served: str) -> None:
    """A port given without an address answers where policy says, for a container on the default network too."""
    del served
    lab.ok(lab.alice, "run", "-d", "--name", "published", "-p", "18080:8000", *SERVE)
    page = lab.run("root", "wget", "-q", "-T", "5", "-O", "-", f"http://{lab.address}:18080/")
    lab.ok(lab.alice, "rm", "-f", "published")
    assert "found-it" in page.out


def test_a_build_runs_on_its_users_network(lab: Lab, served: str) -> None:
    """RUN reaches what is the user's own, and nothing of another's."""
    dockerfile = f"FROM busybox\nRUN {GET.format(served)} | grep found-it\n"
    assert "found-it" in lab.ok(lab.alice, "build", "--no-cache", "-", stdin=dockerfile)
    theirs = lab.docker(lab.bob, "build", "--no-cache", "-", stdin=dockerfile)
    assert theirs.status != 0
    assert "\nfound-it" not in theirs.out


def test_a_network_that_policy_shares(lab: Lab, served: str) -> None:
    """Without a word in the policy root's network does not exist for users; named there, both may use it and nobody remove it."""
    del served
    admin = lab.root / "run/admin.sock"
    made = ask(admin, "root", "POST", "/v1.41/networks/create", {"Name": "lan"})
    assert made.status == 201, made.body
    policy = lab.root / "etc/policy.d/lan.yaml"
    try:
        assert lab.docker(lab.bob, "run", "--rm", "--network", "lan", "busybox", "true").status != 0
        assert " lan " not in lab.ok(lab.bob, "network", "ls")
        policy.parent.mkdir(exist_ok=True)
        policy.write_text(f"users:\n  {lab.bob}: {{allow: {{networks: [lan]}}}}\n")
        policy.chmod(0o644)
        assert eventually_ok(lab, lab.bob, "run", "--rm", "--network", "lan", "busybox", "true")
        assert "lan" in lab.ok(lab.bob, "network", "ls", "--format", "{{.Name}}").split()
        assert "shared by all" in lab.docker(lab.bob, "network", "rm", "lan").err
        assert lab.docker(lab.alice, "run", "--rm", "--network", "lan", "busybox", "true").status != 0
    finally:
        policy.unlink(missing_ok=True)
        ask(admin, "root", "DELETE", f"/v1.41/networks/{made.json['Id']}")


def eventually_ok(lab: Lab, user: str, *words: str) -> bool:
    """Whether a call is permitted once the daemons have read the policy again."""
    return eventually(lambda: lab.docker(user, *words).status == 0, seconds=15, pause_seconds=0.5)
