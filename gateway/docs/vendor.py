"""Copies Swagger UI out of the package flask-swagger-ui, which ships the files of the npm package swagger-ui-dist. The package's build hook runs it.

The copies are in the wheel and in the gateway's image, so that neither needs that package or Flask.
"""

import gzip
import importlib.util
import shutil
import sys
from pathlib import Path

PACKAGE = "flask_swagger_ui"
FILES = ("LICENSE", "VERSION", "favicon-32x32.png", "swagger-ui-bundle.js", "swagger-ui.css")
TARGET = Path(__file__).parent / "swagger_ui"


def vendor(target: Path = TARGET) -> None:
    """Replaces the folder. Beside each text file it writes the file's gzip form. Raises RuntimeError if the package is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # does not import it
    if found is None or found.origin is None:
        raise RuntimeError(f"the package {PACKAGE} is not installed")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in FILES:
        content = Path(found.origin).with_name("dist").joinpath(name).read_bytes()
        target.joinpath(name).write_bytes(content)
        if name.endswith((".js", ".css")):
            target.joinpath(f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


if __name__ == "__main__":
    vendor()
    sys.stdout.write(f"{TARGET} is written\n")
