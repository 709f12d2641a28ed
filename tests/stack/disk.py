"""A small disk of its own under a folder, which a test fills up or makes read-only.

Mounting wants root. Others are root in namespaces of their own, where the machine lets them (`as_mounter`), or have sudo that asks nothing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

MIB = 2**20


class SmallDisk:
    """`folder` lies on a disk of so many MiB, in memory, until this is closed."""

    def __init__(self, folder: Path, mib: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._ballast = folder / ".ballast"
        _as_root("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=0777", "tmpfs", str(folder))

    def __enter__(self) -> SmallDisk:
        return self

    def __exit__(self, *_: object) -> None:
        # Lazily: whoever has a file open keeps it, and the disk goes with the last of them.
        _as_root("umount", "-l", str(self.folder))

    def free_bytes(self) -> int:
        room = os.statvfs(self.folder)
        return room.f_bavail * room.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Takes all room but so many bytes."""
        with self._ballast.open("ab", buffering=0) as ballast, contextlib.suppress(OSError):
            while (left := self.free_bytes() - leave) > 0:
                ballast.write(bytes(min(left, MIB)))
        assert self.free_bytes() <= leave

    def empty(self) -> None:
        self._ballast.unlink(missing_ok=True)

    def read_only(self, seconds: float = 20) -> None:
        """From here on nothing can be written. Waits until nobody has a file open for writing."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                return self._remount("ro")
            except RuntimeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def writable(self) -> None:
        self._remount("rw")

    def _remount(self, how: str) -> None:
        # With the source named, too, no option of before is repeated: the owner's number is another one in a user's namespace.
        _as_root("mount", "-o", f"remount,{how}", "tmpfs", str(self.folder))


def as_mounter() -> list[str]:
    """What a command begins with that is to mount disks: a user who is not root is, for that command and those it starts alone."""
    namespaces = ["unshare", "--map-root-user", "--mount", "--"]
    if os.geteuid() == 0 or not shutil.which(namespaces[0]):
        return []
    allowed = subprocess.run([*namespaces, "true"], stderr=subprocess.DEVNULL).returncode == 0
    return namespaces if allowed else []


def _as_root(*command: str) -> None:
    ask = () if os.geteuid() == 0 else ("sudo", "-n")
    if ask and not shutil.which(ask[0]):
        raise RuntimeError("a small disk wants root, sudo that asks nothing, or a machine where `unshare --map-root-user --mount` may be run")
    done = subprocess.run([*ask, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join([*ask, *command])}: {done.stderr.strip()}")
