# SPDX-License-Identifier: Apache-2.0
"""What is read to a person before she decides: versioned, because a consent says which text it was given on."""

from typing import Final

#: Changes whenever a text of the consent page changes its meaning.
NOTICE_VERSION: Final = "2026-11"
