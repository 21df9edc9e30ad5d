#!/usr/bin/python3 -B
# SPDX-License-Identifier: Apache-2.0
"""A protoc plugin that writes the typed messages of Sources/SwitchyardProtos/Generated.

deploy/generate-protos.sh runs it. Each .proto file becomes one Swift file with its enums, messages and method names;
the messages are read from and written to the C structures that protoc-c generates from the same files. Comments become
documentation. Exceptions to the naming rules are in names.py.

Needs Debian's python3-protobuf, which belongs to Debian's own Python: hence the first line.
"""

import sys

try:
    from google.protobuf.compiler import plugin_pb2
except ImportError:
    sys.exit("generate-protos: Python's protobuf module is missing; run deploy/install-packages.sh test")

from names import NAMES, REFUSE_UNKNOWN, SERVICES_BY_HAND, SHARED_ONEOFS, c_constant, c_function, c_type, case_name
from names import swift_name, upper_camel
from schema import Property, Schema, refuse
from text import assign, call, chain, documentation


def in_oneof(field):
    """Whether a field is a member of a oneof. protoc puts each `optional` field into a oneof of its own, which is none here."""
    return field.HasField("oneof_index") and not field.proto3_optional


class Oneof:
    """A oneof: its Swift name and enum, and its members."""

    def __init__(self, schema, message, descriptor, index):
        declaration = descriptor.oneof_decl[index]
        self.schema, self.message = schema, message
        self.wire_name, self.full_name = declaration.name, f"{message}.{declaration.name}"
        self.name = swift_name(self.full_name, declaration.name)
        self.shared = next((name for name, (_, all) in SHARED_ONEOFS.items() if self.full_name in all), None)
        self.type = self.shared or self.name[:1].upper() + self.name[1:]
        self.members = [
            Property(schema, message, field)
            for field in descriptor.field
            if in_oneof(field) and field.oneof_index == index
        ]

    @property
    def cases(self):
        """The cases of the enum: names and types."""
        return [(member.name, (member.only_list or member).payload) for member in self.members]

    def declaration(self, indent, *summary):
        """The enum."""
        lines = documentation(indent, *summary) + [f"{indent}public enum {self.type}: Sendable, Hashable {{"]
        for member, (name, type) in zip(self.members, self.cases):
            lines += documentation(indent + "    ", *self.schema.comment(member.full_name))
            lines += [f"{indent}    case {name}({type})", ""]
        return lines[:-1] + [f"{indent}}}"]

    def _constant(self, member):
        return c_constant(self.message, f"{self.wire_name}_{member.field.name}")

    def read_lines(self):
        lines = [f"        switch c.{self.wire_name}_case {{"]
        for member in self.members:
            lines.append(f"        case {self._constant(member)}:")
            value, argument = f"self.{self.name} = ", f"{member.c}, as: {member.element}.self"
            if member.is_message:
                payload = f"$0.{member.only_list.name}" if member.only_list else "$0"
                tail = f".map {{ .{member.name}({payload}) }}"
                lines += chain("            ", f"{value}try fields.message({argument})", tail)
            else:
                head, arguments = member.read()
                argument = head if arguments is None else f"{head}({', '.join(arguments)})"
                lines += call("            ", f"{value}.{member.name}", [argument])
        return lines + ["        default:", f"            self.{self.name} = nil", "        }"]

    def write_lines(self):
        lines = [f"        switch self.{self.name} {{"]
        for member in self.members:
            only = member.only_list
            value = f"{member.element}({only.name}: value)" if only else "value"
            lines.append(f"        case .{member.name}(let value):")
            lines += assign("            ", f"c.{self.wire_name}_case", self._constant(member))
            lines += assign("            ", member.c, member.write(value))
        return lines + ["        case nil:", "            break", "        }"]


class Message:
    """A message: a structure, and the code that reads and writes it."""

    def __init__(self, schema, full_name):
        self.schema, self.full_name = schema, full_name
        self.descriptor = schema.messages[full_name]
        self.name = schema.type_name(full_name)
        oneofs = [Oneof(schema, full_name, self.descriptor, i) for i in range(len(self.descriptor.oneof_decl))]
        # protoc lists the oneofs of `optional` fields last.
        self.oneofs = [oneof for oneof in oneofs if oneof.members]
        # Properties in the order of the fields; a oneof stands where its first member does.
        self.parts = []
        for field in self.descriptor.field:
            part = oneofs[field.oneof_index] if in_oneof(field) else Property(schema, full_name, field)
            if part not in self.parts:
                self.parts.append(part)

    def lines(self):
        lines = documentation("", *self.schema.comment(self.full_name))
        lines.append(f"public struct {self.name}: ProtoMessage {{")
        for oneof in self.oneofs:
            if not oneof.shared:
                lines += oneof.declaration("    ", f"What ``{oneof.name}`` can be.") + [""]
        for enum in self.descriptor.enum_type:
            lines += enum_lines(self.schema, f"{self.full_name}.{enum.name}", "    ") + [""]
        for part in self.parts:
            more = []
            if isinstance(part, Property) and part.is_list and part.type_full_name in self.schema.enums:
                more = ["Numbers that this version does not know are left out."]
            lines += documentation("    ", *self.schema.comment(part.full_name), *more)
            lines += [f"    public var {part.name}: {self._type(part)}", ""]
        lines += self._initializer()
        lines += ["", "    /// Reads and writes the message."]
        lines += ["    public static var codec: MessageCodec<Self> { MessageCodec() }", "}", ""]
        lines += [f"extension {self.name}: CBacked {{", *self._codec(), "}", ""]
        for nested in self.descriptor.nested_type:
            inside = Message(self.schema, f"{self.full_name}.{nested.name}")
            if not nested.options.map_entry and inside.full_name not in NAMES:
                refuse(inside.full_name, "a message inside a message needs a name in deploy/protos/names.py, or to be moved out")
            lines += inside.entry_lines() if nested.options.map_entry else inside.lines()
        return lines

    def entry_lines(self):
        """A map's entry: not part of the interface."""
        key, value = self.parts
        owner = self.schema.type_name(self.full_name.rpartition(".")[0])
        lines = [f"/// An entry of ``{owner}``, as it is on the wire."]
        lines += [f"private struct {self.name}: ProtoMapEntry {{"]
        lines += [f"    var key: {key.element}", f"    var value: {value.element}", "}", ""]
        return lines + [f"extension {self.name} {{", *self._codec(entry=True), "}", ""]

    @staticmethod
    def _type(part):
        return f"{part.type}?" if isinstance(part, Oneof) else part.type

    def _initializer(self):
        if not self.parts:
            return ["    /// Creates the message.", "    public init() {}"]
        parameters = [
            f"{part.name}: {self._type(part)} = {'nil' if isinstance(part, Oneof) else part.default}"
            for part in self.parts
        ]
        lines = ["    /// Creates the message; each parameter is the property of that name."]
        lines += call("    ", "public init", parameters, " {")
        return lines + [f"        self.{part.name} = {part.name}" for part in self.parts] + ["    }"]

    def _codec(self, entry=False):
        """The functions that ``CBacked`` requires."""
        c = c_type(self.full_name)
        lines = call("    ", "static func prepare", [f"_ c: UnsafeMutablePointer<{c}>"], " {")
        lines += [f"        {c_function(self.full_name)}__init(c)", "    }", ""]
        lines += call("    ", "init", [f"reading c: {c}", "_ fields: FieldReader"], " throws(ProtoError) {")
        for part in self.parts:
            if isinstance(part, Oneof):
                lines += part.read_lines()
                continue
            head, arguments = part.read()
            if entry and part.is_message:
                lines.append(f"        self.{part.name} = {head}({', '.join(arguments)}) ?? {part.element}()")
            elif arguments is None:
                lines += assign("        ", f"self.{part.name}", head)
            else:
                lines += call("        ", f"self.{part.name} = {head}", arguments)
        lines = self._close(lines) + [""]
        lines += call("    ", "func write", [f"_ c: inout {c}", "_ arena: ProtoArena"], " {")
        for part in self.parts:
            if isinstance(part, Oneof):
                lines += part.write_lines()
            elif part.is_optional:
                lines.append(f"        if let value = self.{part.name} {{")
                constant = c_constant(self.full_name, f"{part.c_presence}_{part.field.name}")
                lines += assign("            ", f"c.{part.c_presence}_case", constant)
                lines += assign("            ", part.c, part.write("value"))
                lines.append("        }")
            else:
                target = f"({part.c_count}, {part.c})" if part.is_list else part.c
                lines += assign("        ", target, part.write(f"self.{part.name}"))
        return self._close(lines)

    def _close(self, lines):
        return lines + ["    }"] if self.parts else lines[:-1] + [lines[-1] + "}"]


def enum_lines(schema, full_name, indent):
    """An enum, and how it treats unknown numbers."""
    enum = schema.enums[full_name]
    names = [case_name(enum.name, value.name) for value in enum.value]
    if full_name in REFUSE_UNKNOWN:
        unknown = "An unknown number is an error where it is read."
    else:
        refused = " and ".join(f"``{name.replace('.', '/')}``" for name in schema.refused_fields(full_name))
        but = f", but an error in {refused}" if refused else ""
        unknown = f"An unknown number is read as `{names[0]}`{but}."
    lines = documentation(indent, *schema.comment(full_name), unknown)
    own_name = schema.type_name(full_name).rpartition(".")[2]
    lines.append(f"{indent}public enum {own_name}: UInt32, ProtoChoice, Sendable, Hashable, CaseIterable {{")
    for name, value in zip(names, enum.value):
        lines += documentation(indent + "    ", *schema.comment(f"{full_name}.{value.name}"))
        lines.append(f"{indent}    case {name} = {value.number}")
    return lines + [f"{indent}}}"]


def service_lines(schema, package, service):
    """The names of a service's methods."""
    full_name = f"{package}.{service.name}"
    lines = documentation("", f"The methods of `{full_name}`.", *schema.comment(full_name))
    lines += [f"public enum {service.name}Methods {{", "    /// The full name of the service."]
    lines.append(f'    public static let service = "{full_name}"')
    for method in service.method:
        kinds = [("a stream of " if method.client_streaming else "", method.input_type)]
        kinds.append(("a stream of " if method.server_streaming else "", method.output_type))
        given, returned = [f"{stream}``{schema.type_name(name[1:])}``" for stream, name in kinds]
        lines += ["", *documentation("    ", *schema.comment(f"{full_name}.{method.name}"), f"{given} to {returned}.")]
        name = method.name[:1].lower() + method.name[1:]
        lines.append(f'    public static let {name} = MethodName(service: Self.service, name: "{method.name}")')
    return lines + ["}", ""]


def shared_lines(schema, file):
    """The enums that several oneofs share, in the file that declares the first of these."""
    lines = []
    for type, (summary, names) in SHARED_ONEOFS.items():
        oneofs = []
        for name in names:
            message, _, own = name.rpartition(".")
            descriptor = schema.messages[message]
            index = [oneof.name for oneof in descriptor.oneof_decl].index(own)
            oneofs.append(Oneof(schema, message, descriptor, index))
        for other in oneofs[1:]:
            if other.cases != oneofs[0].cases:
                refuse(other.full_name, f"its members differ from {oneofs[0].full_name}'s, so they cannot share {type}")
        if oneofs[0].message.rpartition(".")[2] in [message.name for message in file.message_type]:
            lines += oneofs[0].declaration("", summary) + [""]
    return lines


def file_lines(schema, file):
    """A whole Swift file."""
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        "//",
        f"// Generated by deploy/generate-protos.sh from Protos/{file.name}; do not edit.",
        "",
        "import CSwitchyardProtos",
        "",
    ]
    for enum in file.enum_type:
        lines += enum_lines(schema, f"{file.package}.{enum.name}", "") + [""]
    lines += shared_lines(schema, file)
    for message in file.message_type:
        lines += Message(schema, f"{file.package}.{message.name}").lines()
    for service in file.service:
        if f"{file.package}.{service.name}" not in SERVICES_BY_HAND:
            lines += service_lines(schema, file.package, service)
    return lines


def main():
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = plugin_pb2.CodeGeneratorResponse()
    response.supported_features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    schema = Schema(request)
    for file in request.proto_file:
        if file.name in request.file_to_generate:
            stem = file.name.rpartition("/")[2].removesuffix(".proto")
            content = "\n".join(file_lines(schema, file))
            response.file.add(name=f"{upper_camel(stem)}.swift", content=content)
    sys.stdout.buffer.write(response.SerializeToString())


main()
