"""The second gate on the real engine: what the plugin accepts, break-glass, and the canary.

What it refuses is in the corpus, tests/corpus/attacks/engine: each file changes one thing of a request that these tests
show to be faultless.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boottime_ms
from host.files import write_atomic
from host.tree import Tree
from lab import unix_http
from tests.attacks.forger import Forger, Reply, Sent, account_of
from tests.integration.conftest import PREFIX, Lab, eventually, running_lab

pytestmark = pytest.mark.dockerd

_MIB = 1 << 20
_JSON = "application/json"
_CLOSED = "direct access to the engine is closed (rule stamp)"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose plugin and engine settings these tests may break."""
    with running_lab(f"{PREFIX}-gate-a", f"{PREFIX}-gate-b", "--gpus", "none") as running:
        yield running


@pytest.fixture
def engine(own: Lab) -> Path:
    return own.root / "run" / "engine.sock"


@pytest.fixture
def forger(own: Lab) -> Forger:
    return Forger.of(own)


@pytest.fixture
def volume(forger: Forger) -> Sent:
    """A create of a volume of root's, rewritten as the proxy does it."""
    name = {"Name": f"gate-{secrets.token_hex(4)}"}
    return forger.rewritten("POST", "/v1.41/volumes/create", name, account_of(0))


def _message(reply: Reply) -> str:
    said: Mapping[str, str] = json.loads(reply.text)
    return said["message"]


def _assert_denied(reply: Reply, why: str) -> None:
    assert reply.status == 403, reply
    message = _message(reply)
    assert message.startswith("authorization denied by plugin ds01-authz: ds01: "), message
    assert why in message, message


def test_the_forger_signs_as_the_proxy_does(engine: Path, forger: Forger, volume: Sent) -> None:
    """A faultless stamp is accepted, with and without a body: every denial of a changed one is due to the change."""
    assert forger.stamped(Sent()).over(engine).status == 200
    assert forger.stamped(volume).over(engine).status == 201


@pytest.mark.parametrize("plugin_restarts", [False, True], ids=["same plugin", "plugin restarted"])
def test_a_replayed_stamp_that_has_expired_stays_refused(
    own: Lab, engine: Path, forger: Forger, *, plugin_restarts: bool
) -> None:
    """What is forgotten of used stamps, by time or by a crash, has expired or is refused all the same."""
    sent = forger.stamped(Sent(), seconds=1)
    assert sent.over(engine).status == 200
    if plugin_restarts:
        own.kill("authz")
    time.sleep(1.1)
    _assert_denied(sent.over(engine), "it has expired")


def test_of_two_stamps_the_one_the_plugin_is_shown_decides(
    engine: Path, forger: Forger, volume: Sent
) -> None:
    """dockerd shows its plugins the last of several headers: a good one there is accepted."""
    good, bad = forger.stamp(volume), replace(forger, key=Ed25519PrivateKey.generate()).stamp(volume)
    assert replace(volume, stamps=(bad, good)).over(engine).status == 201


def test_a_body_without_length_is_read_like_any_other(engine: Path, forger: Forger, volume: Sent) -> None:
    """Chunked, a signed body is still seen."""
    assert forger.stamped(replace(volume, chunked=True)).over(engine).status == 201


def test_a_create_as_the_proxy_writes_it_is_accepted(own: Lab, engine: Path, forger: Forger) -> None:
    """What the corpus counts on where it changes one field of such a create: the rest of it is faultless."""
    account = account_of(int(own.run(own.alice, "id", "-u").out))
    sent = forger.rewritten("POST", "/v1.41/containers/create", {"Image": "busybox"}, account)
    assert forger.stamped(sent, uid=account.uid).over(engine).status == 201


# Break-glass


def _glass(lab: Lab, *, seconds: float, **changed: Any) -> Path:
    path = Tree.under(lab.root).break_glass
    content = {
        "until_boottime_ms": boottime_ms() + round(seconds * 1000),
        "reason": "test of the second gate",
        "by": "root",
    }
    write_atomic(path, json.dumps(content | changed).encode(), mode=0o644)
    return path


@pytest.fixture
def shut(own: Lab) -> Iterator[None]:
    """Whatever a test opened is closed again."""
    yield
    Tree.under(own.root).break_glass.unlink(missing_ok=True)


@pytest.mark.usefixtures("shut")
def test_break_glass_opens_for_its_time_and_not_longer(own: Lab, engine: Path) -> None:
    """Root's file opens the engine, every use is logged with who and why, and the door shuts by itself."""
    _glass(own, seconds=2)
    assert Sent().over(engine).status == 200
    assert "test of the second gate" in own.log("authz")
    assert eventually(lambda: Sent().over(engine).status == 403, seconds=4)
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_shuts_when_its_file_goes(own: Lab, engine: Path) -> None:
    """Removing the file closes the engine at once."""
    path = _glass(own, seconds=60)
    assert Sent().over(engine).status == 200
    path.unlink()
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_of_a_user_is_ignored(own: Lab, engine: Path) -> None:
    """A file that is not root's, that others may write, or that is a link opens nothing and is logged."""
    uid = int(own.run(own.alice, "id", "-u").out)
    path = _glass(own, seconds=60)
    os.chown(path, uid, uid)
    _assert_denied(Sent().over(engine), _CLOSED)
    os.chown(path, 0, 0)
    path.chmod(0o666)
    _assert_denied(Sent().over(engine), _CLOSED)
    path.chmod(0o644)
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)
    _assert_denied(Sent().over(engine), _CLOSED)
    real.unlink()
    assert "break_glass.refused" in own.log("authz")


_BAD_GLASS: dict[str, dict[str, Any]] = {
    "for more than an hour": {"until_boottime_ms": 1 << 50},
    "without reason": {"reason": " "},
    "with more in it": {"also": 1},
    "with text for time": {"until_boottime_ms": "9999999999999"},
}


@pytest.mark.usefixtures("shut")
@pytest.mark.parametrize("changed", _BAD_GLASS.values(), ids=_BAD_GLASS)
def test_break_glass_that_is_wrong_opens_nothing(own: Lab, engine: Path, changed: dict[str, Any]) -> None:
    """A file with a mistake in it does not open the engine."""
    _glass(own, seconds=60, **changed)
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_does_not_help_a_bad_stamp(own: Lab, engine: Path, forger: Forger) -> None:
    """Break-glass is for requests without a stamp; a forged one is refused all the same."""
    _glass(own, seconds=60)
    other = replace(forger, key=Ed25519PrivateKey.generate())
    _assert_denied(other.stamped(Sent()).over(engine), "its signature does not fit")


# The canary


def _plugins(lab: Lab, names: list[str]) -> None:
    path = lab.root / "etc" / "daemon.json"
    settings = json.loads(path.read_text())
    write_atomic(path, json.dumps(settings | {"authorization-plugins": names}).encode(), mode=0o644)
    os.kill(lab.pid("dockerd"), signal.SIGHUP)


@pytest.fixture
def guarded(own: Lab) -> Iterator[Lab]:
    """The lab, its plugin back in place afterwards."""
    yield own
    _plugins(own, ["ds01-authz"])
    assert eventually(lambda: _serves(own), seconds=10)


def _serves(lab: Lab) -> bool:
    return lab.docker(lab.alice, "version").status == 0


def test_the_doors_close_while_the_plugin_is_not_in_the_way(guarded: Lab, engine: Path) -> None:
    """An engine that lost its plugin serves anybody who reaches it: ds01 serves nobody until it is back."""
    _plugins(guarded, [])
    assert eventually(lambda: Sent().over(engine).status == 200, seconds=5), "the engine kept its plugin"
    assert eventually(lambda: not _serves(guarded), seconds=10)
    refused = unix_http.call(
        guarded.root / "run" / "users" / guarded.alice / "docker.sock", "GET", "/version"
    )
    assert refused.status == 503
    assert b"(rule canary)" in refused.body
    _plugins(guarded, ["ds01-authz"])
    assert eventually(lambda: _serves(guarded), seconds=10)
    assert Sent().over(engine).status == 403
