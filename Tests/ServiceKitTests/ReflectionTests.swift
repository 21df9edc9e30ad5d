// SPDX-License-Identifier: Apache-2.0

import Logging
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardProtos
import Testing

@testable import ServiceKit

private let gateway = "switchyard.v1.Gateway"

@Suite("Reflection session")
struct ReflectionSessionTests {
    private func session() throws -> ReflectionSession {
        ReflectionSession(index: try FileDescriptors.index(), services: [gateway])
    }

    private func files(_ response: ServerReflectionResponse) -> [[UInt8]]? {
        guard case .files(let files) = response.answer else { return nil }
        return files
    }

    private func errorCode(_ response: ServerReflectionResponse) -> Int32? {
        guard case .error(let error) = response.answer else { return nil }
        #expect(!error.errorMessage.isEmpty)
        return error.errorCode
    }

    @Test("an answer repeats the question and its host")
    func echo() throws {
        var session = try self.session()
        let request = ServerReflectionRequest(host: "h", question: .listServices("*"))
        let response = session.answer(request)
        #expect(response.validHost == "h")
        #expect(response.originalRequest == request)
        #expect(response.answer == .services([ServiceResponse(name: gateway)]))
    }

    @Test("a file comes with its imports, and the stream sends each import once")
    func imports() throws {
        var session = try self.session()
        let symbol = ServerReflectionRequest(question: .fileContainingSymbol("switchyard.v1.Gateway"))
        let first = try #require(self.files(session.answer(symbol)))
        #expect(first.count == 2)
        let name = ServerReflectionRequest(question: .fileByFilename("switchyard/v1/gateway.proto"))
        let again = try #require(self.files(session.answer(name)))
        #expect(again == [first[0]])
        let imported = ServerReflectionRequest(question: .fileByFilename("switchyard/v1/types.proto"))
        #expect(self.files(session.answer(imported)) == [first[1]])
        var other = try self.session()
        #expect(self.files(other.answer(name)) == first)
    }

    @Test("extensions: none for a known message, NOT_FOUND for an unknown one")
    func extensions() throws {
        var session = try self.session()
        let type = "switchyard.v1.GenerateRequest"
        let known = session.answer(ServerReflectionRequest(question: .allExtensionNumbersOfType(type)))
        #expect(known.answer == .extensionNumbers(ExtensionNumberResponse(baseTypeName: type)))
        let unknown = session.answer(ServerReflectionRequest(question: .allExtensionNumbersOfType("x.Y")))
        #expect(self.errorCode(unknown) == 5)
        let wanted = ExtensionRequest(containingType: type, extensionNumber: 7)
        let one = session.answer(ServerReflectionRequest(question: .fileContainingExtension(wanted)))
        #expect(self.errorCode(one) == 5)
    }

    @Test("unknown names are NOT_FOUND, and an empty question is INVALID_ARGUMENT; the stream continues")
    func errors() throws {
        var session = try self.session()
        let file = session.answer(ServerReflectionRequest(question: .fileByFilename("nothing.proto")))
        #expect(self.errorCode(file) == 5)
        let symbol = session.answer(ServerReflectionRequest(question: .fileContainingSymbol("no.Such")))
        #expect(self.errorCode(symbol) == 5)
        #expect(self.errorCode(session.answer(ServerReflectionRequest())) == 3)
    }
}

@Suite("Reflection service", .timeLimit(.minutes(10)))
struct ReflectionServiceTests {
    @Test(
        "both versions answer over the wire, and list the server's services and themselves",
        arguments: ["v1", "v1alpha"]
    )
    func overTheWire(version: String) async throws {
        let health = HealthService(registry: HealthRegistry(services: [])).methods
        let reflection = try ReflectionService(describing: health)
        let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let server = RPCServer(
            configuration: RPCServerConfiguration(),
            methods: health + reflection.methods,
            logger: quiet
        )
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            tasks.addTask { try await server.run() }
            let port = try await server.boundAddress().port
            let channel = RPCChannel(target: ("127.0.0.1", port), logger: quiet)
            tasks.addTask { try await channel.run() }
            let method = Method(service: "grpc.reflection.\(version).ServerReflection", name: "ServerReflectionInfo")
            let call = channel.bidirectional(method, options: CallOptions(waitForReady: true))
            var responses = call.responses.makeAsyncIterator()
            func ask(_ question: ServerReflectionRequest.Question) async throws -> ServerReflectionResponse.Answer? {
                let request = ServerReflectionRequest(question: question)
                try await call.requests.write(Payload(bytes: request.serialized()))
                let message = try #require(try await responses.next())
                return try ServerReflectionResponse(serialized: Array(message.readableBytesView)).answer
            }
            let services = [
                "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
                "grpc.reflection.v1alpha.ServerReflection",
            ]
            #expect(try await ask(.listServices("")) == .services(services.map { ServiceResponse(name: $0) }))
            for service in services {
                guard case .files(let files) = try await ask(.fileContainingSymbol(service)) else {
                    Issue.record("no file for \(service)")
                    continue
                }
                #expect(files.count == 1)
            }
            call.requests.finish()
            #expect(try await responses.next() == nil)

            let broken = channel.bidirectional(method, options: CallOptions(waitForReady: true))
            try await broken.requests.write(Payload(bytes: [0x0A, 0x0A, 0x61]))
            let error = await #expect(throws: RPCError.self) { for try await _ in broken.responses {} }
            #expect(error?.code == .invalidArgument)
            channel.shutdown()
            server.beginGracefulShutdown()
            try await tasks.waitForAll()
        }
    }
}
