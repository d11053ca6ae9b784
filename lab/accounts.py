"""Accounts of a lab's users: made when missing, and taken away again only if the lab made them."""

from __future__ import annotations

import contextlib
import pwd
import subprocess
from pathlib import Path

from lab.tree import LabTree


class AccountRefused(Exception):  # noqa: N818  useradd's word
    """An account could not be made."""


def ensure(tree: LabTree, names: tuple[str, ...]) -> None:
    """Make each missing account and put its home on a mount that gives no setuid program and no device any power.

    The record is written before the account exists: a crash in between leaves a name too many, never an account.
    Raises: AccountRefused.
    """
    for name in names:
        if _known(name) is None:
            if Path("/home", name).exists():
                raise AccountRefused(
                    f"/home/{name} exists without an account; remove it or choose another name"
                )
            _record(tree, {*created(tree), name})
            _run("useradd", "--create-home", "--shell", "/bin/bash", name)
        if name in created(tree):
            _harden_home(name)


def remove(tree: LabTree) -> tuple[str, ...]:
    """Delete the accounts this lab made, homes included. Returns: names that could not be deleted.

    An account that another lab uses now becomes that lab's to delete.
    """
    failed: list[str] = []
    for name in sorted(created(tree)):
        account = _known(name)
        if account is None or _handed_on(tree, name):
            continue
        _soften_home(account.pw_dir)
        done = subprocess.run(["userdel", "--remove", name], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 12) or _known(name) is not None:  # 12: no mail spool to remove
            failed.append(name)
    _record(tree, set(failed))
    return tuple(failed)


def claim(tree: LabTree, names: tuple[str, ...]) -> None:
    """Say for other labs which accounts this one uses while it is up."""
    tree.claim.write_text("\n".join((str(tree.root), *names)))


def _handed_on(tree: LabTree, name: str) -> bool:
    for path in Path("/run").glob("ds01-lab-*/claim"):
        root, *names = path.read_text().splitlines()
        if path != tree.claim and name in names:
            other = LabTree.at(Path(root))
            _record(other, {*created(other), name})
            return True
    return False


def created(tree: LabTree) -> frozenset[str]:
    """The accounts this lab made."""
    try:
        return frozenset(tree.created_accounts.read_text().split())
    except FileNotFoundError:
        return frozenset()


def _record(tree: LabTree, names: set[str]) -> None:
    if names:
        tree.created_accounts.write_text("".join(f"{name}\n" for name in sorted(names)))
    else:
        tree.created_accounts.unlink(missing_ok=True)


def _harden_home(name: str) -> None:
    """SECURITY: what root in a container writes into a bound home must not be root on the host (nosuid, nodev)."""
    home = pwd.getpwnam(name).pw_dir
    if not _is_mount(home):
        _run("mount", "--bind", home, home)
        _run("mount", "-o", "remount,bind,nosuid,nodev", home)


def _soften_home(home: str) -> None:
    while _is_mount(home):
        if subprocess.run(["umount", "--lazy", home], capture_output=True, check=False).returncode:
            return


def _is_mount(path: str) -> bool:
    """A bind mount of a directory on itself is none to os.path.ismount."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[4] == path for line in mounts)


def _known(name: str) -> pwd.struct_passwd | None:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name)
    return None


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AccountRefused(f"{' '.join(command)}: {done.stderr.strip()}")
