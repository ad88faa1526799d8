# SPDX-License-Identifier: Apache-2.0
"""SQL, files and wrapped keys. Nothing here decides anything, and nothing here speaks HTTP."""
