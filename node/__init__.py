# SPDX-License-Identifier: Apache-2.0
"""The house around `protocol/`: people, time, disk and network. It makes no rule about what may be shared."""
