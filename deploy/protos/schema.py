# SPDX-License-Identifier: Apache-2.0
"""The declarations of the .proto files, and how each field is read from and written to its C structure."""

import sys

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from names import NAMES, REFUSE_UNKNOWN, SERVICES_BY_HAND, SHARED_ONEOFS, c_type, case_name, swift_name, swift_type

# The Swift type of each scalar, and its zero.
SCALARS = {
    Field.TYPE_DOUBLE: ("Double", "0"),
    Field.TYPE_FLOAT: ("Float", "0"),
    Field.TYPE_INT64: ("Int64", "0"),
    Field.TYPE_SINT64: ("Int64", "0"),
    Field.TYPE_SFIXED64: ("Int64", "0"),
    Field.TYPE_UINT64: ("UInt64", "0"),
    Field.TYPE_FIXED64: ("UInt64", "0"),
    Field.TYPE_INT32: ("Int32", "0"),
    Field.TYPE_SINT32: ("Int32", "0"),
    Field.TYPE_SFIXED32: ("Int32", "0"),
    Field.TYPE_UINT32: ("UInt32", "0"),
    Field.TYPE_FIXED32: ("UInt32", "0"),
    Field.TYPE_BOOL: ("Bool", "false"),
    Field.TYPE_STRING: ("String", '""'),
    Field.TYPE_BYTES: ("[UInt8]", "[]"),
}


def refuse(name, why):
    """Ends the program: the .proto files or a table contain something that cannot be generated."""
    sys.exit(f"generate-protos: {name}: {why}")


class Schema:
    """All files of a request: their messages, enums and comments by full name."""

    # Where the declarations inside each kind of descriptor are, and the numbers of these fields.
    INSIDE = {
        "FileDescriptorProto": [("message_type", 4), ("enum_type", 5), ("service", 6)],
        "DescriptorProto": [("field", 2), ("nested_type", 3), ("enum_type", 4), ("oneof_decl", 8)],
        "EnumDescriptorProto": [("value", 2)],
        "ServiceDescriptorProto": [("method", 2)],
    }

    def __init__(self, request):
        self.messages, self.enums, self.comments = {}, {}, {}
        known = set()
        for file in request.proto_file:
            if file.syntax != "proto3":
                refuse(file.name, "only proto3 is supported")
            places = {}
            self._declare(file, (), file.package, places)
            known.update(places.values())
            for location in file.source_code_info.location:
                name = places.get(tuple(location.path))
                if name and location.leading_comments:
                    paragraphs = location.leading_comments.strip().split("\n\n")
                    self.comments[name] = [" ".join(paragraph.split()) for paragraph in paragraphs]
        shared = {name for _, oneofs in SHARED_ONEOFS.values() for name in oneofs}
        for name in sorted((set(NAMES) | REFUSE_UNKNOWN | shared | SERVICES_BY_HAND) - known):
            refuse(name, "deploy/protos/names.py has an entry for it, and no .proto file declares it")

    def _declare(self, parent, path, name, places):
        """Notes the names of everything declared inside a file, message, enum or service."""
        for attribute, number in self.INSIDE.get(parent.DESCRIPTOR.name, []):
            for index, child in enumerate(getattr(parent, attribute)):
                child_path, child_name = (*path, number, index), f"{name}.{child.name}"
                places[child_path] = child_name
                if attribute in ("message_type", "nested_type"):
                    self.messages[child_name] = child
                elif attribute == "enum_type":
                    self.enums[child_name] = child
                self._declare(child, child_path, child_name, places)

    def comment(self, name):
        """The comment above a declaration, as paragraphs."""
        return self.comments.get(name) or refuse(name, "it has no comment; write what it means above it")

    def type_name(self, full_name):
        """The Swift name of a message or enum: inside its message's where it is declared in one."""
        outer, _, own = full_name.rpartition(".")
        if outer not in self.messages or full_name in NAMES:
            return NAMES.get(full_name) or swift_type(own)
        return self.type_name(outer) + ("" if self.is_map_entry(full_name) else ".") + swift_type(own)

    def is_map_entry(self, full_name):
        return full_name in self.messages and self.messages[full_name].options.map_entry

    def refused_fields(self, enum):
        """The fields, by Swift name, that refuse unknown numbers of the enum although others accept them."""
        return [
            f"{self.type_name(name)}.{swift_name(f'{name}.{field.name}', field.name)}"
            for name, message in self.messages.items()
            for field in message.field
            if field.type_name == f".{enum}" and f"{name}.{field.name}" in REFUSE_UNKNOWN
        ]


class Property:
    """A field of a message: its Swift name and type, and the expressions that read and write it."""

    def __init__(self, schema, message, field):
        self.schema, self.field, self.full_name = schema, field, f"{message}.{field.name}"
        self.name = swift_name(self.full_name, field.name)
        self.type_full_name = field.type_name[1:]
        self.is_list = field.label == Field.LABEL_REPEATED
        self.is_message = field.type == Field.TYPE_MESSAGE
        # A message has presence without `optional`.
        self.is_optional = field.proto3_optional and not self.is_message
        self.is_map = schema.is_map_entry(self.type_full_name)
        self.c, self.c_count = f"c.{field.name.lower()}", f"c.n_{field.name.lower()}"
        # The C code is generated from copies in which an `optional` field is the only member of a oneof of this name.
        self.c_presence = f"given_{field.name}"
        self.zero = "nil" if self.is_message else None
        if field.type == Field.TYPE_ENUM:
            enum = schema.enums[self.type_full_name]
            self.zero = "." + case_name(enum.name, enum.value[0].name)
        elif not self.is_message:
            if field.type not in SCALARS:
                refuse(self.full_name, "groups are not supported; use a message")
            self.zero = SCALARS[field.type][1]

    @property
    def element(self):
        """The Swift type of one value."""
        scalar = SCALARS.get(self.field.type)
        return scalar[0] if scalar else self.schema.type_name(self.type_full_name)

    @property
    def payload(self):
        """The Swift type of the field as a case of a oneof, where it is never absent."""
        return self.type if self.is_list else self.element

    @property
    def type(self):
        if self.is_map:
            entry = self.schema.messages[self.type_full_name]
            key, value = [Property(self.schema, self.type_full_name, field).element for field in entry.field]
            return f"[{key}: {value}]"
        if self.is_list:
            return f"[{self.element}]"
        return f"{self.element}?" if self.is_message or self.is_optional else self.element

    @property
    def default(self):
        if self.is_map:
            return "[:]"
        if self.is_optional:
            return "nil"
        return "[]" if self.is_list else self.zero

    @property
    def only_list(self):
        """The one field of the field's message if it is a list, else nothing.

        A oneof cannot hold a list, so a message that holds nothing else stands in for it.
        """
        fields = self.schema.messages[self.type_full_name].field if self.is_message else []
        lists = [Property(self.schema, self.type_full_name, field) for field in fields]
        return lists[0] if len(lists) == 1 and lists[0].is_list and not lists[0].is_map else None

    def read(self):
        """The expression for the value in the C structure, as the head of a call and its arguments or as it is."""
        if not self.is_optional:
            return self._read_value()
        head, arguments = self._read_value()
        value = head if arguments is None else f"{head}({', '.join(arguments)})"
        attempt = "try " if value.startswith("try ") else ""
        return f"{attempt}c.{self.c_presence}_case.rawValue == 0 ? nil : {value.removeprefix('try ')}", None

    def _read_value(self):
        """The expression for the value without regard to its presence."""
        row, text = [self.c_count, self.c], f'"{self.field.name}"'
        if self.is_map:
            return "try fields.map", [*row, f"as: {self.element}.self"]
        if self.is_message:
            return ("try fields.messages", row) if self.is_list else ("try fields.message", [self.c])
        if self.field.type == Field.TYPE_STRING:
            return ("try fields.strings", [*row, text]) if self.is_list else ("try fields.string", [self.c, text])
        if self.field.type == Field.TYPE_BYTES:
            return ("fields.byteArrays", row) if self.is_list else ("fields.bytes", [self.c])
        if self.field.type == Field.TYPE_ENUM:
            if self.is_list:
                return f"fields.array({', '.join(row)}).compactMap {{ {self.element}(rawValue: $0.rawValue) }}", None
            if {self.full_name, self.type_full_name} & REFUSE_UNKNOWN:
                return "try fields.choice", [f"{self.c}.rawValue", text]
            return f"{self.element}(rawValue: {self.c}.rawValue) ?? {self.zero}", None
        if self.is_list and self.field.type == Field.TYPE_BOOL:
            return f"fields.array({', '.join(row)}).map {{ $0 != 0 }}", None
        if self.is_list:
            return "fields.array", row
        return (f"{self.c} != 0" if self.field.type == Field.TYPE_BOOL else self.c), None

    def write(self, value):
        """The expression for what the C structure is given for a value."""
        if self.is_map:
            return f"arena.map({value}, as: {self.element}.self)"
        if self.is_message:
            return f"arena.messages({value})" if self.is_list else f"arena.message({value})"
        if self.field.type == Field.TYPE_STRING:
            return f"arena.texts({value})" if self.is_list else f"arena.bytes({value})"
        if self.field.type == Field.TYPE_BYTES:
            return f"arena.byteArrays({value})" if self.is_list else f"arena.bytes({value})"
        if self.field.type == Field.TYPE_ENUM:
            c = c_type(self.type_full_name)
            return f"arena.array({value}.map {{ {c}($0.rawValue) }})" if self.is_list else f"{c}({value}.rawValue)"
        if self.is_list and self.field.type == Field.TYPE_BOOL:
            return f"arena.array({value}.map {{ $0 ? 1 : 0 }})"
        if self.is_list:
            return f"arena.array({value})"
        return f"{value} ? 1 : 0" if self.field.type == Field.TYPE_BOOL else value
