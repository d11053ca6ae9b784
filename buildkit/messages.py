"""BuildKit's messages, read into values and written afresh.

SECURITY: a field that ds01 does not know may mean anything, so a request that holds one is refused; what is sent is written
from values, never from the client's bytes. Answers keep what is not known in them: they come from dockerd.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from buildkit import api_pb2 as pb
from buildkit.framing import BadMessage
from policy import fetches, image_names
from policy.buildkit import sources
from policy.buildkit.model import Entry, Solve
from policy.buildkit.solve import exporter_attrs
from policy.buildkit.sources import Action, Match
from policy.model import Uid
from policy.rules.registry import HUB

M = TypeVar("M", bound=Message)


def read(kind: type[M], message: bytes) -> M:
    """A request, every field of it known. Raises: BadMessage."""
    found = read_answer(kind, message)
    _refuse_unknown(found)
    return found


def read_answer(kind: type[M], message: bytes) -> M:
    """An answer of dockerd's. Raises: BadMessage."""
    found = kind()
    try:
        found.ParseFromString(message)
    except DecodeError as error:
        raise BadMessage(f"not a {kind.__name__}") from error
    return found


def write(message: Message) -> bytes:
    """The bytes of a message: the same values are always the same bytes."""
    return message.SerializeToString(deterministic=True)


def _refuse_unknown(message: Message) -> None:
    unknown = UnknownFieldSet(message)
    if len(unknown):
        raise BadMessage(
            f"field {unknown[0].field_number} of {type(message).__name__} is not known to ds01; use an older docker buildx"
        )
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        if field.message_type.GetOptions().map_entry:
            _refuse_unknown_in_map(value)
        elif isinstance(value, Message):
            _refuse_unknown(value)
        else:
            for item in value:
                _refuse_unknown(item)


def _refuse_unknown_in_map(value: Mapping[object, object]) -> None:
    for item in value.values():
        if isinstance(item, Message):
            _refuse_unknown(item)


def read_solve(message: bytes) -> Solve:
    """`Control/Solve`. Raises: BadMessage."""
    found = read(pb.SolveRequest, message)
    cache = found.Cache
    beyond = {
        "Definition": found.Definition,
        "FrontendInputs": len(found.FrontendInputs),
        "SourcePolicy": found.SourcePolicy,
        "SourcePolicySession": found.SourcePolicySession,
        "EnableSessionExporter": found.EnableSessionExporter,
    }
    exporters = _entries(found.Exporters)
    if not exporters and found.ExporterDeprecated:
        exporters = (
            Entry(type=found.ExporterDeprecated, attrs=_sorted(found.ExporterAttrsDeprecated.items())),
        )
    exports, imports = _entries(cache.Exports), _entries(cache.Imports)
    if cache.ExportRefDeprecated:
        attrs = {**cache.ExportAttrsDeprecated, "ref": cache.ExportRefDeprecated}
        exports += (Entry(type="registry", attrs=_sorted(attrs.items())),)
    imports += tuple(Entry(type="registry", attrs={"ref": ref}) for ref in cache.ImportRefsDeprecated)
    return Solve(
        ref=found.Ref,
        session=found.Session,
        frontend=found.Frontend,
        frontend_attrs=_sorted(found.FrontendAttrs.items()),
        exporters=exporters,
        cache_imports=imports,
        cache_exports=exports,
        entitlements=tuple(found.Entitlements),
        internal=found.Internal,
        beyond=tuple(name for name, value in beyond.items() if value),
    )


def write_solve(solve: Solve) -> bytes:
    """`Control/Solve`, for BuildKit of any age: before 0.13 it knows only the first exporter, by its old fields."""
    first = solve.exporters[0] if solve.exporters else Entry(type="")
    return write(
        pb.SolveRequest(
            Ref=solve.ref,
            Session=solve.session,
            Frontend=solve.frontend,
            FrontendAttrs=solve.frontend_attrs,
            ExporterDeprecated=first.type,
            ExporterAttrsDeprecated=exporter_attrs(first),
            Exporters=[pb.Entry(Type=one.type, Attrs=exporter_attrs(one)) for one in solve.exporters],
            Cache=pb.CacheOptions(
                Exports=_written(solve.cache_exports), Imports=_written(solve.cache_imports)
            ),
            Internal=solve.internal,
            SourcePolicy=_source_policy(solve),
        )
    )


def read_bridge_solve(message: bytes) -> Solve:
    """`LLBBridge/Solve`. Raises: BadMessage."""
    found = read(pb.BridgeSolveRequest, message)
    beyond = {
        "Definition": found.Definition,
        "FrontendInputs": len(found.FrontendInputs),
        "ExporterAttr": found.ExporterAttr,
        "SourcePolicies": len(found.SourcePolicies),
    }
    imports = _entries(found.CacheImports)
    imports += tuple(Entry(type="registry", attrs={"ref": ref}) for ref in found.ImportCacheRefsDeprecated)
    return Solve(
        frontend=found.Frontend,
        frontend_attrs=_sorted(found.FrontendOpt.items()),
        cache_imports=imports,
        beyond=tuple(name for name, value in beyond.items() if value),
    )


def write_bridge_solve(solve: Solve, message: bytes) -> bytes:
    """`LLBBridge/Solve`; how its result is to be given back is taken from the client's message."""
    asked = read(pb.BridgeSolveRequest, message)
    return write(
        pb.BridgeSolveRequest(
            Frontend=solve.frontend,
            FrontendOpt=solve.frontend_attrs,
            CacheImports=_written(solve.cache_imports),
            allowResultReturn=asked.allowResultReturn,
            allowResultArrayRef=asked.allowResultArrayRef,
            Final=asked.Final,
            SourcePolicies=[_source_policy(solve)],
            Evaluate=asked.Evaluate,
        )
    )


def _source_policy(solve: Solve) -> bytes:
    """What says which images the build reads by which names, and from where the engine may fetch."""
    fetching = solve.frontend_attrs.get("image-resolve-mode") == "pull"
    rules = [
        _rule(rule.action, rule.identifier, rule.match, rule.converted)
        for rule in sources.rules(solve.images, fetching=fetching)
    ]
    rules += [
        _rule(Action.ALLOW if one.allow else Action.DENY, one.pattern, Match.REGEX)
        for one in fetches.rules(solve.fetch_hosts)
    ]
    return write(pb.SourcePolicy(version=1, rules=rules))


def _rule(action: int, identifier: str, match: Match, converted: str = "") -> pb.SourceRule:
    return pb.SourceRule(
        action=action,
        selector=pb.SourceSelector(identifier=identifier, match_type=match),
        updates=pb.SourceUpdate(identifier=converted) if converted else None,
    )


def image_ids(message: bytes) -> tuple[str, ...]:
    """The images that a SolveResponse says were made. Raises: BadMessage."""
    found = read_answer(pb.SolveResponse, message).ExporterResponse
    keys = ("containerimage.digest", "containerimage.config.digest")
    return tuple(dict.fromkeys(found[key] for key in keys if found.get(key)))


def with_plain_names(message: M, uid: Uid) -> M:
    """The same answer with own local images named as docker names them; changed in place."""
    beginning = image_names.prefix(uid)
    if beginning.encode() in write(message):
        _replace(message, beginning, f"{HUB}/library/")
    return message


def _replace(message: Message, old: str, new: str) -> None:
    """In every text that `api.proto` knows of."""
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, text in tuple(value.items()):
                if isinstance(text, str):
                    value[key] = text.replace(old, new)
        elif isinstance(value, Message):
            _replace(value, old, new)
        elif isinstance(value, str):
            setattr(message, field.name, value.replace(old, new))
        elif field.message_type is not None:
            for item in value:
                _replace(item, old, new)


def digests(record: pb.BuildHistoryRecord) -> tuple[str, ...]:
    """Everything in the content store that a record of a build names."""
    results = [*([record.Result] if record.HasField("Result") else []), *record.Results.values()]
    named = [record.logs, record.trace, record.externalError]
    for result in results:
        named += [result.ResultDeprecated, *result.Attestations, *result.Results.values()]
    return tuple(dict.fromkeys(one.digest for one in named if one.digest))


def _entries(items: Iterable[pb.Entry]) -> tuple[Entry, ...]:
    return tuple(Entry(type=one.Type, attrs=_sorted(one.Attrs.items())) for one in items)


def _written(entries: Iterable[Entry]) -> list[pb.Entry]:
    return [pb.Entry(Type=one.type, Attrs=one.attrs) for one in entries]


def _sorted(items: Iterable[tuple[str, str]]) -> dict[str, str]:
    return dict(sorted(items))
