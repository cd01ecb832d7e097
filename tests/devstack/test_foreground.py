"""A supervisor in the foreground, from outside: signals, exit status, messages, and that nothing stays behind."""

import os
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# pytest puts this file's directory on the path of its conftest only; the helpers come as fixtures' types and by plugin.
from conftest import Supervisor, all_gone, pids, until
