# SPDX-License-Identifier: Apache-2.0
"""`python -m node` is the `staffetta` command."""

from node.cli import main

main()
