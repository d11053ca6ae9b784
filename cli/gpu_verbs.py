"""The verbs of `ds01 gpu`: parse, call, print."""

from __future__ import annotations

import argparse
import os
import pwd
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from cli import break_glass, gpu, gpu_access, gpu_mig, gpu_reservations, gpu_sessions, gpu_top
from cli.outcome import Exit, Failed, Shown
from cli.policy_check import check
from cli.server import ask_allocator, look, tree_of
from cli.times import seconds_of
from host import user_slices
from policy.document import Document, PolicyInvalid
from policy.nearest import hint

_TOP_SECONDS = 2
_CLEAR = "\x1b[H\x1b[2J"


def add(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """All of them, below `verbs`; without one, the table of devices."""
    about = "what GPUs there are, who has them, and who waits"
    gpus = verb(verbs, "gpu", _table, about).add_subparsers(metavar="COMMAND")
    top = verb(gpus, "top", _top, "GPU processes with whose they are; all of them for admins, else yours")
    top.add_argument("--once", action="store_true", help="print once, and not again every two seconds")
    verb(gpus, "queue", _queue, "who waits for a GPU, and what is kept for whom")
    verb(
        gpus,
        "reservations",
        _reservations,
        "what is kept for whom and when, by whom, and what is still needed",
    )
    verb(gpus, "why-full", _why_full, "why no GPU is free, and when one will be")
    _reserving(gpus, verb)
    _caring(gpus, verb)
    _access(gpus, verb)


def _reserving(gpus: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    reserve = verb(gpus, "reserve", _reserve, "root only: keep GPUs for a group or a user at set times")
    reserve.add_argument("count", type=int, metavar="N", help="how many")
    reserve.add_argument("--when", required=True, help='like "Tue 10:00-12:00", or "2027-01-31 10:00-12:00"')
    whom = reserve.add_mutually_exclusive_group(required=True)
    whom.add_argument("--group", metavar="NAME", help="a policy group")
    whom.add_argument("--user", metavar="USER")
    reserve.add_argument("--profile", help="full (default), any, mig or a MIG profile")
    reserve.add_argument(
        "--lead",
        metavar="TIME",
        help="so long before, no container without an end gets one any more (default: 15m)",
    )
    reserve.add_argument("--reason", help="what for; everybody sees it")
    unreserve = verb(gpus, "unreserve", _unreserve, "root only: take a reservation back")
    unreserve.add_argument("id", metavar="ID", help="as ds01 gpu reservations shows it")


def _caring(gpus: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    for name, call, about in (
        ("quarantine", _quarantine, "root only: give a device to nobody any more; who has it goes on"),
        ("unquarantine", _unquarantine, "root only: put a device back into service"),
    ):
        one = verb(gpus, name, call, about)
        one.add_argument("device", metavar="DEVICE", help="as ds01 gpu shows it, or its UUID")
        one.add_argument("--reason", required=True)
    mig = verb(gpus, "mig", _mig_plan, "root only: split GPUs as the policy says (gpu.mig)")
    migs = mig.add_subparsers(metavar="COMMAND")
    verb(migs, "plan", _mig_plan, "what would be destroyed and created, and what stands in the way")
    verb(migs, "apply", _mig_apply, "do it; nothing that a container or a process refers to is touched")


def _access(gpus: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """What concerns GPUs outside containers."""
    grant = verb(gpus, "grant", _grant, "root only: let a user use GPUs outside containers for a time")
    grant.add_argument("user", metavar="USER")
    grant.add_argument("--hours", type=float, required=True, help="how long; 0.5 is half an hour")
    grant.add_argument("--reason", required=True, help="what for; everybody with the record sees it")
    grant.add_argument(
        "--gpu",
        "--device",
        dest="devices",
        metavar="DEVICE",
        action="append",
        default=[],
        help="a GPU or MIG device as ds01 gpu shows it (2, 2:1), or its UUID; may be given again (default: all)",
    )
    revoke = verb(gpus, "revoke", _revoke, "root only: end that now, and the programs that still use one")
    revoke.add_argument("user", metavar="USER")
    verb(gpus, "grants", _grants, "who may use GPUs outside containers, and until when")
    sessions = verb(gpus, "sessions", _sessions, "root only: close GPUs to people's sessions, or open them")
    which = sessions.add_mutually_exclusive_group(required=True)
    which.add_argument("--close", action="store_true", help="from now on; ds01 gpu grant makes exceptions")
    which.add_argument("--open", action="store_true", help="as it was before")
    sessions.add_argument(
        "--free",
        metavar="USER",
        action="append",
        default=[],
        help="an admin, whose sudo stays in their own session; may be given again",
    )


def _table(_options: argparse.Namespace) -> Shown:
    answer = look(gpu.INVENTORY)
    return (Exit.OK if answer["state"] == "ok" else Exit.UNAVAILABLE), answer, gpu.table(answer)


def _top(options: argparse.Namespace) -> Shown:
    """Once, or again and again on a terminal until Ctrl-C."""
    again = sys.stdout.isatty() and not options.once and not options.json
    while True:
        answer = look(gpu_top.PROCESSES)
        text = gpu_top.top(answer, gpu_top.named(look(gpu.INVENTORY)))
        if not again:
            return (Exit.OK if answer["problem"] is None else Exit.UNAVAILABLE), answer, text
        sys.stdout.write(f"{_CLEAR}{text}\n")
        sys.stdout.flush()
        try:
            time.sleep(_TOP_SECONDS)
        except KeyboardInterrupt:
            return Exit.OK, answer, ""


def _queue(_options: argparse.Namespace) -> Shown:
    answer = look(gpu.QUEUE)
    return Exit.OK, answer, gpu.queue(answer)


def _reservations(_options: argparse.Namespace) -> Shown:
    answer = ask_allocator(gpu_reservations.PATH)
    return Exit.OK, answer, gpu_reservations.listed(answer)


def _why_full(_options: argparse.Namespace) -> Shown:
    inventory, line = look(gpu.INVENTORY), look(gpu.QUEUE)
    code = Exit.OK if inventory["state"] == "ok" else Exit.UNAVAILABLE
    return code, {"inventory": inventory, "queue": line}, gpu.why_full(inventory, line)


def _reserve(options: argparse.Namespace) -> Shown:
    wish: dict[str, Any] = {
        "count": options.count,
        "when": options.when,
        "name": options.group or options.user,
        "by": break_glass.who(),
    }
    if options.reason:
        wish["reason"] = options.reason
    if options.profile:
        wish["profile"] = options.profile
    if options.lead:
        wish["lead_seconds"] = seconds_of("--lead", options.lead)
    if options.group:
        wish["group"] = _group(options.group)
    else:
        wish["uid"] = _uid(options.user)
    answer = ask_allocator(gpu_reservations.PATH, wish)
    return Exit.OK, answer, gpu_reservations.made(answer)


def _unreserve(options: argparse.Namespace) -> Shown:
    if not options.id.isprintable():
        raise Failed(Exit.USAGE, f"{options.id!r} is no id; see ds01 gpu reservations")
    path = f"{gpu_reservations.PATH}/{quote(options.id, safe='')}?by={quote(break_glass.who(), safe='')}"
    answer = ask_allocator(path, method="DELETE")
    return Exit.OK, answer, "it is kept for nobody any more"


def _group(name: str) -> str:
    """A group of the policy, which the allocator does not know. Raises: Failed: USAGE: there is no such group."""
    if os.geteuid() == 0 and name not in (
        groups := _policy().groups
    ):  # anybody else is refused by the allocator
        raise Failed(
            Exit.USAGE, f"--group {name}: there is no such group in the policy; {hint(name, groups)}"
        )
    return name


def _uid(user: str) -> int:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        raise Failed(Exit.USAGE, f"--user {user}: there is no such user") from None


def _quarantine(options: argparse.Namespace) -> Shown:
    answer = ask_allocator(
        f"/v1/devices/{_uuid(options.device)}/quarantine",
        {"who": break_glass.who(), "reason": options.reason},
    )
    return Exit.OK, answer, "nobody gets it any more; who holds it is told"


def _unquarantine(options: argparse.Namespace) -> Shown:
    answer = ask_allocator(
        f"/v1/devices/{_uuid(options.device)}/unquarantine",
        {"who": break_glass.who(), "reason": options.reason},
    )
    return Exit.OK, answer, "it is in service again, if the driver has nothing against it"


def _uuid(name: str) -> str:
    devices = look(gpu.INVENTORY)["devices"]
    found = [device["uuid"] for device in devices if name in (device["index"], device["uuid"])]
    if not found:
        raise Failed(Exit.USAGE, f"there is no device {name}; see ds01 gpu")
    return str(found[0])


def _mig_plan(_options: argparse.Namespace) -> Shown:
    answer = ask_allocator(f"{gpu_mig.MIG}/plan", _layouts())
    return Exit.OK, answer, gpu_mig.planned(answer)


def _mig_apply(_options: argparse.Namespace) -> Shown:
    answer = ask_allocator(f"{gpu_mig.MIG}/apply", _layouts(), patience=gpu_mig.APPLYING)
    return gpu_mig.code(answer), answer, gpu_mig.applied(answer)


def _policy() -> Document:
    """What the policy in force says. Raises: Failed: it has mistakes, or cannot be read."""
    try:
        return check((), tree_of()).document
    except PolicyInvalid as error:
        raise Failed(Exit.REFUSED, f"the policy has mistakes: {error.mistakes[0]}") from error


def _layouts() -> dict[str, Any]:
    """Raises: Failed: the policy has mistakes, or says nothing of MIG."""
    return gpu_mig.layouts(_policy().mig, ask_allocator(gpu_mig.MIG)["gpus"])


def _grant(options: argparse.Namespace) -> Shown:
    wish = gpu_access.wish(options.user, hours=options.hours, reason=options.reason, devices=options.devices)
    answer = ask_allocator(gpu_access.PATH, wish)
    return Exit.OK, answer, gpu_access.granted(answer)


def _revoke(options: argparse.Namespace) -> Shown:
    answer = ask_allocator(f"{gpu_access.PATH}/revoke", {"user": options.user})
    return Exit.OK, answer, gpu_access.revoked(answer)


def _grants(_options: argparse.Namespace) -> Shown:
    answer = look(gpu_access.GRANTS)
    return Exit.OK, answer, gpu_access.listed(answer)


def _sessions(options: argparse.Namespace) -> Shown:
    if os.geteuid() != 0:
        raise Failed(Exit.REFUSED, "sessions are root's to close; try: sudo ds01 gpu sessions ...")
    present = user_slices.present()
    if options.open:
        done = gpu_sessions.reopen(present=present)
    else:
        holders = [one["uid"] for one in ask_allocator(gpu_access.PATH)["grants"]]
        done = gpu_sessions.close(gpu_sessions.uids(options.free), present=present, granted=holders)
    return Exit.OK, asdict(done), gpu_sessions.shown(done)
