"""Decides each gRPC call of one user: `policy.buildkit` says what a call may be, here it is read, asked and written.

Builds, sessions and caches carry the user in their names (`policy.buildkit.names`), so that a name is all that is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from google.protobuf.message import Message

from buildkit import api_pb2 as pb
from buildkit import messages
from buildkit.ports import Ask, Confine, Images, Tags, Trail
from buildkit.seen import SeenContent
from buildkit.status import Code, Headers, Status
from buildkit.verdicts import Answer, Call, Forward, Refuse, Verdict
from policy import image_names
from policy.buildkit import methods, names, records
from policy.buildkit import solve as solves
from policy.buildkit.attrs import refused
from policy.buildkit.methods import HANDLING, INSTEAD, OTHERWISE, Handling
from policy.buildkit.model import Builder, Solve
from policy.grants import Builds, Role
from policy.model import Reason, Uid

BUILD_ID: Final = "buildkit-controlapi-buildid"
_TIMEOUT: Final = re.compile(r"[0-9]{1,8}[HMSmun]", re.ASCII)
_CONTENT_NAMESPACE: Final = ("containerd-namespace", "buildkit")


class Mediation:
    """A `buildkit.ports.Judge` for one user; one for each connection."""

    def __init__(
        self,
        *,
        builder: Callable[[], Builder],
        confine: Confine,
        images: Images,
        tags: Tags,
        trail: Trail,
        seen: SeenContent,
    ) -> None:
        """`builder` is asked for each call: a policy that was tightened counts at once.

        Args:
            seen: what content users may read, kept between connections.
        """
        self._builder = builder
        self._confine = confine
        self._images = images
        self._tags = tags
        self._trail = trail
        self._seen = seen

    def known(self, path: str) -> Refuse | None:
        if path in HANDLING:
            return None
        return self._no(
            path, "this call", "calls that ds01 knows", INSTEAD.get(path, OTHERWISE), Code.UNIMPLEMENTED
        )

    async def decide(self, call: Call, ask: Ask) -> Verdict:
        """Decide one call. Raises: BadMessage, Failed; whatever `confine`, `tags` and `trail` raise."""
        grants = self._builder().grants
        if grants.builds is Builds.CLASSIC or grants.role is Role.NONE:
            return self._no(
                call.path, "BuildKit", "the classic builder", "run it again with DOCKER_BUILDKIT=0"
            )
        match HANDLING[call.path]:
            case Handling.PASS:
                return self._forward(call)
            case Handling.SOLVE:
                verdict = await self.build(messages.read_solve(call.message))
                return replace(verdict, metadata=_timeout(call)) if isinstance(verdict, Forward) else verdict
            case Handling.STATUS:
                return self._status(call)
            case Handling.BRIDGE:
                return self._bridge(call, call.message)
            case Handling.BRIDGE_SOLVE:
                return await self._bridge_solve(call)
            case Handling.DISK_USAGE:
                return self._disk_usage(call)
            case Handling.PRUNE:
                return await self._prune(call, ask)
            case Handling.HISTORY:
                return self._history(call)
            case Handling.UPDATE_HISTORY:
                return self._update_history(call)
            case Handling.CONTENT:
                return self._content(call)
            case Handling.SWALLOW:
                return Answer(messages=(b"",))

    # --- builds ---

    async def build(self, asked: Solve) -> Forward | Refuse:
        """Decide a build, asked for by `Control/Solve` or otherwise. Raises: as `decide`."""
        builder, path = self._builder(), methods.SOLVE
        shaped = solves.shape(asked, builder)
        if isinstance(shaped, tuple):
            return self.denied(path, shaped)
        await self._confine(builder)
        shaped = replace(shaped, images=await self._images.readable())
        tags = solves.tags(asked)
        refusal = await self._tags.reserve(tags)
        if refusal is not None:
            return self.denied(path, (refusal,))
        # INVARIANT: nothing is awaited until whoever asked holds the verdict, whose end releases the names.
        try:
            self._trail.allowed(path, {"ref": shaped.ref, "tags": list(tags)})
        except BaseException:
            self._tags.release(tags)
            raise

        def built(message: bytes) -> bytes:
            self._tags.built(tags, messages.image_ids(message))
            return self._plain(pb.SolveResponse, message)

        return Forward(
            path=path,
            metadata=(),
            message=messages.write_solve(shaped),
            reshape=built,
            ended=lambda: self._tags.release(tags),
        )

    async def _bridge_solve(self, call: Call) -> Verdict:
        builder = self._builder()
        shaped = solves.shape_bridge(messages.read_bridge_solve(call.message), builder)
        if isinstance(shaped, tuple):
            return self.denied(call.path, shaped)
        await self._confine(builder)
        # Again, and not only with the build's first message: what was made private since then is hidden as well.
        shaped = replace(shaped, images=await self._images.readable())
        self._trail.allowed(call.path, {})
        return self._bridge(call, messages.write_bridge_solve(shaped, call.message))

    def _bridge(self, call: Call, message: bytes) -> Verdict:
        """SECURITY: the metadata alone says inside which build a call is made."""
        named = [value for name, value in call.metadata if name == BUILD_ID]
        if len(named) != 1 or not names.is_name(named[0]):
            return self._no(call.path, BUILD_ID, "a build of your own", "update docker buildx")
        return self._forward(call, message, metadata=((BUILD_ID, self._own(named[0])),))

    def _status(self, call: Call) -> Verdict:
        asked = messages.read(pb.StatusRequest, call.message)
        if not names.is_name(asked.Ref):
            return self._no(call.path, asked.Ref, "a build of your own", "look with docker buildx history ls")
        sent = messages.write(pb.StatusRequest(Ref=self._own(asked.Ref)))
        return self._forward(call, sent, reshape=partial(self._plain, pb.StatusResponse))

    # --- what was built ---

    def _history(self, call: Call) -> Verdict:
        """SECURITY: a limit counts before foreign builds are left out, so it counts here."""
        asked = messages.read(pb.BuildHistoryRequest, call.message)
        if asked.Ref and not names.is_name(asked.Ref):
            return self._no(call.path, asked.Ref, "a build of your own", "look with docker buildx history ls")
        sent = pb.BuildHistoryRequest(
            ActiveOnly=asked.ActiveOnly,
            Ref=self._own(asked.Ref) if asked.Ref else "",
            EarlyExit=asked.EarlyExit,
            Filter=asked.Filter,
        )
        left = asked.Limit if asked.Limit > 0 else -1

        def own(message: bytes) -> bytes | None:
            nonlocal left
            event = messages.read_answer(pb.BuildHistoryEvent, message)
            ref = names.shown(self._uid, event.record.Ref)
            if ref is None or left == 0:
                return None
            left -= left > 0
            self._seen.add(self._uid, messages.digests(event.record))
            event.record.Ref = ref
            return messages.write(messages.with_plain_names(event, self._uid))

        return self._forward(call, messages.write(sent), reshape=own)

    def _update_history(self, call: Call) -> Verdict:
        asked = messages.read(pb.UpdateBuildHistoryRequest, call.message)
        if not names.is_name(asked.Ref):
            return self._no(call.path, asked.Ref, "a build of your own", "look with docker buildx history ls")
        self._trail.allowed(call.path, {"ref": asked.Ref})
        asked.Ref = self._own(asked.Ref)
        return self._forward(call, messages.write(asked))

    def _content(self, call: Call) -> Verdict:
        asked: pb.ContentInfoRequest | pb.ContentReadRequest
        if call.path == f"{methods.CONTENT}/Info":
            asked = messages.read(pb.ContentInfoRequest, call.message)
        else:
            asked = messages.read(pb.ContentReadRequest, call.message)
        if not self._seen.has(self._uid, asked.digest):
            words = f"content {asked.digest}: not found"  # as BuildKit says of what is not there
            return Refuse(status=Status(code=Code.NOT_FOUND, message=words))
        return self._forward(call, messages.write(asked), metadata=(_CONTENT_NAMESPACE,))

    # --- cache ---

    def _disk_usage(self, call: Call) -> Verdict:
        asked = messages.write(messages.read(pb.DiskUsageRequest, call.message))
        if self._builder().grants.admin:  # who sees and prunes everybody's cache
            return self._forward(call, asked)

        def own(message: bytes) -> bytes:
            found = messages.read_answer(pb.DiskUsageResponse, message)
            return messages.write(pb.DiskUsageResponse(record=self._own_records(found)))

        return self._forward(call, asked, reshape=own)

    async def _prune(self, call: Call, ask: Ask) -> Verdict:
        """SECURITY: what is removed is named one by one, out of what the filter finds among one's own."""
        asked = messages.read(pb.PruneRequest, call.message)
        self._trail.allowed(call.path, {"filter": list(asked.filter)[:10]})
        if self._builder().grants.admin:
            return self._forward(call, messages.write(asked))
        usage = pb.DiskUsageRequest(filter=asked.filter)
        answers = await ask(f"{methods.CONTROL}/DiskUsage", messages.write(usage))
        found = [messages.read_answer(pb.DiskUsageResponse, answer) for answer in answers]
        ids = [record.ID for usage in found for record in self._own_records(usage)]
        if not ids:
            return Answer(messages=())
        asked.filter[:] = [f"id=={one}" for one in ids]
        return self._forward(call, messages.write(asked))

    def _own_records(self, usage: pb.DiskUsageResponse) -> Sequence[pb.UsageRecord]:
        return [
            record
            for record in usage.record
            if records.is_own(self._uid, kind=record.RecordType, description=record.Description)
        ]

    # --- pieces ---

    def _plain(self, kind: type[Message], message: bytes) -> bytes:
        """An answer with own local images named as the user knows them."""
        if image_names.prefix(self._uid).encode() not in message:
            return message
        return messages.write(messages.with_plain_names(messages.read_answer(kind, message), self._uid))

    @property
    def _uid(self) -> Uid:
        return self._builder().actor.uid

    def _own(self, name: str) -> str:
        return names.own(self._uid, name)

    def _forward(
        self,
        call: Call,
        message: bytes | None = None,
        *,
        metadata: Headers = (),
        reshape: Callable[[bytes], bytes | None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> Forward:
        return Forward(
            path=call.path,
            metadata=(*_timeout(call), *metadata),
            message=call.message if message is None else message,
            reshape=reshape,
            ended=ended,
        )

    def _no(
        self, path: str, asked: str, limit: str, next_step: str, code: Code = Code.PERMISSION_DENIED
    ) -> Refuse:
        field = path.rpartition(".")[2] or "method"
        return self.denied(path, (refused(field, asked, limit, next_step),), code)

    def denied(self, path: str, reasons: tuple[Reason, ...], code: Code = Code.PERMISSION_DENIED) -> Refuse:
        """A refusal, put on record."""
        text = "ds01: " + "; ".join(reason.text() for reason in reasons)
        rules = tuple(dict.fromkeys(reason.rule for reason in reasons))
        number = self._trail.refused(path, 403, text, rules)
        return Refuse(status=Status(code=code, message=f"{text}, or: ds01 explain {number}"))


def _timeout(call: Call) -> Headers:
    """How long the client will wait, if it says so well."""
    named = tuple(("grpc-timeout", value) for name, value in call.metadata if name == "grpc-timeout")
    return named if len(named) == 1 and _TIMEOUT.fullmatch(named[0][1]) else ()
