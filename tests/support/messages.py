"""Messages filled at random, from their descriptors alone: a new kind of event is covered the day it is added."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NANOS = st.one_of(st.just(0), st.integers(0, 999_999_999), st.integers(0, 999).map(lambda ms: ms * 1_000_000))
TIMESTAMPS = st.builds(Timestamp, seconds=st.integers(-62_135_596_800, 253_402_300_799), nanos=NANOS)
DURATIONS = st.builds(
    lambda sign, seconds, nanos: Duration(seconds=sign * seconds, nanos=sign * nanos),
    st.sampled_from([1, -1]), st.integers(0, 315_576_000_000), NANOS,
)  # fmt: skip
VALUES = st.recursive(
    st.one_of(
        st.just(Value(null_value=NULL_VALUE)),
        st.builds(Value, number_value=st.floats(allow_nan=False, allow_infinity=False)),
        st.builds(Value, string_value=TEXT),
        st.builds(Value, bool_value=st.booleans()),
    ),
    lambda inner: st.one_of(
        st.builds(lambda values: Value(list_value=ListValue(values=values)), st.lists(inner, max_size=3)),
        st.builds(lambda fields: Value(struct_value=Struct(fields=fields)), st.dictionaries(TEXT, inner, max_size=3)),
    ),
    max_leaves=6,
)
KNOWN: dict[str, Strategy] = {
    "google.protobuf.Timestamp": TIMESTAMPS,
    "google.protobuf.Duration": DURATIONS,
    "google.protobuf.Value": VALUES,
    "google.protobuf.ListValue": st.builds(lambda values: ListValue(values=values), st.lists(VALUES, max_size=3)),
    "google.protobuf.Struct": st.builds(
        lambda fields: Struct(fields=fields), st.dictionaries(TEXT, VALUES, max_size=3)
    ),
}
SCALARS: dict[int, Strategy] = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_DOUBLE: st.floats(),
    FieldDescriptor.CPPTYPE_FLOAT: st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
}


def messages(descriptor: Descriptor, **chosen: Strategy) -> Strategy:
    """Return a strategy for messages of a type. A field may be given a strategy of its own."""
    if descriptor.full_name in KNOWN:
        return KNOWN[descriptor.full_name]

    @st.composite
    def build(draw: st.DrawFn) -> Message:
        message = GetMessageClass(descriptor)()
        choices = {oneof.name: draw(st.sampled_from(list(oneof.fields))).name for oneof in descriptor.oneofs}
        for field in descriptor.fields:
            oneof = field.containing_oneof
            wanted = field.name in chosen or (choices[oneof.name] == field.name if oneof else draw(st.booleans()))
            if wanted and not (oneof and field.name not in chosen and chosen.keys() & {f.name for f in oneof.fields}):
                _fill(message, field, draw(chosen[field.name] if field.name in chosen else _field(field)))
        return message

    return build()


def _fill(message: Message, field: FieldDescriptor, value: Any) -> None:
    if field.is_repeated:
        getattr(message, field.name).extend(value)
    elif field.message_type:
        getattr(message, field.name).CopyFrom(value)
        getattr(message, field.name).SetInParent()
    else:
        setattr(message, field.name, value)


def _field(field: FieldDescriptor) -> Strategy:
    if field.message_type:
        one = messages(field.message_type)
    elif field.enum_type:
        one = st.sampled_from([value.number for value in field.enum_type.values])
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.binary(max_size=20)
    elif field.type == FieldDescriptor.TYPE_STRING:
        one = TEXT
    else:
        one = SCALARS[field.cpp_type]
    return st.lists(one, max_size=3) if field.is_repeated else one
