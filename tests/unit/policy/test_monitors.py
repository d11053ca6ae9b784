"""Containers that only watch GPUs: how policy names them, and which container it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from policy.document import PolicyInvalid, parse
from policy.monitors import Monitor, image_of_monitor, is_monitor

if TYPE_CHECKING:
    from policy.model import Json

IMAGE, OTHER = "sha256:" + "a" * 64, "sha256:" + "b" * 64
DCGM = Monitor(container="dcgm-exporter", image=IMAGE)


def monitors(text: str) -> tuple[Monitor, ...]:
    return parse(f"version: 1\ngpu:\n  monitors: {text}\n").monitors


def test_monitors_are_read() -> None:
    """Of one name there may be two images, as around an update; without the key there is none."""
    one, two = (f'{{container: dcgm-exporter, image: "{image}"}}' for image in (IMAGE, OTHER))
    assert monitors(f"[{one}, {two}]") == (DCGM, Monitor(container="dcgm-exporter", image=OTHER))
    assert monitors("[]") == parse("version: 1\n").monitors == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("dcgm-exporter", "must be a list", id="no-list"),
        pytest.param("[dcgm-exporter]", "must have the keys", id="a-name-alone"),
        pytest.param("[{container: dcgm-exporter}]", "image is missing", id="no-image"),
        pytest.param(f'[{{image: "{IMAGE}"}}]', "container is missing", id="no-name"),
        pytest.param("[{container: a, image: nvidia/dcgm-exporter:4}]", "image by its id", id="a-tag"),
        pytest.param('[{container: a, image: "sha256:abc"}]', "image by its id", id="a-short-id"),
        pytest.param(f'[{{container: a, image: "{IMAGE.upper()}"}}]', "image by its id", id="upper-case"),
        pytest.param(f'[{{container: "*", image: "{IMAGE}"}}]', "whole name of a container", id="a-pattern"),
        pytest.param(f'[{{container: "/a", image: "{IMAGE}"}}]', "whole name of a container", id="a-slash"),
        pytest.param(
            f'[{{container: u1000.web, image: "{IMAGE}"}}]', "a user made through ds01", id="a-users"
        ),
        pytest.param(
            f'[{{container: u0.web, image: "{IMAGE}"}}]', "a user made through ds01", id="roots-by-ds01"
        ),
        pytest.param(f'[{{container: a, image: "{IMAGE}", user: b}}]', "unknown key user", id="unknown-key"),
    ],
)
def test_a_mistake_says_what_to_write(text: str, said: str) -> None:
    """A name or an image alone is never enough, and what users choose cannot be named."""
    with pytest.raises(PolicyInvalid) as wrong:
        monitors(text)
    (mistake,) = wrong.value.mistakes
    assert said in mistake.message
    assert (mistake.line, mistake.path) == (3, "gpu.monitors")


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        pytest.param("dcgm-exporter", IMAGE, True, id="both"),
        pytest.param("dcgm-exporter", OTHER, False, id="another image"),
        pytest.param("dcgm-exporter2", IMAGE, False, id="another name"),
        pytest.param("DCGM-exporter", IMAGE, False, id="another spelling"),
        pytest.param("u1000.dcgm-exporter", IMAGE, False, id="a user's of that name"),
        pytest.param("dcgm-exporter", None, False, id="one that cannot be"),
        pytest.param("", "", False, id="neither"),
    ],
)
def test_name_and_image_must_both_be_those(name: str, image: str | None, *, expected: bool) -> None:
    """Exactly."""
    assert is_monitor(name, image, [DCGM]) is expected
    assert not is_monitor(name, image, [])


@pytest.mark.parametrize(
    "label",
    ["ds01.seal", "ds01.uid", "ds01.user", "DS01.Owner", "ds01.gpu.allocated", "aime.mlc", "aime.mlc.USER"],
)
def test_what_was_made_for_a_user_is_no_monitor(label: str) -> None:
    """Even if its seal counts no more: a label of ds01's or of an older tool stays on it, whatever it says."""
    inspect: dict[str, Json] = {"Image": IMAGE, "Config": {"Labels": {"maintainer": "x", label: ""}}}
    assert image_of_monitor(inspect) is None


def test_the_image_is_told_by_its_id() -> None:
    """Not by what its create called it; a shape that is not the engine's is none."""
    inspect: dict[str, Json] = {"Image": IMAGE, "Config": {"Image": "dcgm", "Labels": {"com.nvidia.x": "y"}}}
    assert image_of_monitor(inspect) == IMAGE
    assert image_of_monitor({"Image": IMAGE, "Config": {"Labels": None}}) == IMAGE
    assert image_of_monitor({}) == ""
    wrongs: tuple[Any, ...] = (
        {"Image": 5},
        {"Image": IMAGE, "Config": []},
        {"Config": {"Labels": ["ds01.seal"]}},
    )
    for wrong in wrongs:
        with pytest.raises(TypeError):
            image_of_monitor(wrong)
