"""The rule `mounts`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"Binds": ["/etc:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/home/alice/../bob:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/home/alicex:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["//home/bob:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/data:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/home/alice:/x:z"]}), "HostConfig.Binds"),
    (create({"Binds": ["/home/alice:/x:rshared"]}), "HostConfig.Binds"),
    (create({"Binds": ["/home/alice:/proc/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["/run/ds01/users/bob/docker.sock:/x"]}), "HostConfig.Binds"),
    (create({"Binds": ["vol:/var/run/nvidia-container-devices/all"]}), "HostConfig.Binds"),
    (create({"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]}), "HostConfig.Mounts"),
    (
        create(
            {
                "Mounts": [
                    {
                        "Type": "bind",
                        "Source": "/home/alice",
                        "Target": "/x",
                        "BindOptions": {"Propagation": "shared"},
                    }
                ]
            }
        ),
        "HostConfig.Mounts.Propagation",
    ),
    (
        create(
            {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Target": "/x",
                        "VolumeOptions": {
                            "DriverConfig": {"Options": {"type": "none", "o": "bind", "device": "/etc"}}
                        },
                    }
                ]
            }
        ),
        "HostConfig.Mounts.DriverConfig.Options",
    ),
    (create({"Mounts": [{"Type": "cluster", "Target": "/x"}]}), "HostConfig.Mounts.Type"),
    (create({"Tmpfs": {"/x": "suid"}}), "HostConfig.Tmpfs"),
    (create({"Tmpfs": {"/sys/fs": ""}}), "HostConfig.Tmpfs"),
    (create({"VolumeDriver": "sshfs"}), "HostConfig.VolumeDriver"),
    (create(Volumes={"/proc": {}}), "Volumes"),
    (
        create(
            {
                "Mounts": [
                    {
                        "Type": "volume",
                        "Source": "vol",
                        "Target": "/x",
                        "VolumeOptions": {"Subpath": "a/../../b"},
                    }
                ]
            }
        ),
        "HostConfig.Mounts.Subpath",
    ),
]
ACCEPTED: list[Request] = [
    create({"Binds": ["/home/alice/x:/x", "/data:/d:ro", "vol:/v", "/anon"]}),
    create(
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "/home/alice/",
                    "Target": "/x/",
                    "BindOptions": {"CreateMountpoint": True},
                }
            ]
        }
    ),
    create(
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Source": "vol",
                    "Target": "/x",
                    "VolumeOptions": {"Labels": {"ds01.uid": "0"}},
                }
            ]
        }
    ),
    create({"Tmpfs": {"/t": "rw,size=64m,mode=1777"}}),
    create({"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("mounts", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
