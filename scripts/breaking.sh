#!/bin/sh
# Checks that the contract breaks nobody who uses it as it is at a commit.   breaking.sh COMMIT
set -eu
if git cat-file -e "$1:buf.yaml" 2>/dev/null; then
    before=$(mktemp -d)
    trap 'rm -rf "$before"' EXIT
    git archive "$1" buf.yaml protos | tar -x -C "$before"
    buf breaking --against "$before"
fi
