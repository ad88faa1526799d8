# SPDX-License-Identifier: Apache-2.0
"""One pair of real nodes for all tests of a module; they take a few seconds to set up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.federation.nodes import RealNode, make_pair


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RealNode, RealNode]]:
    nodes = make_pair(tmp_path_factory.mktemp("pair"))
    yield nodes
    for node in nodes:
        node.stop()
        node.log.close()
