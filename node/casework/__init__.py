# SPDX-License-Identifier: Apache-2.0
"""Cases, consents, referrals, follow-ups: one function is one decision, one transaction, one audit entry."""
