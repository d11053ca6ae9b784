"""Laws of the way to dockerd and back: what a create said is what inspect shows, and the plugin lets through that form alone."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from policy.approval import ApprovedMount, approved_mounts, with_stand_ins
from policy.dockerapi.model import Request
from policy.dockerapi.responses import Sources, container_inspect
from policy.dockerapi.sources import with_stand_ins as told_of
from policy.dockerapi.sources import without_stand_ins
from policy.evaluate import check
from policy.model import CheckBind
from policy.names import ViewerNames
from policy.paths import clean_path
from policy.stand_ins import StandIns
from tests.fakes.policy_world import ALICE, BOB, POLICY, create, decide, rewrite
from tests.fakes.visibility import SetVisibility

STAND_INS = StandIns("/var/lib/ds01/sources")
ID = "a" * 64
NAMES = st.text("ab. -_é1", min_size=1, max_size=4).filter(lambda name: name.strip(". ") != "")
# Spellings of a path at alice's home, as clients send them.
SOURCES = st.lists(NAMES | st.sampled_from([".", "x/..", ""]), max_size=3).map(
    lambda parts: "/".join(["/home/alice", *parts])
) | st.just("/home/alice/")
OPTIONS = st.sampled_from(["", ":ro", ":rw", ":rslave", ":ro,rprivate", ":cached,ro", ":"])
TARGETS = ["/t/a", "/t/b", "/t/c/", "/t//d"]


@st.composite
def creates(draw: st.DrawFn) -> Request:
    """A create with host paths, volumes and anonymous volumes, each at a target of its own."""
    binds: list[Any] = []
    mounts: list[Any] = []
    for target in TARGETS[: draw(st.integers(0, 4))]:
        match draw(st.sampled_from(["bind", "mount", "volume", "anonymous"])):
            case "bind":
                binds.append(f"{draw(SOURCES)}:{target}{draw(OPTIONS)}")
            case "mount":
                read_only = {"ReadOnly": True} if draw(st.booleans()) else {}
                mounts.append({"Type": "bind", "Source": draw(SOURCES), "Target": target, **read_only})
            case "volume":
                binds.append(f"vol:{target}")
            case _:
                binds.append(target)
    return create({"Binds": binds, "Mounts": mounts})


def rewritten(asked: Request) -> tuple[Request, tuple[ApprovedMount, ...], Request]:
    """What the proxy makes of a create: rewritten, approved, told."""
    decision = decide(asked)
    written = rewrite(asked, decision)
    looked_at = [item for item in decision.obligations if isinstance(item, CheckBind)]
    found = approved_mounts(written.body or {}, looked_at, user_socket="")
    approved = with_stand_ins(found, STAND_INS, uid=ALICE.uid, asked=asked.body or {})
    return written, approved, told_of(written, STAND_INS, uid=ALICE.uid, user_socket="")


def host(request: Request, key: str) -> list[Any]:
    found: Any = (request.body or {})["HostConfig"]
    return list(found.get(key) or [])


@given(creates())
def test_nothing_that_a_user_can_change_is_told(asked: Request) -> None:
    """Every host path is a stand-in, and there is one approval for it that names what it stands for."""
    written, approved, told = rewritten(asked)
    assert without_stand_ins(told, STAND_INS) == written
    sources = [bind.split(":")[0] for bind in host(told, "Binds") if bind.startswith("/") and ":" in bind]
    sources += [mount["Source"] for mount in host(told, "Mounts")]
    stand_ins = [STAND_INS.behind(source) for source in sources]
    assert None not in stand_ins
    by_told = {mount.told: mount.source for mount in approved if mount.told}
    assert by_told == {
        source: stand_in.source for source, stand_in in zip(sources, stand_ins, strict=True) if stand_in
    }


@given(creates())
def test_inspect_shows_the_sources_of_the_create(asked: Request) -> None:
    """In their own words in HostConfig, clean in Mounts; as dockerd keeps it, once the words are out of memory too."""
    written, approved, told = rewritten(asked)
    points = [
        {"Type": "bind", "Source": mount.told, "Destination": mount.target}
        for mount in approved
        if mount.told
    ]
    answer = {
        "Id": ID,
        "HostConfig": {"Binds": host(told, "Binds"), "Mounts": host(told, "Mounts")},
        "Mounts": points,
    }
    shown = json.loads(
        container_inspect(
            json.dumps(answer).encode(),
            SetVisibility(containers=frozenset({ID})),
            sources=Sources(words={mount.target: mount.asked for mount in approved if mount.asked}),
            names=ViewerNames(ALICE.uid, stand_ins=STAND_INS),
        )
    )
    words = [bind.split(":")[0] for bind in host(asked, "Binds")]
    assert [bind.split(":")[0] for bind in shown["HostConfig"]["Binds"]] == [
        word if ":" in bind else clean_path(word)
        for word, bind in zip(words, host(asked, "Binds"), strict=True)
    ]
    assert [mount["Source"] for mount in shown["HostConfig"]["Mounts"]] == [
        mount["Source"] for mount in host(asked, "Mounts")
    ]
    assert [point["Source"] for point in shown["Mounts"]] == [
        clean_path(mount.asked or mount.source) for mount in approved if mount.told
    ]
    assert b"sources" not in json.dumps(shown).encode()
    assert [bind.partition(":")[2] for bind in shown["HostConfig"]["Binds"]] == [
        bind.partition(":")[2] for bind in host(written, "Binds")
    ]


@given(creates())
def test_the_plugin_lets_through_what_was_told_and_no_other_form(asked: Request) -> None:
    """Neither the path itself, nor another's stand-in, nor one that is mounted for more than it says."""
    written, _, told = rewritten(asked)

    def refused(request: Request) -> bool:
        return check(POLICY, ALICE, request, leases=(), stand_ins=STAND_INS) != ()

    assert not refused(told)
    if told != written:
        assert refused(written)
        assert refused(told_of(written, STAND_INS, uid=BOB.uid, user_socket=""))
        assert refused(told_of(told, STAND_INS, uid=ALICE.uid, user_socket=""))
        body = json.dumps(told.body)
        swapped = (
            body.replace("ro/home", "RW/home").replace("rw/home", "ro/home").replace("RW/home", "rw/home")
        )
        assert refused(replace(told, body=json.loads(swapped)))


@given(creates())
def test_a_stand_in_is_no_path_that_a_user_may_name(asked: Request) -> None:
    """It is root's, and sent by a client it is judged as any other path."""
    _, _, told = rewritten(asked)
    if any(STAND_INS.behind(str(bind).split(":")[0]) for bind in host(told, "Binds")):
        stolen = create({"Binds": host(told, "Binds")})
        assert decide(stolen).effect == "deny"
