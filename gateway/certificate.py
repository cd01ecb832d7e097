"""Writes the file by which Envoy reads the certificate again when it changes, as a mounted Secret of Kubernetes does when it is rotated.

Envoy reads the files of a certificate that stands in its configuration only once. It watches those of a certificate that comes from a secret
discovery service (SDS), which a file can be.
"""

import json
import tempfile
from pathlib import Path

from gateway.settings import GatewaySettings

SECRET = "gateway"  # noqa: S105 - the name by which the listener refers to the certificate


def secret_file(settings: GatewaySettings) -> Path:
    """Returns the path that the configuration names. The port is in the name, because several gateways of one machine may share the folder."""
    return Path(tempfile.gettempdir(), f"envoy-certificate-{settings.tls_port}.json")


def write_secret_file(settings: GatewaySettings) -> None:
    """Writes the file if the gateway serves TLS. Raises OSError, also if the certificate or its key cannot be read: Envoy would wait for them."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return
    for needed in (settings.tls_cert_file, settings.tls_key_file):
        needed.read_bytes()
    file = secret_file(settings)
    file.unlink(missing_ok=True)
    certificate = {
        "certificate_chain": {"filename": str(settings.tls_cert_file)},
        "private_key": {"filename": str(settings.tls_key_file)},
        # Kubernetes replaces a symbolic link in the folder, not the files.
        "watched_directory": {"path": str(settings.tls_cert_file.parent)},
    }
    secret = {"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": SECRET, "tls_certificate": certificate}
    with file.open("x", encoding="utf-8") as output:  # mode x never follows a symbolic link that another user created
        json.dump({"resources": [secret]}, output)
