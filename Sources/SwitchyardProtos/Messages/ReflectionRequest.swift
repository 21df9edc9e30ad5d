// SPDX-License-Identifier: Apache-2.0

import CSwitchyardProtos

/// One question of server reflection.
public struct ServerReflectionRequest: ProtoMessage {
    /// What can be asked.
    public enum Question: Sendable, Hashable {
        /// The file with this name.
        case fileByFilename(String)
        /// The file that declares what has this full name.
        case fileContainingSymbol(String)
        /// The file that declares the extension of a message with a number.
        case fileContainingExtension(ExtensionRequest)
        /// The numbers of all extensions of the message with this full name.
        case allExtensionNumbers(ofType: String)
        /// The services; the text means nothing.
        case listServices(String)
    }

    /// The host that is asked; repeated in the answer.
    public var host: String

    /// What is asked; nothing where it is a question that this version does not know.
    public var question: Question?

    /// Creates the message; each parameter is the property of that name.
    public init(host: String = "", question: Question? = nil) {
        self.host = host
        self.question = question
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ServerReflectionRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ServerReflectionRequest>) {
        grpc__reflection__v1__server_reflection_request__init(c)
    }

    init(reading c: Grpc__Reflection__V1__ServerReflectionRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(host: try fields.string(c.host, "host"), question: try Self.question(of: c, fields))
    }

    func write(_ c: inout Grpc__Reflection__V1__ServerReflectionRequest, _ arena: ProtoArena) {
        c.host = arena.bytes(self.host)
        switch self.question {
        case .fileByFilename(let name):
            c.message_request_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME
            c.file_by_filename = arena.bytes(name)
        case .fileContainingSymbol(let symbol):
            c.message_request_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL
            c.file_containing_symbol = arena.bytes(symbol)
        case .fileContainingExtension(let request):
            c.message_request_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION
            c.file_containing_extension = arena.message(request)
        case .allExtensionNumbers(let type):
            c.message_request_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE
            c.all_extension_numbers_of_type = arena.bytes(type)
        case .listServices(let text):
            c.message_request_case = GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES
            c.list_services = arena.bytes(text)
        case nil:
            break
        }
    }

    /// The member of the oneof that is set.
    private static func question(
        of c: Grpc__Reflection__V1__ServerReflectionRequest,
        _ fields: FieldReader
    ) throws(ProtoError) -> Question? {
        switch c.message_request_case {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
            .fileByFilename(try fields.string(c.file_by_filename, "file_by_filename"))
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
            .fileContainingSymbol(try fields.string(c.file_containing_symbol, "file_containing_symbol"))
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
            try fields.message(c.file_containing_extension).map { .fileContainingExtension($0) }
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
            .allExtensionNumbers(
                ofType: try fields.string(c.all_extension_numbers_of_type, "all_extension_numbers_of_type")
            )
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
            .listServices(try fields.string(c.list_services, "list_services"))
        default: nil
        }
    }
}

/// An extension of a message.
public struct ExtensionRequest: ProtoMessage {
    /// The full name of the message that is extended.
    public var containingType: String

    /// The extension's number.
    public var extensionNumber: Int32

    /// Creates the message; each parameter is the property of that name.
    public init(containingType: String = "", extensionNumber: Int32 = 0) {
        self.containingType = containingType
        self.extensionNumber = extensionNumber
    }

    /// Reads and writes the message.
    public static var codec: MessageCodec<Self> { MessageCodec() }
}

extension ExtensionRequest: CBacked {
    static func prepare(_ c: UnsafeMutablePointer<Grpc__Reflection__V1__ExtensionRequest>) {
        grpc__reflection__v1__extension_request__init(c)
    }

    init(reading c: Grpc__Reflection__V1__ExtensionRequest, _ fields: FieldReader) throws(ProtoError) {
        self.init(
            containingType: try fields.string(c.containing_type, "containing_type"),
            extensionNumber: c.extension_number
        )
    }

    func write(_ c: inout Grpc__Reflection__V1__ExtensionRequest, _ arena: ProtoArena) {
        c.containing_type = arena.bytes(self.containingType)
        c.extension_number = self.extensionNumber
    }
}
