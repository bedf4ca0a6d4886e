#!/bin/sh
# Makes .venv as uv.lock says, with an installed uv or one from the package index. Needs Python 3.11 or newer.
set -eu
cd "$(dirname "$0")"

python=
for candidate in "${PYTHON:-}" python3 python3.14 python3.13 python3.12 python3.11; do
    if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "bootstrap: Python 3.11 or newer is needed and was not found; install it, or name one: PYTHON=/path/to/python3 make ..." >&2
    exit 4
fi

# Python itself is never downloaded, and modules are compiled once here instead of at each start.
export UV_PYTHON_DOWNLOADS=never UV_COMPILE_BYTECODE=true UV_LINK_MODE=copy
if uv=$(command -v uv); then
    :
else
    version=$(sed -n '/^name = "uv"$/{n;s/version = "\(.*\)"/\1/p;}' uv.lock)
    if [ ! -x .venv/bin/uv ]; then
        echo "bootstrap: making .venv" >&2
        "$python" -m venv .venv || {
            echo "bootstrap: Python's venv module does not work; on Debian and Ubuntu: apt install python3-venv" >&2
            exit 4
        }
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$version" || {
            echo "bootstrap: uv $version could not be installed (see above); is the package index reachable? A retry may help." >&2
            exit 4
        }
    fi
    uv=.venv/bin/uv
fi
"$uv" sync --frozen --quiet --python "$python" || {
    echo "bootstrap: the packages of uv.lock could not be installed (see above); a retry may help." >&2
    exit 4
}
ln -sf ../../canary_service/cli/canary .venv/bin/canary
touch .venv/complete
