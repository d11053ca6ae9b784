"""Names and sources as the user knows them, inside a container's list entry or inspect answer.

Owns the fields both share (`Mounts`, `NetworkSettings.Networks`) and those of `HostConfig`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policy.dockerapi.answers.pieces import (
    Fields,
    piece,
    read_array,
    read_fields,
    read_optional_fields,
    read_text,
    read_texts,
)
from policy.paths import clean_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import msgspec

    from policy.dockerapi.answers.visibility import Names


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """How the sources of one container's host paths were written in its create.

    words: by the clean path of the target. real: for those without words, by what dockerd was told.
    """

    words: Mapping[str, str] = field(default_factory=dict)
    real: Mapping[str, str] = field(default_factory=dict)

    def shown(self, source: str, target: str, names: Names) -> str:
        """A source of dockerd's as the user knows it."""
        return self.words.get(target) or self.real.get(source) or names.plain_source(source)


NO_SOURCES = Sources()


def shown_mounts(raw: msgspec.Raw, names: Names, sources: Sources) -> msgspec.Raw:
    """`Mounts` or `HostConfig.Mounts`: bind sources mapped back, volumes by the user's names."""
    mounts = read_array(raw)
    return (
        raw
        if mounts is None
        else piece([_shown_mount(read_fields(mount), names, sources) for mount in mounts])
    )


def _shown_mount(mount: Fields, names: Names, sources: Sources) -> Fields:
    kind = read_text(mount["Type"]) if "Type" in mount else ""
    if kind == "bind" and "Source" in mount:
        mount["Source"] = piece(_shown_source(mount, names, sources))
    if kind == "volume":
        # Mounts names the volume in Name and its directory in Source; HostConfig.Mounts names it in Source.
        key = "Name" if "Name" in mount else "Source"
        if key in mount:
            real = read_text(mount[key])
            if key == "Name" and "Source" in mount:
                mount["Source"] = shown_directory(mount["Source"], real, names)
            mount[key] = piece(names.plain(real))
    if kind == "image":
        for key in {"Name", "Source"} & mount.keys():
            mount[key] = piece(names.image(read_text(mount[key])))
    return mount


def _shown_source(mount: Fields, names: Names, sources: Sources) -> str:
    """In HostConfig.Mounts (`Target`) word for word, in Mounts (`Destination`) clean, as dockerd shows them."""
    source = read_text(mount["Source"])
    if "Target" in mount:
        return sources.shown(source, clean_path(read_text(mount["Target"])) or "", names)
    shown = sources.shown(source, read_text(mount["Destination"]) if "Destination" in mount else "", names)
    return clean_path(shown) or shown


def shown_directory(raw: msgspec.Raw, real_name: str, names: Names) -> msgspec.Raw:
    """A volume's directory (`Mountpoint`, `Mounts[].Source`): users cannot open it, so it reads as in plain Docker."""
    plain = names.plain(real_name)
    return raw if plain == real_name else piece(read_text(raw).replace(f"/{real_name}/", f"/{plain}/"))


def shown_binds(raw: msgspec.Raw, names: Names, sources: Sources) -> msgspec.Raw:
    """`HostConfig.Binds`: each "source:target" or "source:target:options"."""
    binds = read_texts(raw)
    return raw if binds is None else piece([_shown_bind(bind, names, sources) for bind in binds])


def _shown_bind(bind: str, names: Names, sources: Sources) -> str:
    source, colon, rest = bind.partition(":")
    if not colon:
        return bind
    if not source.startswith("/"):
        return f"{names.plain(source)}:{rest}"
    return f"{sources.shown(source, rest.partition(':')[0], names)}:{rest}"


def shown_links(raw: msgspec.Raw, names: Names) -> msgspec.Raw:
    """Each "/name:/parent/alias" in `HostConfig`, "name:alias" in an endpoint."""
    links = read_texts(raw)
    return (
        raw
        if links is None
        else piece(["/".join(names.plain(part) for part in link.split("/")) for link in links])
    )


def shown_networks(raw: msgspec.Raw, names: Names) -> msgspec.Raw:
    """`NetworkSettings`: the keys of `Networks` are network names, `DNSNames` and `Links` have containers'."""
    settings = read_optional_fields(raw)
    networks = read_optional_fields(settings["Networks"]) if settings and "Networks" in settings else None
    if settings is None or networks is None:
        return raw
    settings["Networks"] = piece(
        {names.plain(name): _shown_endpoint(endpoint, names) for name, endpoint in networks.items()}
    )
    return piece(settings)


def _shown_endpoint(raw: msgspec.Raw, names: Names) -> msgspec.Raw:
    if not names.may_be_in(raw):
        return raw
    endpoint = read_fields(raw)
    if "Links" in endpoint:
        endpoint["Links"] = shown_links(endpoint["Links"], names)
    dns_names = read_texts(endpoint["DNSNames"]) if "DNSNames" in endpoint else None
    if dns_names is not None:
        # The plain name is an alias as well, so it would stand there twice.
        endpoint["DNSNames"] = piece(list(dict.fromkeys(names.plain(name) for name in dns_names)))
    return piece(endpoint)
