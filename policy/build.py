"""From the texts of the policy files to the policy in force, for every daemon alike."""

from __future__ import annotations

from collections.abc import Mapping

from policy.compile import USER_SOCKET, Policy, compile_policy
from policy.document import parse


def build_policy(texts: Mapping[str, str], *, user_socket_template: str = USER_SOCKET) -> Policy:
    """Compile the texts of `policy.yaml` and `policy.d/*.yaml`, by path. Raises: PolicyInvalid, with all mistakes."""
    return compile_policy(parse(texts), user_socket_template=user_socket_template)
