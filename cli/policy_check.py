"""`ds01 policy check [FILES]`: every mistake at once, or what the policy comes to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from cli.outcome import Exit, Failed
from cli.screen import columns, plain, size
from host.files import FileUntrusted, read_trusted
from host.tree import Tree
from policy.build import build_policy
from policy.compile import Policy
from policy.document import Entry, Mistake, PolicyInvalid


def check(files: Sequence[str], tree: Tree) -> Policy:
    """The policy that `files`, or else the files in force, amount to.

    The files in force must also be root's alone, or no daemon would load them.
    Raises: PolicyInvalid: all mistakes. Failed: USAGE: a named file cannot be read; UNAVAILABLE: one in force cannot.
    """
    if files:
        return build_policy(_texts([Path(name) for name in files], Path.read_bytes, Exit.USAGE))
    paths = [tree.policy, *sorted(tree.policy_directory.glob("*.yaml"))]
    return build_policy(_texts(paths, read_trusted, Exit.UNAVAILABLE))


def _texts(paths: Sequence[Path], read: Callable[[Path], bytes], unreadable: Exit) -> dict[str, str]:
    texts: dict[str, str] = {}
    mistakes: list[Mistake] = []
    for path in paths:
        try:
            texts[str(path)] = read(path).decode()
        except (FileUntrusted, UnicodeDecodeError) as error:
            problem = str(error) if isinstance(error, FileUntrusted) else "is not UTF-8"
            mistakes.append(Mistake(file=str(path), line=0, path="", message=problem))
        except OSError as error:
            raise Failed(unreadable, f"{path}: {error.strerror}") from error
    if mistakes:
        raise PolicyInvalid(mistakes)
    return texts


def mistakes_as_json(error: PolicyInvalid) -> dict[str, Any]:
    """The mistakes, each with file, line, path, message."""
    return {
        "ok": False,
        "mistakes": [
            {"file": one.file, "line": one.line, "path": one.path, "message": one.message}
            for one in error.mistakes
        ],
    }


def summary(policy: Policy) -> dict[str, Any]:
    """Digest and, for each block, its role, its members and the limits it states, in base units; and who only watches GPUs."""
    document = policy.document
    return {
        "ok": True,
        "digest": policy.digest,
        "defaults": _entry(document.defaults),
        "groups": {name: _entry(entry) for name, entry in document.groups.items()},
        "users": {name: _entry(entry) for name, entry in document.users.items()},
        "system_accounts": list(document.system_accounts),
        "monitors": [{"container": one.container, "image": one.image} for one in document.monitors],
    }


def shown(found: dict[str, Any]) -> str:
    """`summary` in words."""
    rows = [["defaults", *_words(found["defaults"])]]
    rows += [[f"group {plain(name)}", *_words(entry)] for name, entry in found["groups"].items()]
    rows += [[f"user {plain(name)}", *_words(entry)] for name, entry in found["users"].items()]
    rows += [
        [f"monitor {plain(one['container'])}", "takes no GPU", plain(one["image"])]
        for one in found["monitors"]
    ]
    return "\n".join([f"ok, digest {found['digest']}", *columns(rows)])


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "role": entry.role,
        "unix_group": entry.unix_group or None,
        "members": list(entry.members),
        "limits": dict(entry.limits),
        "allow": sorted(entry.allow),
        "share": dict(entry.share),
    }


def _words(entry: dict[str, Any]) -> list[str]:
    who = [f"Unix group {entry['unix_group']}"] if entry["unix_group"] else []
    who += entry["members"]
    limits = ", ".join(
        f"{name.removesuffix('_bytes')}={size(value) if name.endswith('_bytes') else value}"
        for name, value in entry["limits"].items()
    )
    return [
        f"role {entry['role'] or 'not stated'}",
        plain(", ".join(who)) or "-",
        limits or "no limits stated",
        *(
            f"members may {value} each other's {what}"
            for what, value in entry["share"].items()
            if value != "none"
        ),
    ]
