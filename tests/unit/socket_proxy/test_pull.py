"""The pull that a build needs: one tag, with the credentials of its registry and no others."""

from __future__ import annotations

import base64
import json

import pytest

from policy.dockerapi.model import Operation, Request
from socket_proxy.pull import pull_request

AUTHS = {"https://index.docker.io/v1/": {"username": "hub"}, "host:5000": {"username": "h", "password": "p"}}


def build(config: str = "") -> Request:
    headers = {"x-registry-config": config} if config else {}
    query = {"platform": ("linux/arm64",)}
    return Request(operation=Operation.IMAGE_BUILD, version=(1, 41), query=query, headers=headers)


@pytest.mark.parametrize(
    ("name", "repository", "tag"),
    [
        ("busybox", "busybox", "latest"),
        ("busybox:1", "busybox", "1"),
        ("host:5000/a/b", "host:5000/a/b", "latest"),
        ("host:5000/a/b:2", "host:5000/a/b", "2"),
        ("a/b@sha256:12", "a/b", "sha256:12"),
    ],
)
def test_one_tag_or_digest_is_fetched(name: str, repository: str, tag: str) -> None:
    """Never a whole repository."""
    request = pull_request(build(), name)
    assert request.operation is Operation.IMAGE_CREATE
    assert request.query == {"fromImage": (repository,), "tag": (tag,), "platform": ("linux/arm64",)}


@pytest.mark.parametrize(
    ("name", "user"), [("busybox", "hub"), ("host:5000/x", "h"), ("other/x", "hub"), ("ghcr.io/x/y", None)]
)
def test_a_registry_gets_its_own_credentials(name: str, user: str | None) -> None:
    """Those the docker CLI keeps for it."""
    config = base64.urlsafe_b64encode(json.dumps(AUTHS).encode()).decode()
    header = pull_request(build(config), name).headers.get("x-registry-auth")
    assert (header is None) == (user is None)
    if header is not None:
        assert json.loads(base64.urlsafe_b64decode(header))["username"] == user


@pytest.mark.parametrize("config", ["", "!", "bm90IGpzb24=", "W10="])
def test_unreadable_credentials_are_none(config: str) -> None:
    """The pull goes without."""
    assert pull_request(build(config), "busybox").headers == {}
