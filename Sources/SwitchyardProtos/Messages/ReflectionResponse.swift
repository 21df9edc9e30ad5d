// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// One answer of server reflection.
public struct ServerReflectionResponse: ProtoMessage {
    /// What can be answered.
    public enum Answer: Sendable, Hashable {
        /// Serialized `google.protobuf.FileDescriptorProto` messages: the file that was asked for, then its imports.
        case files([[UInt8]])
        /// The numbers of the extensions of a message.
        case extensionNumbers(ofType: String, [Int32])
        /// The services' full names.
        case services([String])
        /// The number of a gRPC status code, and what is wrong.
        case error(code: Int32, message: String)
    }

    /// The host of the question.
    public var validHost: String

    /// The question.
    public var originalRequest: ServerReflectionRequest?

    /// The answer; nothing where it is one that this version does not know.
    public var answer: Answer?

    /// Creates the message; each parameter is the property of that name.
    public init(
        validHost: String = "",
        originalRequest: ServerReflectionRequest? = nil,
        answer: Answer? = nil
    ) {
        self.validHost = validHost
        self.originalRequest = originalRequest
        self.answer = answer
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ServerReflectionResponse: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ServerReflectionResponse>) {
        grpc__reflection__v1__server_reflection_response__init(c)
    }

    init(reading c: Grpc__Reflection__V1__ServerReflectionResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            validHost: try fields.string(c.valid_host, "valid_host"),
            originalRequest: try fields.message(c.original_request),
            answer: try Self.answer(of: c, fields)
        )
    }

    func write(_ c: inout Grpc__Reflection__V1__ServerReflectionResponse, _ arena: ProtoArena) {
        c.valid_host = arena.bytes(self.validHost)
        c.original_request = arena.message(self.originalRequest)
        switch self.answer {
        case .files(let files):
            c.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE
            c.file_descriptor_response = arena.structure(FileDescriptorResponse(files: files))
        case .extensionNumbers(let type, let numbers):
            c.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE
            c.all_extension_numbers_response = arena.structure(ExtensionNumberResponse(type: type, numbers: numbers))
        case .services(let names):
            c.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE
            c.list_services_response = arena.structure(ListServiceResponse(names: names))
        case .error(let code, let message):
            c.message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE
            c.error_response = arena.structure(ErrorResponse(code: code, message: message))
        case nil:
            break
        }
    }

    /// The member of the oneof that is set.
    private static func answer(
        of c: Grpc__Reflection__V1__ServerReflectionResponse,
        _ fields: FieldReader
    ) throws(ProtoError) -> Answer? {
        switch c.message_response_case {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE:
            try fields.message(c.file_descriptor_response, as: FileDescriptorResponse.self).map { .files($0.files) }
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE:
            try fields.message(c.all_extension_numbers_response, as: ExtensionNumberResponse.self)
                .map { .extensionNumbers(ofType: $0.type, $0.numbers) }
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE:
            try fields.message(c.list_services_response, as: ListServiceResponse.self).map { .services($0.names) }
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE:
            try fields.message(c.error_response, as: ErrorResponse.self)
                .map { .error(code: $0.code, message: $0.message) }
        default: nil
        }
    }
}

// MARK: - Parts

private struct FileDescriptorResponse: CBacked {
    var files: [[UInt8]]

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__FileDescriptorResponse>) {
        grpc__reflection__v1__file_descriptor_response__init(c)
    }
}

extension FileDescriptorResponse {
    init(reading c: Grpc__Reflection__V1__FileDescriptorResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(files: fields.array(c.n_file_descriptor_proto, c.file_descriptor_proto).map { fields.bytes($0) })
    }

    func write(_ c: inout Grpc__Reflection__V1__FileDescriptorResponse, _ arena: ProtoArena) {
        (c.n_file_descriptor_proto, c.file_descriptor_proto) = arena.array(self.files.map { arena.bytes($0) })
    }
}

private struct ExtensionNumberResponse: CBacked {
    var type: String
    var numbers: [Int32]

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ExtensionNumberResponse>) {
        grpc__reflection__v1__extension_number_response__init(c)
    }
}

extension ExtensionNumberResponse {
    init(reading c: Grpc__Reflection__V1__ExtensionNumberResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            type: try fields.string(c.base_type_name, "base_type_name"),
            numbers: fields.array(c.n_extension_number, c.extension_number)
        )
    }

    func write(_ c: inout Grpc__Reflection__V1__ExtensionNumberResponse, _ arena: ProtoArena) {
        c.base_type_name = arena.bytes(self.type)
        (c.n_extension_number, c.extension_number) = arena.array(self.numbers)
    }
}

private struct ListServiceResponse: CBacked {
    var names: [String]

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ListServiceResponse>) {
        grpc__reflection__v1__list_service_response__init(c)
    }
}

extension ListServiceResponse {
    init(reading c: Grpc__Reflection__V1__ListServiceResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(names: try fields.messages(c.n_service, c.service, as: ServiceResponse.self).map(\.name))
    }

    func write(_ c: inout Grpc__Reflection__V1__ListServiceResponse, _ arena: ProtoArena) {
        (c.n_service, c.service) = arena.messages(self.names.map { ServiceResponse(name: $0) })
    }
}

private struct ServiceResponse: CBacked {
    var name: String

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ServiceResponse>) {
        grpc__reflection__v1__service_response__init(c)
    }
}

extension ServiceResponse {
    init(reading c: Grpc__Reflection__V1__ServiceResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(name: try fields.string(c.name, "name"))
    }

    func write(_ c: inout Grpc__Reflection__V1__ServiceResponse, _ arena: ProtoArena) {
        c.name = arena.bytes(self.name)
    }
}

private struct ErrorResponse: CBacked {
    var code: Int32
    var message: String

    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ErrorResponse>) {
        grpc__reflection__v1__error_response__init(c)
    }
}

extension ErrorResponse {
    init(reading c: Grpc__Reflection__V1__ErrorResponse, _ fields: FieldReader) throws(ProtoError) {
        self.init(code: c.error_code, message: try fields.string(c.error_message, "error_message"))
    }

    func write(_ c: inout Grpc__Reflection__V1__ErrorResponse, _ arena: ProtoArena) {
        c.error_code = self.code
        c.error_message = arena.bytes(self.message)
    }
}
