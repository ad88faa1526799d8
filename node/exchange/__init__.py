# SPDX-License-Identifier: Apache-2.0
"""Mail between nodes: outbox, inbox, peers, delivery. Sees envelopes and headers, never personal data."""
