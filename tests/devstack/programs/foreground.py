"""What `python -m devstack up --ephemeral|--data-dir` does, with stand-ins instead of services and Envoy; the arguments are JSON."""

import asyncio
import json
import sys
from pathlib import Path

from devstack.cli import foreground
from devstack.config import StackConfig

given = json.loads(sys.argv[1])
paths = {name: Path(given[name]) for name in ("data_dir", "state_file") if given.get(name)}
sys.exit(asyncio.run(foreground(StackConfig(commands=given["commands"], environment=given["environment"], **paths))))
