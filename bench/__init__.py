# SPDX-License-Identifier: Apache-2.0
"""The benchmark: what a delivery costs, and how it compares with what this machine can do at all."""
