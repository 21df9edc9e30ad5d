// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore
public import RPCTransport
public import SwitchyardProtos

/// Server reflection, `grpc.reflection.v1` and `v1alpha`: tells clients without `.proto` files what they can call.
///
/// Source: https://github.com/grpc/grpc/blob/v1.51.1/doc/server-reflection.md. An answer holds the requested file and
/// the imports that the stream has not sent yet. Files are sent whether or not the server has their services.
public struct ReflectionService: Sendable {
    /// The full names of both services.
    public static let names = [ReflectionMethods.v1.service, ReflectionMethods.v1alpha.service]

    /// The services that it lists, including its own, in order.
    let services: [String]

    private let index: DescriptorIndex

    /// Creates the service.
    ///
    /// - Parameters:
    ///   - methods: The server's other methods, whose services are listed.
    ///   - index: The files; by default those of this package's protocol.
    /// - Throws: ``ProtoError`` if this build's descriptor set is damaged.
    public init(describing methods: [ServiceMethod], index: DescriptorIndex? = nil) throws(ProtoError) {
        self.services = Set(methods.map(\.method.service) + Self.names).sorted()
        self.index = if let index { index } else { try FileDescriptors.index() }
    }

    /// A request names a file or a symbol.
    private static let maxRequestBytes = 16 << 10

    /// `ServerReflectionInfo` under both names, for a server.
    public var methods: [ServiceMethod] {
        Self.names.map { service in
            let method = Method(service: service, name: ReflectionMethods.v1.name)
            return
                .bidirectional(method) { requests, _, writer in
                    var session = ReflectionSession(index: self.index, services: self.services)
                    for try await message in requests {
                        let request = try Self.request(in: message)
                        try await writer.write(Payload(bytes: session.answer(request).serialized()))
                    }
                }
                .requests(upTo: Self.maxRequestBytes)
        }
    }

    private static func request(in message: ByteBuffer) throws(RPCError) -> ServerReflectionRequest {
        do throws(ProtoError) {
            return try ServerReflectionRequest(serialized: Array(message.readableBytesView))
        } catch {
            throw RPCError(.invalidArgument, "the request is not a ServerReflectionRequest: \(error)")
        }
    }
}

/// The answers of one stream so far: a pure value.
struct ReflectionSession {
    private let index: DescriptorIndex
    private let services: [String]
    private var sent: Set<DescriptorIndex.Place> = []

    init(index: DescriptorIndex, services: [String]) {
        self.index = index
        self.services = services
    }

    /// Answers the next question.
    mutating func answer(_ request: ServerReflectionRequest) -> ServerReflectionResponse {
        ServerReflectionResponse(
            validHost: request.host,
            originalRequest: request,
            answer: self.answer(to: request.question)
        )
    }

    private mutating func answer(
        to question: ServerReflectionRequest.Question?
    ) -> ServerReflectionResponse.Answer {
        switch question {
        case .fileByFilename(let name):
            return self.files(self.index.file(named: name), missing: "file \"\(name)\"")
        case .fileContainingSymbol(let symbol):
            return self.files(self.index.file(containing: symbol), missing: "symbol \"\(symbol)\"")
        case .fileContainingExtension(let wanted):
            let type = wanted.containingType
            let number = wanted.extensionNumber
            return self.files(
                self.index.file(extending: type, number: number),
                missing: "extension \(number) of \"\(type)\""
            )
        case .allExtensionNumbersOfType(let type):
            guard let numbers = self.index.extensionNumbers(of: type) else {
                return Self.notFound("message \"\(type)\"")
            }
            return .extensionNumbers(ExtensionNumberResponse(baseTypeName: type, extensionNumber: numbers))
        case .listServices:
            return .services(self.services.map { ServiceResponse(name: $0) })
        case nil:
            let text = "the request asks for nothing that this server knows; set one member of message_request"
            return Self.error(.invalidArgument, text)
        }
    }

    private mutating func files(
        _ place: DescriptorIndex.Place?,
        missing: String
    ) -> ServerReflectionResponse.Answer {
        guard let place else { return Self.notFound(missing) }
        let wanted = self.index.closure(of: place).filter { $0 == place || !self.sent.contains($0) }
        self.sent.formUnion(wanted)
        return .files(wanted.map { self.index.descriptor(at: $0) })
    }

    private static func notFound(_ what: String) -> ServerReflectionResponse.Answer {
        Self.error(.notFound, "this server has no \(what); list_services lists what it has")
    }

    private static func error(_ code: Status.Code, _ message: String) -> ServerReflectionResponse.Answer {
        .error(ErrorResponse(errorCode: Int32(code.rawValue), errorMessage: message))
    }
}
