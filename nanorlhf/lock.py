"""One run at a time in a folder: a lock that the system lets go of when its holder ends or is
killed."""
import os

from nanorlhf import InputError

try:
    import fcntl
except ImportError:         # Windows
    fcntl = None
    import msvcrt


def hold(folder):
    """-> an open file; the folder is held until it is closed. InputError where another run has it.

    Each call opens the file anew, so two threads of one process keep each other out as well.
    """
    path = os.path.join(folder, "lock")
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(path, "a")
    except OSError as e:
        raise InputError(f"could not write {path}: {e.strerror or e}") from None
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        file.close()
        raise InputError(f"another run is at work in {folder}; wait for it, stop it, or give "
                         "this one another --out or --run") from None
    return file
