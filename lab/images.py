"""One small image made on the spot, for machines without a registry: busybox."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from lab import unix_http

if TYPE_CHECKING:
    from pathlib import Path

NAME = "busybox:latest"
_API = "/v1.41"
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}
_DIRECTORIES = {"bin": 0o755, "etc": 0o755, "home": 0o755, "root": 0o700, "tmp": 0o1777}


class ImageRefused(Exception):  # noqa: N818  the engine's or ds01's word
    """busybox could not be imported."""


def ensure_busybox(engine: Path) -> None:
    """Import busybox through the socket `engine`, unless it is there. Raises: ImageRefused, OSError."""
    if unix_http.call(engine, "GET", f"{_API}/images/{NAME}/json").status == 200:
        return
    query = urlencode({"fromSrc": "-", "repo": "busybox", "tag": "latest", "changes": 'CMD ["sh"]'})
    target = f"{_API}/images/create?{query}"
    reply = unix_http.call(
        engine, "POST", target, busybox_tar(), media_type="application/x-tar", timeout_seconds=120
    )
    if reply.status != 200 or b'"error"' in reply.body:
        raise ImageRefused(f"importing {NAME}: {reply.body.decode(errors='replace').strip()}")


def busybox_tar() -> bytes:
    """A root file system of busybox and a link per applet. Raises: FileNotFoundError: busybox is not installed."""
    program = shutil.which("busybox")
    if program is None:
        raise FileNotFoundError("busybox is not installed; apt-get install busybox-static")
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in _DIRECTORIES.items():
            tar.addfile(_entry(name, tarfile.DIRTYPE, mode=mode))
        for name, content in _FILES.items():
            tar.addfile(_entry(name, tarfile.REGTYPE, mode=0o644, size=len(content)), io.BytesIO(content))
        with open(program, "rb") as file:
            info = tar.gettarinfo(arcname="bin/busybox", fileobj=file)
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            tar.addfile(info, file)
        for applet in applets:
            if applet != "busybox":
                tar.addfile(_entry(f"bin/{applet}", tarfile.SYMTYPE, mode=0o777, target="busybox"))
    return buffer.getvalue()


def _entry(name: str, kind: bytes, *, mode: int, size: int = 0, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.linkname = kind, mode, size, target
    return info
