"""What client workflows need of the lab beside busybox: a Debian to build on."""

from __future__ import annotations

import os

import pytest

from tests.integration.clients.workflow import client
from tests.integration.conftest import Lab


@pytest.fixture
def debian(clean_lab: Lab) -> Lab:
    """The lab with the image debian:12, as a registry would have it."""
    tar = client("debian-12.tar") / "debian-12.tar"
    admin = f"unix://{clean_lab.root}/run/admin.sock"
    if clean_lab.docker("root", "image", "inspect", "debian:12", host=admin).status:
        imported = clean_lab.docker("root", "import", "-c", "CMD bash", str(tar), "debian:12", host=admin)
        assert imported.status == 0, imported.err
    return clean_lab


@pytest.fixture
def only_with_clients() -> None:
    """Skip where `script/test --clients` was not asked for."""
    if not os.environ.get("DS01_CLIENTS"):
        pytest.skip("only with script/test --clients")
