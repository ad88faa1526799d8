# SPDX-License-Identifier: Apache-2.0
"""The `staffetta` command. Imports what is heavy only when a command needs it."""
