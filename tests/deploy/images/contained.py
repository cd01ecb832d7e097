"""Runs a container like a program (`contained.py FOLDER container-lab run …`): forwards signals to it and returns its exit status.

container-lab is a shell script: a signal would end the script but not the container.
"""

import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

STARTS_WITHIN_SECONDS = 10.0


def main(folder: Path, lab: str, verb: str, *rest: str) -> int:
    id_file = folder / f"{uuid.uuid4().hex}.cid"
    # A new session, so that a signal to this process group reaches the container only through this process.
    process = subprocess.Popen([lab, verb, "--cidfile", str(id_file), *rest], start_new_session=True)

    def pass_on(number: int, _: object) -> None:
        until = time.monotonic() + STARTS_WITHIN_SECONDS
        while time.monotonic() < until and process.poll() is None:
            container = id_file.read_text() if id_file.exists() else ""
            if container and not subprocess.run(["podman", "kill", "--signal", str(number), container], capture_output=True, check=False).returncode:
                return
            time.sleep(0.05)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, pass_on)
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
