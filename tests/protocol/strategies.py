# SPDX-License-Identifier: Apache-2.0
"""Values of any wire type, made from the type itself: what a field allows is what is tried."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st
from msgspec import inspect as types

from protocol.messages import Content

MESSAGES: tuple[type[Any], ...] = Content.__args__


def of(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type as msgspec sees it."""
    match kind:
        case types.StructType():
            return _struct(kind)
        case types.EnumType():
            return st.sampled_from(list(kind.cls))
        case types.LiteralType():
            return st.sampled_from(kind.values)
        case types.IntType():
            return st.integers(min_value=kind.ge if kind.ge is not None else 0, max_value=kind.le)
        case types.BoolType():
            return st.booleans()
        case types.NoneType():
            return st.none()
        case types.StrType():
            found = re.search(r"\{(\d+)\}", kind.pattern or "")
            assert found is not None, "a text without a pattern in a header"
            return st.text("0123456789abcdef", min_size=int(found[1]), max_size=int(found[1]))
        case types.VarTupleType():
            return st.lists(
                of(kind.item_type), min_size=kind.min_length or 0, max_size=min(kind.max_length or 4, 4)
            ).map(tuple)
        case types.DictType():
            return st.dictionaries(of(kind.key_type), of(kind.value_type), max_size=4)
        case types.UnionType():
            return st.one_of([of(one) for one in kind.types])
    raise AssertionError(f"a type that a header must not have: {kind}")


def _struct(kind: types.StructType) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({field.name: of(field.type) for field in kind.fields}).map(
        lambda values: kind.cls(**values)
    )


def message(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any message of one type."""
    return of(types.type_info(kind))


def any_message() -> st.SearchStrategy[Any]:
    """Any message of any type."""
    return st.sampled_from(MESSAGES).flatmap(message)
