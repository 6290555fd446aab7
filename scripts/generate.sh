#!/bin/sh
# Generates the code of the contract.   generate.sh BIN OUT
set -eu
mkdir -p "$2"
PATH="$1:$PATH"
services="protos/runwire/v1/engine.proto protos/runwire/operations/v1/operations.proto"
# shellcheck disable=SC2046,SC2086  # paths of ours have no spaces
python -m grpc_tools.protoc --proto_path=protos --python_out="$2" --mypy_out=quiet:"$2" $(find protos/runwire -name '*.proto')
# shellcheck disable=SC2086
python -m grpc_tools.protoc --proto_path=protos --grpc_python_out="$2" --mypy_grpc_out=quiet:"$2" $services
