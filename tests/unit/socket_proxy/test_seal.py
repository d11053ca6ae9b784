"""A seal proves an owner, and nothing else does."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policy import ownership
from policy.model import ContainerId, LeaseId, RequestId
from socket_proxy.keys import Keys
from socket_proxy.seal import SealedContainers, Sealer
from tests.fakes.proxy_world import ALICE, BOB


def keys() -> Keys:
    private = Ed25519PrivateKey.generate()
    return Keys(private=private, public=private.public_key(), engine_id="e" * 32)


def sealed(sealer: Sealer) -> dict[str, str]:
    return sealer.labels(ALICE, lease=LeaseId("lease"), request_id=RequestId("r1"))


def test_a_sealed_set_names_its_owner() -> None:
    """Also among labels of others, and after the same labels were checked before."""
    sealer = Sealer(keys())
    labels = sealed(sealer) | {"com.example": "x"}
    assert [sealer.owner(labels) for _ in range(2)] == [ALICE.uid] * 2


@pytest.mark.parametrize("name", ownership.SEALED)
@pytest.mark.parametrize("known", [True, False], ids=["checked-before", "new"])
def test_a_changed_or_missing_label_proves_nothing(name: str, *, known: bool) -> None:
    """Each sealed label is covered, whether or not the true set was remembered."""
    sealer = Sealer(keys())
    labels = sealed(sealer)
    if known:
        assert sealer.owner(labels) == ALICE.uid
    assert sealer.owner(labels | {name: str(BOB.uid)}) is None
    assert sealer.owner({each: text for each, text in labels.items() if each != name}) is None


@pytest.mark.parametrize(
    "text", ["", "v1", "v1.0.0", f"v1.{'0' * 32}.{'0' * 128}", f"v2.{'0' * 32}.{'0' * 128}"]
)
def test_a_made_up_seal_proves_nothing(text: str) -> None:
    """An image can carry any label; what does not verify is unmanaged."""
    sealer = Sealer(keys())
    assert sealer.owner(sealed(sealer) | {ownership.SEAL: text}) is None


def test_no_labels_prove_nothing() -> None:
    """None and an empty map are what the engine shows of unlabelled objects."""
    assert Sealer(keys()).owner(None) is None
    assert Sealer(keys()).owner({}) is None


def test_a_seal_of_another_key_proves_nothing() -> None:
    """Labels from another ds01 do not count here."""
    assert Sealer(keys()).owner(sealed(Sealer(keys()))) is None


def test_no_two_seals_are_the_same() -> None:
    """The same owner, lease and request sealed twice give two nonces."""
    sealer = Sealer(keys())
    assert sealed(sealer)[ownership.SEAL] != sealed(sealer)[ownership.SEAL]


class Approvals:
    def has(self, container: ContainerId) -> bool:
        return container == "approved"


@pytest.mark.parametrize(
    ("container", "state", "is_owned"),
    [
        pytest.param("approved", "running", True, id="approved"),
        pytest.param("approved", "created", True, id="approved-and-new"),
        pytest.param("cut-short", "created", True, id="its-create-was-cut-short"),
        pytest.param("step", "running", False, id="a-step-of-a-build"),
        pytest.param("step", "exited", False, id="a-step-that-was-kept"),
        pytest.param("step", "", False, id="nobody-says-how-it-is"),
    ],
)
def test_labels_alone_make_no_container_ones_own(container: str, state: str, *, is_owned: bool) -> None:
    """A Dockerfile can give the labels of an earlier container to its steps, which are started at once."""
    sealer = Sealer(keys())
    one = SealedContainers(sealer, Approvals())
    assert one.owner(container, sealed(sealer), state=state) == (ALICE.uid if is_owned else None)
    assert one.owner(container, sealed(sealer) | {"ds01.uid": "0"}, state=state) is None
    assert SealedContainers(sealer, None).owner(container, sealed(sealer), state=state) == ALICE.uid
