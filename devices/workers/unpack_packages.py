"""Unpack Python packages that were pushed as one zip file: `unpack_packages.py FILE.zip FOLDER`.

The folder is there whole or not at all. The answer is one line, {"ok":"unpack"} or {"error":KIND,"message":TEXT}.
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
        unpack(*sys.argv[1:3])
    except (OSError, zipfile.BadZipFile) as error:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}), flush=True)
        sys.exit(1)
    print(json.dumps({"ok": "unpack"}), flush=True)
