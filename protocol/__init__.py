# SPDX-License-Identifier: Apache-2.0
"""The protocol: what may be sent, to whom, what follows, and how it is sealed.

Pure values and functions. Nothing here reads a clock, a disk or a network, writes a log, or knows which of
the two sides of an exchange it is running on. `README.md` beside this file is the specification.
"""
