"""Writes gen/ from proto/: Python messages and stubs, their type hints, and the descriptor set that the gateway and the linters read.

`make proto` and the package's build hook run it, so an install always matches proto/. It must not need a schema registry: Google's files come with
googleapis-common-protos and grpcio-tools, and buf/validate comes from protovalidate.
"""

import importlib.resources
import shutil
import sys
import tempfile
from pathlib import Path

import google.api
from google.protobuf import descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2
from grpc_tools import protoc
from protovalidate._gen.buf.validate.validate_pb import desc as validate_desc

ROOT = Path(__file__).resolve().parent.parent
VALIDATE = "buf/validate/validate.proto"


def generate(root: Path = ROOT) -> None:
    """Replaces root/gen. Raises RuntimeError with protoc's exit status if a proto file is invalid."""
    source, target = root / "proto", root / "gen"
    files = sorted(str(path.relative_to(source)) for path in source.rglob("*.proto"))
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    with tempfile.TemporaryDirectory() as scratch:
        validate = Path(scratch, "validate.binpb")
        validate.write_bytes(_validate_descriptors().SerializeToString())
        includes = [
            f"--descriptor_set_in={validate}",
            f"-I{source}",
            f"-I{_common_protos()}",
            f"-I{importlib.resources.files('grpc_tools') / '_proto'}",
        ]
        _protoc(*includes, f"--python_out={target}", f"--pyi_out={target}", *files, VALIDATE)
        _protoc(*includes, f"--grpc_python_out={target}", *files)
        # error_details: the gateway transcodes the details of an error to JSON only if their types are in the set.
        described = [*files, "google/rpc/error_details.proto"]
        _protoc(*includes, "--include_imports", "--include_source_info", f"-o{target / 'descriptors.binpb'}", *described)


def _validate_descriptors() -> descriptor_pb2.FileDescriptorSet:
    """Returns the descriptors of buf/validate/validate.proto, which no package ships as a file, and of its imports."""
    descriptors = descriptor_pb2.FileDescriptorSet()
    for module in (descriptor_pb2, duration_pb2, timestamp_pb2, field_mask_pb2):
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    descriptors.file.add().ParseFromString(validate_desc().proto.to_binary())
    return descriptors


def _common_protos() -> Path:
    """Returns the folder with google/api/*.proto and google/rpc/*.proto. google is a namespace package, so google.api gives the path."""
    return Path(next(iter(google.api.__path__))).parent.parent


def _protoc(*arguments: str) -> None:
    status = protoc.main(["protoc", *arguments])
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")


if __name__ == "__main__":
    generate()
    sys.stdout.write("gen/ is written\n")
