"""The `ds01` command: parse, call, print. Exit codes are in `cli.outcome`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn

from cli import (
    account,
    adopt,
    break_glass,
    doctor,
    evidence,
    explain,
    gpu_verbs,
    image,
    policy_check,
    share,
)
from cli.outcome import Call, Exit, Failed, Shown
from cli.screen import paint, plain
from cli.server import ask, tell, tree_of
from policy.document import PolicyInvalid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one call. Returns: the exit code."""
    words = sys.argv[1:] if arguments is None else arguments
    try:
        options = _parser().parse_args(words)
    except _Slip as slip:
        return _end(slip.text, Exit.USAGE, as_json="--json" in words, before=slip.usage)
    call: Call = options.call
    try:
        code, answer, text = call(options)
    except Failed as error:
        return _end(str(error), error.code, as_json=options.json)
    except Exception as error:  # noqa: BLE001  the edge: whatever it is, it is ours, and no traceback for the user
        message = f"this is a bug in ds01: {type(error).__name__}; tell the admin"
        return _end(message, Exit.BUG, as_json=options.json)
    try:
        print(json.dumps(answer, indent=2) if options.json else text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough (| head)
    return int(code)


class _Slip(Exception):  # noqa: N818  the name says what happened
    """The arguments cannot be read; with the usage of the verb that could not."""

    def __init__(self, text: str, usage: str) -> None:
        super().__init__(text)
        self.text = text
        self.usage = usage


class _Parser(argparse.ArgumentParser):
    """Leaves it to `main` to say what cannot be read, so that --json holds for it too."""

    def error(self, message: str) -> NoReturn:
        raise _Slip(message, self.format_usage())


def _end(message: str, code: Exit, *, as_json: bool, before: str = "") -> int:
    if as_json:
        print(json.dumps({"message": f"ds01: {message}", "exit": int(code)}))
    else:
        sys.stderr.write(before)
        print(paint(f"ds01: {plain(message)}", "bad", out=sys.stderr), file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ds01", description="Your share of this GPU server.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="print JSON")
    verbs = parser.add_subparsers(required=True, metavar="COMMAND")

    def verb(where: Any, name: str, call: Call, about: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = where.add_parser(
            name, help=about, description=about, parents=[common]
        )
        made.set_defaults(call=call)
        return made

    verb(verbs, "status", _status, "how ds01 is, and which GPUs are free")
    verb(verbs, "whoami", _whoami, "who you are to ds01, your limits and what you use")
    one = verb(verbs, "explain", _explain, "why a request was refused, or how a container was made")
    one.add_argument("subject", metavar="REQUEST-ID|CONTAINER", help="the id stands at the end of a denial")
    _image_verbs(verbs, verb)
    _share_verbs(verbs, verb)
    gpu_verbs.add(verbs, verb)
    policies = verbs.add_parser("policy", help="the policy files").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = verb(policies, "check", _policy_check, "find every mistake in policy files")
    check.add_argument("files", nargs="*", metavar="FILE", help="default: the files in force")
    _adoption_verbs(verbs, verb)
    verb(verbs, "doctor", _doctor, "root only: what on this server is not as ds01 needs it")
    glass = verb(verbs, "break-glass", _break_glass, "root only: use dockerd directly for a while, on record")
    glass.add_argument("--minutes", type=int, help=f"how long, at most {break_glass.MOST_MINUTES}")
    glass.add_argument("--reason", help="what for; goes into the audit log")
    glass.add_argument("--close", action="store_true", help="end it now")
    return parser


def _image_verbs(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """What concerns images."""
    images = verbs.add_parser("image", help="who may see and use your images").add_subparsers(
        required=True, metavar="COMMAND"
    )
    verb(images, "ls", _image_ls, "your images and who may use them, and what others share with you")
    share = verb(images, "share", _image_share, "let others see and use an image of yours")
    unshare = verb(images, "unshare", _image_unshare, "end that, for some or for all")
    for one, default in ((share, "everybody"), (unshare, "whoever it is shared with")):
        one.add_argument("image", metavar="NAME", help="as docker images shows it")
        one.add_argument(
            "--with",
            dest="grantees",
            metavar="WHO",
            action="append",
            default=[],
            help=f"a user, a policy group, or all; may be given again (default: {default})",
        )


def _share_verbs(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """What concerns containers of one's own that others may see or use."""
    granting = verb(verbs, "share", _share, "let others see or use a container of yours for a time")
    granting.add_argument("--list", action="store_true", help="what is shared by you and with you")
    granting.add_argument(
        "--use", action="store_true", help="exec, logs, top and stop too; else only ps, inspect and stats"
    )
    granting.add_argument(
        "--for", dest="time", default="8h", metavar="TIME", help="like 30m, 8h or 7d (default: 8h)"
    )
    ending = verb(verbs, "unshare", _unshare, "end that, for some or for all")
    granting.add_argument("container", metavar="CONTAINER", nargs="?", help="as docker ps shows it")
    ending.add_argument("container", metavar="CONTAINER", help="as docker ps shows it")
    for one in (granting, ending):
        one.add_argument(
            "--with", dest="users", metavar="USER", action="append", default=[], help="may be given again"
        )
        one.add_argument(
            "--group",
            dest="groups",
            metavar="NAME",
            action="append",
            default=[],
            help="a policy group; may be given again",
        )


def _adoption_verbs(verbs: Any, verb: Callable[..., argparse.ArgumentParser]) -> None:
    """What concerns containers that were there before ds01."""
    giving = verb(
        verbs, "adopt", _adopt, "admins only: containers ds01 did not make, or give one to its owner"
    )
    giving.add_argument("container", metavar="CONTAINER", nargs="?", help="without it, all are listed")
    giving.add_argument("--owner", metavar="USER", help="whose it is from now on")
    taking = verb(verbs, "unadopt", _unadopt, "admins only: take it back")
    taking.add_argument("container", metavar="CONTAINER", help="as ds01 adopt shows it")


def _adopt(options: argparse.Namespace) -> Shown:
    if (options.container is None) != (options.owner is None):
        raise Failed(Exit.USAGE, "adopt takes a container and --owner USER, or nothing and lists them")
    if options.container is None:
        answer = ask(adopt.FOREIGN)
        return Exit.OK, answer, adopt.listed(answer)
    answer = tell("containers/adopt", {"container": options.container, "owner": options.owner})
    return Exit.OK, answer, adopt.adopted(answer)


def _unadopt(options: argparse.Namespace) -> Shown:
    answer = tell("containers/unadopt", {"container": options.container})
    return Exit.OK, answer, adopt.unadopted(answer)


def _share(options: argparse.Namespace) -> Shown:
    grantees = share.grantees(options.users, options.groups)
    if options.list:
        if options.container or grantees:
            raise Failed(Exit.USAGE, "share --list takes nothing else")
        answer = ask("containers/shares")
        return Exit.OK, answer, share.listed(answer)
    if not options.container or not grantees:
        raise Failed(Exit.USAGE, "share takes a container and --with USER or --group NAME, or --list alone")
    wish = share.wish(options.container, grantees, use=options.use, time=options.time)
    answer = tell("containers/share", wish)
    return Exit.OK, answer, share.shared(answer, use=options.use)


def _unshare(options: argparse.Namespace) -> Shown:
    grantees = share.grantees(options.users, options.groups)
    answer = tell("containers/unshare", {"container": options.container, "with": grantees})
    return Exit.OK, answer, share.unshared(answer)


def _image_ls(_options: argparse.Namespace) -> Shown:
    answer = ask("images")
    return Exit.OK, answer, image.listed(answer)


def _image_share(options: argparse.Namespace) -> Shown:
    answer = tell("images/share", {"image": options.image, "with": options.grantees})
    return Exit.OK, answer, image.shared(answer)


def _image_unshare(options: argparse.Namespace) -> Shown:
    answer = tell("images/unshare", {"image": options.image, "with": options.grantees})
    return Exit.OK, answer, image.shared(answer)


def _status(_options: argparse.Namespace) -> Shown:
    answer = ask("status")
    return account.status_code(answer), answer, account.status(answer)


def _whoami(_options: argparse.Namespace) -> Shown:
    answer = ask("whoami")
    return Exit.OK, answer, account.whoami(answer)


def _explain(options: argparse.Namespace) -> Shown:
    record = ask(f"explain/{explain.subject(options.subject)}")
    return Exit.OK, record, explain.explain(record)


def _policy_check(options: argparse.Namespace) -> Shown:
    try:
        found = policy_check.summary(policy_check.check(options.files, tree_of()))
    except PolicyInvalid as error:
        lines = "\n".join(plain(mistake) for mistake in error.mistakes)
        return Exit.REFUSED, policy_check.mistakes_as_json(error), lines
    return Exit.OK, found, policy_check.shown(found)


def _doctor(_options: argparse.Namespace) -> Shown:
    if os.geteuid() != 0:
        raise Failed(Exit.REFUSED, "doctor looks at what only root may see; try: sudo ds01 doctor")
    findings = doctor.examine(evidence.gather(tree_of()))
    return doctor.code(findings), doctor.report(findings), doctor.shown(findings)


def _break_glass(options: argparse.Namespace) -> Shown:
    if options.close == (options.minutes is not None or options.reason is not None):
        raise Failed(Exit.USAGE, "break-glass takes --minutes N and --reason TEXT, or --close alone")
    if not options.close and (options.minutes is None or options.reason is None):
        raise Failed(Exit.USAGE, "break-glass needs both --minutes N and --reason TEXT")
    if os.geteuid() != 0:
        raise Failed(Exit.REFUSED, "break-glass is for root; try: sudo ds01 break-glass ...")
    tree, by = tree_of(), break_glass.who()
    if options.close:
        closed = break_glass.close_glass(tree, by=by)
        return Exit.OK, {"closed": closed}, "closed" if closed else "it was not open"
    opened = break_glass.open_glass(tree, minutes=options.minutes, reason=options.reason, by=by)
    return Exit.OK, asdict(opened), break_glass.shown(opened)


if __name__ == "__main__":
    sys.exit(main())
