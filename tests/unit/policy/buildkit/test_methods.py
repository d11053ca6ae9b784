"""The table of gRPC methods."""

from __future__ import annotations

from policy.buildkit.methods import BRIDGE, CONTENT, CONTROL, HANDLING, INSTEAD


def test_a_method_is_handled_or_refused() -> None:
    """Never both."""
    assert not HANDLING.keys() & INSTEAD.keys()


def test_what_reaches_out_of_a_build_is_not_handled() -> None:
    """Containers inside builds, sessions beside /session, and everything that writes content."""
    for path in (
        f"{CONTROL}/Session", f"{BRIDGE}/NewContainer", f"{BRIDGE}/ExecProcess", f"{CONTENT}/Write",
        f"{CONTENT}/Delete", f"{CONTENT}/Update", f"{CONTENT}/List", f"{CONTENT}/Abort",
    ):  # fmt: skip
        assert path not in HANDLING
