#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install Staffetta into an environment of its own: install.sh SOURCE TARGET [PYTHON]
# SOURCE is a checkout or an unpacked release; TARGET is made, for example /opt/staffetta. Every package is checked against
# its hash in deploy/requirements.lock; nothing else is fetched. Run again to upgrade. Used by the guide, the image and the tests.
set -eu

if [ $# -lt 2 ]; then
    echo 'Usage: install.sh SOURCE TARGET [PYTHON]' >&2
    exit 2
fi
source=$1
target=$2
python=${3:-python3}

if [ ! -f "$source/deploy/requirements.lock" ] || [ ! -f "$source/pyproject.toml" ]; then
    echo "install.sh: $source is not a Staffetta checkout. Give the folder that holds pyproject.toml." >&2
    exit 1
fi
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "install.sh: $python is older than 3.11. Install a newer one and name it as the third argument." >&2
    exit 1
fi

wheels=$(mktemp -d)
trap 'rm -rf "$wheels"' EXIT
[ -x "$target/bin/python" ] || "$python" -m venv "$target"
pip="$target/bin/python -m pip --disable-pip-version-check --no-cache-dir --quiet"
$pip install --require-hashes --requirement "$source/deploy/requirements.lock"
# The wheel is built from the source by the builder that the lock names, in this environment.
$pip wheel --no-deps --no-build-isolation --wheel-dir "$wheels" "$source"
$pip install --no-deps --force-reinstall "$wheels"/staffetta-*.whl
"$target/bin/staffetta" --version
