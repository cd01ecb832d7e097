"""Does the same as `python -m devstack up --ephemeral|--data-dir`, with stand-ins instead of the services and Envoy. Takes its arguments as JSON."""

import asyncio
import json
import sys
from pathlib import Path

from devstack.cli import foreground
from devstack.config import StackConfig

given = json.loads(sys.argv[1])
config = StackConfig(
    data_dir=given["data_dir"] and Path(given["data_dir"]),
    state_file=Path(given["state_file"]),
    commands=given["commands"],
    environment=given["environment"],
)
sys.exit(asyncio.run(foreground(config)))
