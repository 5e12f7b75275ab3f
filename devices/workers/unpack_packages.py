"""Unpack Python packages that were pushed as one zip file: `unpack_packages.py FOLDER [FILE.zip]`.

The folder is there whole or not at all. The answer is one line: {"ok":"unpack","there":true}, with false where the
folder is not there and no file was named, or {"error":KIND,"message":TEXT}.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile


def unpack(archive: str, folder: str) -> None:
    """Make the folder of an archive, unless it is there."""
    if os.path.isdir(folder):
        return
    partial = f"{folder}.{os.getpid()}.part"
    try:
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(partial)
        os.rename(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


if __name__ == "__main__":
    try:
        if len(sys.argv) > 2:
            unpack(sys.argv[2], sys.argv[1])
    except (OSError, zipfile.BadZipFile) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        sys.exit(1)
    print(json.dumps({"ok": "unpack", "there": os.path.isdir(sys.argv[1])}), flush=True)
