#!/bin/sh
# Names a Python that this project takes: the newest that is here, or with `oldest` that one. What is named may not be
# there (a version manager has names for what isn't), may be a pre-release, or without its lock: it has to run, and say.
versions="3.14 3.13 3.12 3.11"
[ "$1" = oldest ] && versions="3.11 3.12 3.13 3.14"
for version in $versions; do
    for python in $(command -v "python$version") "$(pyenv root 2>/dev/null)"/versions/"$version".*/bin/python"$version"; do
        "$python" -c '
import sys, sysconfig, venv
sys.exit(sys.version_info.releaselevel != "final" or bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
' 2>/dev/null && echo "$python" && exit
    done
done
command -v python3
