"""Writing: reasons why a path cannot be written, in words, and locks of what is being written."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_transfer.console import is_main_process, warn
from ssl_transfer.errors import OutputError

KEPT = "What was finished before is kept; the same command continues once it can write."
FULL = {  # of a write, whatever the path
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file would exceed the limit for file sizes",
    errno.EROFS: "the file system is read-only",
}
REFUSED = {  # also of a read: they count if the path is the one that is written
    errno.EACCES: "no permission to write there",
    errno.EPERM: "no permission to write there",
    errno.ENOENT: "nothing can be created there",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "a part of the path is a file",
    errno.EISDIR: "this is a folder",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
    errno.EINVAL: "the file system refuses the name",
}
TEXTS = {  # of libraries that do not pass on the error of the system
    "no space left on device": FULL[errno.ENOSPC],
    "os error 28": FULL[errno.ENOSPC],
    "disk quota exceeded": FULL[errno.EDQUOT],
    "file too large": FULL[errno.EFBIG],
    "os error 27": FULL[errno.EFBIG],
    "read-only file system": FULL[errno.EROFS],
    "unexpected pos": FULL[errno.ENOSPC],  # torch.save
    "file write failed": FULL[errno.ENOSPC],
}
UNLOCKABLE = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL)  # file systems without locks


def write_failure(error: BaseException, path: Path | None = None) -> str:
    """Why a write failed, in words; empty if the error is something else.

    Args:
        error: The error, with those that it came from.
        path: The path that was written; None: only errors count that no read can raise.
    """
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        if isinstance(error, OSError):
            if error.errno in FULL:
                return FULL[error.errno]
            if path is not None and error.errno in REFUSED and _concerns(error.filename, path):
                return REFUSED[error.errno]
        text = str(error).lower()
        for part, reason in TEXTS.items():
            if part in text:
                return reason
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return ""


def _concerns(name: object, path: Path) -> bool:
    """Whether an error is about a path: the path itself, its temporary name, a folder above it, or a file below it."""
    if not isinstance(name, (str, bytes, os.PathLike)):
        return False
    found, path = Path(os.path.abspath(os.fsdecode(name))), Path(os.path.abspath(path))
    beside = found.parent == path.parent and found.name.startswith(f".{path.name}.")
    return beside or found == path or found in path.parents or path in found.parents


@contextmanager
def writes(path: str | os.PathLike, kept: str = KEPT) -> Iterator[None]:
    """Report a write that fails within the block as one sentence.

    Args:
        path: The file or folder that is written.
        kept: What is kept and how to continue.

    Raises:
        OutputError: If the disk is full, or the path cannot be written.
    """
    try:
        yield
    except OutputError:
        raise
    except Exception as error:
        if not (reason := write_failure(error, Path(path))):
            raise
        raise OutputError(f"{path}: cannot be written: {reason}. {kept}") from error


@contextmanager
def locked(folder: Path, *, inside: bool = False, option: str = "--out") -> Iterator[None]:
    """Hold the lock of a folder that is being written; the lock file is removed in the end.

    The operating system releases the lock when the process ends in any way, so that locks are never stale. In a distributed
    launch, the first rank holds it.

    Args:
        folder: The folder.
        inside: Whether the lock file is in the folder (of runs that are continued) or beside it (of folders that are renamed).
        option: Command-line option that names the folder, for the message.

    Raises:
        OutputError: If another process holds the lock, or the folder cannot be written.
    """
    if not is_main_process():
        yield
        return
    path = folder / ".lock" if inside else folder.absolute().parent / f".{folder.absolute().name}.lock"
    absent = [above for above in path.parents if not above.exists()]  # innermost first
    with writes(folder, "Nothing was computed. Give another " + option + "."):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _acquired(path)
    if descriptor is None:
        raise OutputError(
            f"{folder}: another process is writing it{_holder(path)}. Wait until it has ended, or give another {option}."
        )
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        with suppress(OSError):  # unless something was written
            for above in absent:
                above.rmdir()


def _acquired(path: Path) -> int | None:
    """Lock a file and return its descriptor; None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError as error:
            if error.errno not in UNLOCKABLE:
                os.close(descriptor)
                raise
            warn(f"{path.parent}: its file system has no locks; do not start the same command twice.")
            return descriptor
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                os.truncate(descriptor, 0)
                os.write(descriptor, str(os.getpid()).encode())
                return descriptor
        except FileNotFoundError:  # removed by its former holder between the two calls
            pass
        except OSError:
            path.unlink()
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(path: Path) -> str:
    with suppress(OSError, ValueError):
        return f" (process {int(path.read_text())})"
    return ""
