# SPDX-License-Identifier: Apache-2.0
"""HTTP: the staff JSON API and the endpoints for peers. Knows requests and status codes; no SQL, no key material."""
