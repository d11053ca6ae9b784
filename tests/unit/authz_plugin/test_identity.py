"""A stamp holds once, for a moment, for one engine and for exactly one request."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz_plugin.identity import StampCheck, StampMissing, StampRefused, UsedNonces
from authz_plugin.wire import Question, parse_question
from host.trusted import Ed25519Key
from policy.stamp import MAX_LIFETIME_MS

JSON = (("content-type", "application/json"),)
BODY = b'{"Image":"busybox"}'


def ask(stamp: str | None, **changes: Any) -> Question:
    """The request of the fixtures, changed."""
    asked: dict[str, Any] = {
        "method": "POST",
        "target": "/v1.41/containers/create?name=x",
        "headers": JSON,
        "body": BODY,
        **changes,
    }
    if stamp is not None:
        asked["headers"] = (*asked["headers"], ("x-ds01-stamp", stamp))
    return Question(**asked)


def test_a_good_stamp_names_uid_and_leases(proxy: Any, stamps: StampCheck) -> None:
    """What was signed is what is believed."""
    identity = stamps.identify(ask(proxy.stamp(proxy.claims())))
    assert (identity.uid, identity.leases) == (1000, ("l1",))


def test_without_a_stamp_nobody_is_known(stamps: StampCheck) -> None:
    """A direct request has no actor."""
    with pytest.raises(StampMissing):
        stamps.identify(ask(None))


def test_a_stamp_is_used_once(proxy: Any, stamps: StampCheck) -> None:
    """A replay is refused, byte for byte the same as it is."""
    question = ask(proxy.stamp(proxy.claims()))
    stamps.identify(question)
    with pytest.raises(StampRefused, match="used before"):
        stamps.identify(question)


def test_a_replay_is_refused_until_the_stamp_expires(proxy: Any, stamps: StampCheck, clock: Any) -> None:
    """At no moment of its life is a used stamp forgotten, whatever came after it."""
    question = ask(proxy.stamp(proxy.claims(expires_ms=clock.now_ms + MAX_LIFETIME_MS)))
    stamps.identify(question)
    for _ in range(MAX_LIFETIME_MS // 1000 + 2):
        clock.now_ms += 999
        stamps.identify(ask(proxy.stamp(proxy.claims(expires_ms=clock.now_ms + 1))))
        with pytest.raises(StampRefused, match=r"used before|expired"):
            stamps.identify(question)


@pytest.mark.parametrize(
    ("expires_in_ms", "text"), [(0, "expired"), (-1, "expired"), (MAX_LIFETIME_MS + 1, "longer than")]
)
def test_the_time_is_bounded_on_both_sides(
    proxy: Any, stamps: StampCheck, clock: Any, expires_in_ms: int, text: str
) -> None:
    """Neither an old stamp nor one for later."""
    with pytest.raises(StampRefused, match=text):
        stamps.identify(ask(proxy.stamp(proxy.claims(expires_ms=clock.now_ms + expires_in_ms))))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method": "DELETE"}, id="method"),
        pytest.param({"target": "/v1.41/containers/create?name=y"}, id="query"),
        pytest.param({"target": "/containers/create?name=x"}, id="version"),
        pytest.param({"target": "/v1.41/containers/%63reate?name=x"}, id="percent-encoding"),
        pytest.param({"headers": (("content-type", "application/json; charset=utf-8"),)}, id="content type"),
        pytest.param({"headers": ()}, id="no content type"),
        pytest.param({"headers": (*JSON, ("upgrade", "tcp"))}, id="upgrade"),
    ],
)
def test_a_stamp_fits_one_request(proxy: Any, stamps: StampCheck, changes: dict[str, Any]) -> None:
    """Any difference that dockerd would act on breaks the signature."""
    with pytest.raises(StampRefused, match="signature"):
        stamps.identify(ask(proxy.stamp(proxy.claims()), **changes))


@pytest.mark.parametrize(
    ("claimed", "body", "text"),
    [
        pytest.param({}, None, "none reached", id="JSON claimed, absent"),
        pytest.param({}, b"{}", "not the one", id="another body"),
        pytest.param({"body": "none"}, BODY, "there is one", id="none claimed, present"),
        pytest.param({"body": "stream"}, BODY, "there is one", id="stream claimed, JSON present"),
    ],
)
def test_the_body_is_the_one_that_was_let_through(
    proxy: Any, stamps: StampCheck, claimed: dict[str, Any], body: bytes | None, text: str
) -> None:
    """dockerd shows bodies only sometimes: what the proxy sent decides."""
    with pytest.raises(StampRefused, match=text):
        stamps.identify(ask(proxy.stamp(proxy.claims(**claimed)), body=body))


@pytest.mark.parametrize("claim", ["none", "stream"])
def test_requests_without_json_pass(proxy: Any, stamps: StampCheck, claim: str) -> None:
    """GETs and uploads have no body the plugin could see."""
    assert stamps.identify(ask(proxy.stamp(proxy.claims(body=claim)), body=None)).uid == 1000


def test_a_stamp_for_another_engine_is_refused(proxy: Any, stamps: StampCheck) -> None:
    """Two engines on one host do not accept each other's stamps."""
    with pytest.raises(StampRefused, match="engine"):
        stamps.identify(ask(proxy.stamp(proxy.claims(engine_id="OTHER"))))


def test_a_stamp_of_another_key_is_refused(proxy: Any, clock: Any) -> None:
    """Only the proxy's key counts."""
    other = Ed25519Key(Ed25519PrivateKey.generate().public_key())
    check = StampCheck(key=lambda: other, engine_id=lambda: "ENGINE", clock_ms=clock)
    with pytest.raises(StampRefused, match="signature"):
        check.identify(ask(proxy.stamp(proxy.claims())))


def test_another_uid_is_not_signed(proxy: Any, stamps: StampCheck) -> None:
    """A stamp cannot be rewritten to another user or lease."""
    stamp = proxy.stamp(proxy.claims())
    for forged in (stamp.replace("uid=1000", "uid=1001"), stamp.replace("leases=l1", "leases=l2")):
        assert forged != stamp
        with pytest.raises(StampRefused, match="signature"):
            stamps.identify(ask(forged))


@pytest.mark.parametrize("name", ["x-ds01-stamp", "X-DS01-STAMP", "X-D\u017f01-Stamp"])
def test_two_stamps_are_none(proxy: Any, stamps: StampCheck, make_req: Any, name: str) -> None:
    """Two names that fold to the stamp's are refused, both being good or not."""
    stamp = proxy.stamp(proxy.claims())
    question = parse_question(make_req(stamp=stamp, headers={name: stamp}))
    with pytest.raises(StampRefused, match="more than one"):
        stamps.identify(question)


@pytest.mark.parametrize("name", ["content-type", "Upgrade"])
def test_doubled_signed_headers_are_refused(proxy: Any, stamps: StampCheck, make_req: Any, name: str) -> None:
    """What is signed has one value."""
    headers = {name: "x", name.swapcase(): "x"}
    question = parse_question(make_req(stamp=proxy.stamp(proxy.claims()), headers=headers))
    with pytest.raises(StampRefused, match="more than one"):
        stamps.identify(question)


def test_a_refused_stamp_does_not_use_up_its_nonce(proxy: Any, stamps: StampCheck) -> None:
    """Nobody can spend a nonce without the signature."""
    stamp = proxy.stamp(proxy.claims())
    with pytest.raises(StampRefused):
        stamps.identify(ask(stamp, target="/v1.41/info"))
    assert stamps.identify(ask(stamp)).uid == 1000


def test_memory_is_bounded_by_time() -> None:
    """Nonces leave when their stamps can no longer be used."""
    nonces = UsedNonces()
    for now_ms in range(0, 100_000, 1000):
        assert nonces.use(f"{now_ms:032x}", expires_ms=now_ms + 10_000, now_ms=now_ms)
        assert len(nonces) <= MAX_LIFETIME_MS // 1000 + 1
