#!/bin/sh
# Generates the code of the contract.   generate.sh BIN OUT
set -eu
mkdir -p "$2"
PATH="$1:$PATH"
python -m grpc_tools.protoc --proto_path=protos --python_out="$2" --mypy_out=quiet:"$2" protos/runwire/v1/*.proto
python -m grpc_tools.protoc --proto_path=protos --grpc_python_out="$2" --mypy_grpc_out=quiet:"$2" protos/runwire/v1/engine.proto
