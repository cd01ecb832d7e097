"""A Kubernetes control plane in its own folder and on its own ports: etcd, kube-apiserver and kube-controller-manager. Nothing runs pods."""

import secrets
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.deploy.cluster import kubeconfig as kubeconfig_text
from tests.support.ports import free_ports

START_TIMEOUT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """An HTTP client with all rights, and a kubeconfig with the same rights for programs."""

    api: httpx.Client
    kubeconfig: Path

    def create(self, path: str, **parts: Any) -> None:
        """Creates an object. The path determines its kind."""
        self.api.post(path, json=parts).raise_for_status()


@contextmanager
def control_plane(programs: Path, folder: Path) -> Iterator[ControlPlane]:
    """Starts the three processes, and stops them at the end."""
    etcd, peer, port = free_ports(3)
    token, key = secrets.token_hex(), folder / "service-accounts.key"
    key.write_bytes(_private_key())
    (folder / "tokens.csv").write_text(f"{token},tests,tests,system:masters\n")
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(kubeconfig_text(f"https://127.0.0.1:{port}", token))
    options: dict[str, dict[str, object]] = {
        "etcd": {
            "data-dir": folder / "etcd",
            "listen-client-urls": f"http://127.0.0.1:{etcd}",
            "advertise-client-urls": f"http://127.0.0.1:{etcd}",
            "listen-peer-urls": f"http://127.0.0.1:{peer}",
            "unsafe-no-fsync": "true",
        },
        "kube-apiserver": {
            "etcd-servers": f"http://127.0.0.1:{etcd}",
            "bind-address": "127.0.0.1",
            "secure-port": port,
            "cert-dir": folder / "certificates",
            "token-auth-file": folder / "tokens.csv",
            "authorization-mode": "RBAC",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-signing-key-file": key,
            "service-account-key-file": key,
            "service-cluster-ip-range": "10.96.0.0/16",
        },
        "kube-controller-manager": {
            "kubeconfig": kubeconfig,
            "secure-port": 0,
            "leader-elect": "false",
            "service-account-private-key-file": key,
            "root-ca-file": folder / "certificates" / "apiserver.crt",
        },
    }
    with ExitStack() as stack:
        # verify=False: the server has a self-signed certificate and listens only on this machine.
        api = stack.enter_context(
            httpx.Client(base_url=f"https://127.0.0.1:{port}", headers={"authorization": f"Bearer {token}"}, verify=False, timeout=30)
        )
        for name in ("etcd", "kube-apiserver"):
            stack.enter_context(_running(programs / name, options[name], folder / f"{name}.log"))
        _wait_ready(api, folder / "kube-apiserver.log")
        stack.enter_context(_running(programs / "kube-controller-manager", options["kube-controller-manager"], folder / "controllers.log"))
        yield ControlPlane(api, kubeconfig)


@contextmanager
def _running(program: Path, options: Mapping[str, object], log: Path) -> Iterator[None]:
    arguments = [f"--{name}={value}" for name, value in options.items()]
    with log.open("wb") as output, subprocess.Popen([program, *arguments], stdout=output, stderr=output) as process:
        try:
            yield
        finally:
            # kill, because its data is not needed any more.
            process.kill()


def _wait_ready(api: httpx.Client, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < end:
        with suppress(httpx.TransportError):  # the server does not listen yet
            if api.get("/readyz").is_success:
                return
        time.sleep(0.3)
    raise AssertionError(f"the API server is not ready:\n{log.read_text()[-3000:]}")


def _private_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
