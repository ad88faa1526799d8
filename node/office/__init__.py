# SPDX-License-Identifier: Apache-2.0
"""The agency's own: staff, desks and their keys, sign-in, the audit trail, tasks. Knows no peer, no case's content."""
