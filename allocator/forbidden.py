"""What a refusal says to who is not trusted: what was refused, who may, and the next step."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROXY: Final = "only the ds01 proxy may tell what there is and what the policy says; use docker as usual"
_LEASING: Final = (
    "only the ds01 proxy may change leases; docker run --gpus 1 asks for one, docker rm gives it back"
)
_MIG: Final = "only root may split GPUs or look at how; try: sudo ds01 gpu mig plan, or ask the admin"
_WORDS: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("GET", "/v1/leases"): "only root may see leases of others; yours are in ds01 status",
        ("POST", "/v1/leases"): _LEASING,
        ("POST", "/v1/leases/{id}/confirm"): _LEASING,
        ("POST", "/v1/leases/{id}/start"): _LEASING,
        ("POST", "/v1/leases/{id}/release"): _LEASING,
        ("POST", "/v1/evidence"): _PROXY,
        ("PUT", "/v1/containers"): _PROXY,
        ("PUT", "/v1/host-rules"): _PROXY,
        ("PUT", "/v1/reservations"): _PROXY,
        (
            "POST",
            "/v1/reservations",
        ): "only root may reserve GPUs; try: sudo ds01 gpu reserve, or ask the admin",
        ("DELETE", "/v1/reservations/{id}"): (
            "only root may take a reservation back; try: sudo ds01 gpu unreserve, or ask the admin"
        ),
        ("POST", "/v1/devices/{uuid}/quarantine"): (
            "only root may take a device out of service; try: sudo ds01 gpu quarantine, or ask the admin"
        ),
        ("POST", "/v1/devices/{uuid}/unquarantine"): (
            "only root may put a device back into service; try: sudo ds01 gpu unquarantine, or ask the admin"
        ),
        ("POST", "/v1/host-access"): (
            "only root may let somebody use GPUs outside containers; try: sudo ds01 gpu grant, or ask the admin"
        ),
        ("POST", "/v1/host-access/revoke"): (
            "only root may end the use of GPUs outside containers; try: sudo ds01 gpu revoke, or ask the admin"
        ),
        ("GET", "/v1/foreign"): (
            "only admins may see the containers that ds01 did not make; try: ds01 adopt, which asks the ds01 proxy"
        ),
        ("POST", "/v1/foreign/{id}/lease"): (
            "only admins may give a container to its owner; try: ds01 adopt CONTAINER --owner USER, or ask one"
        ),
        ("GET", "/v1/mig"): _MIG,
        ("POST", "/v1/mig/plan"): _MIG,
        ("POST", "/v1/mig/apply"): _MIG,
    }
)


def words(method: str, path: str) -> str:
    """One line, without the `ds01: ` in front. path: as the route has it, `/v1/leases/{id}`. Raises: KeyError: it is refused to nobody."""
    return _WORDS[method, path]
