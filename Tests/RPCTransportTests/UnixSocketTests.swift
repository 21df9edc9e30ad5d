// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import RPCCore
import RPCTransport
import SwitchyardTypes
import Testing

/// A folder for sockets that is gone after the test; its path is short enough for a socket's address.
private func withFolder<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    let folder = "/tmp/switchyard-\(UUID().uuidString.prefix(8))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: false)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    return try await body(folder)
}

/// Runs a server on a socket and gives it to the body; drains it afterwards.
private func withServer<Result>(
    at address: String,
    security: ServerSecurity = .plaintext,
    _ body: (RPCServer) async throws -> Result
) async throws -> Result {
    let server = RPCServer(
        configuration: RPCServerConfiguration(host: address, port: 0, drainGrace: .seconds(5), security: security),
        methods: [echo, loopEcho],
        logger: quietLogger
    )
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.run() }
        let bound = try await server.boundAddress()
        #expect(bound.host == address && bound.port == 0)
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await body(server)) } catch { outcome = .failure(error) }
        server.beginGracefulShutdown()
        try await tasks.waitForAll()
        return try outcome.get()
    }
}

/// Runs a channel to an address and gives it to the body; shuts it down afterwards.
private func withChannel<Result>(
    to address: String,
    _ configuration: RPCChannelConfiguration = .quick,
    _ body: (RPCChannel) async throws -> Result
) async throws -> Result {
    let loops = ClientLoops.applied(to: configuration)
    let channel = RPCChannel(target: (address, 0), configuration: loops, logger: quietLogger)
    return try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await channel.run() }
        let outcome: Swift.Result<Result, any Error>
        do { outcome = .success(try await body(channel)) } catch { outcome = .failure(error) }
        channel.shutdown()
        try await tasks.waitForAll()
        return try outcome.get()
    }
}

@Suite("Unix sockets", .timeLimit(.minutes(10)))
struct UnixSocketTests {
    @Test("calls small and large go over a socket, and its file goes with the server")
    func calls() async throws {
        try await withFolder { folder in
            let address = "unix:\(folder)/server.sock"
            try await withServer(at: address) { _ in
                try await withChannel(to: address) { channel in
                    for size in [0, 64, 3 << 10, 1 << 20] {
                        let sent = pattern(size, seed: size)
                        let reply = try await channel.unary(Methods.loopEcho, Payload(sent), options: .waiting)
                        #expect(reply.message == sent)
                    }
                }
            }
            #expect(!FileManager.default.fileExists(atPath: "\(folder)/server.sock"))
        }
    }

    @Test("TLS goes over a socket too, where the server is called localhost unless a name is given")
    func encrypted() async throws {
        try await TLSFixture.with { fixture in
            try await withFolder { folder in
                let address = "unix:\(folder)/server.sock"
                try await withServer(at: address, security: fixture.server()) { _ in
                    try await withChannel(to: address, fixture.client()) { channel in
                        let reply = try await channel.unary(Methods.echo, Payload(number(3)), options: .waiting)
                        #expect(reply.message == number(3))
                    }
                    try await withChannel(to: address, fixture.client(serverName: "other.test")) { channel in
                        let error = await rpcError { try await channel.unary(Methods.echo, Payload(number(3))) }
                        #expect(error?.message.contains("other.test") == true, "\(error?.message ?? "")")
                    }
                }
            }
        }
    }

    @Test("two clients of one socket are told apart")
    func peers() async throws {
        try await withFolder { folder in
            let address = "unix:\(folder)/server.sock"
            let who = ServiceMethod.unaryOnEventLoop(Methods.chat) { _, context, responder in
                responder.finish(.success(Payload(bytes: Array(context.peer.utf8))))
            }
            let server = RPCServer(
                configuration: RPCServerConfiguration(host: address, drainGrace: .seconds(5)),
                methods: [who],
                logger: quietLogger
            )
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await server.run() }
                _ = try await server.boundAddress()
                var names: Set<String> = []
                for _ in 0..<2 {
                    try await withChannel(to: address) { channel in
                        let reply = try await channel.unary(Methods.chat, Payload(number(1)), options: .waiting)
                        names.insert(String(buffer: reply.message))
                    }
                }
                #expect(names.count == 2)
                #expect(names.allSatisfy { $0.hasPrefix("unix:") })
                server.beginGracefulShutdown()
                try await tasks.waitForAll()
            }
        }
    }

    @Test("a file that a killed server left behind is replaced")
    func stale() async throws {
        try await withFolder { folder in
            let path = "\(folder)/server.sock"
            try leaveSocket(at: path)
            #expect(FileManager.default.fileExists(atPath: path))
            _ = try PortReservation(host: "unix:\(path)", port: 0)
            #expect(!FileManager.default.fileExists(atPath: path))
            try leaveSocket(at: path)
            try await withServer(at: "unix:\(path)") { _ in
                try await withChannel(to: "unix:\(path)") { channel in
                    let reply = try await channel.unary(Methods.echo, Payload(number(7)), options: .waiting)
                    #expect(reply.message == number(7))
                }
            }
        }
    }

    @Test("a socket on which another server listens, a file of another kind and a missing folder are refused in words")
    func refused() async throws {
        try await withFolder { folder in
            let path = "\(folder)/server.sock"
            try await withServer(at: "unix:\(path)") { _ in
                let error = problem("unix:\(path)")
                #expect(error?.problem == .taken)
                #expect(
                    error?.description.hasPrefix("cannot listen on unix:\(path): another process listens there") == true
                )
                let second = RPCServer(
                    configuration: RPCServerConfiguration(host: "unix:\(path)"),
                    methods: [],
                    logger: quietLogger
                )
                let thrown = await #expect(throws: ListenError.self) { try await second.run() }
                #expect(thrown == error)
                // The first server still answers.
                try await withChannel(to: "unix:\(path)") { channel in
                    _ = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                }
            }
            let file = "\(folder)/notes"
            try Data("text".utf8).write(to: URL(fileURLWithPath: file))
            #expect(problem("unix:\(file)")?.problem == .notASocket)
            #expect(FileManager.default.contents(atPath: file) == Data("text".utf8))
            #expect(problem("unix:\(folder)/none/server.sock")?.problem == .noFolder)
        }
    }

    @Test(
        "a folder that this user may not write to is refused in words",
        .disabled(if: getuid() == 0, "root may write anywhere")
    )
    func permission() async throws {
        try await withFolder { folder in
            try FileManager.default.setAttributes([.posixPermissions: 0o500], ofItemAtPath: folder)
            let error = problem("unix:\(folder)/server.sock")
            #expect(error?.problem == .notPermitted)
            #expect(error?.description.contains("may not make a socket there") == true)
            try FileManager.default.setAttributes([.posixPermissions: 0o700], ofItemAtPath: folder)
        }
    }

    @Test("a path that is too long for a socket is refused where a server and a client begin")
    func tooLong() async throws {
        let long = "unix:/tmp/" + String(repeating: "a", count: 120)
        #expect(problem(long)?.description.contains("more than the \(UnixAddress.maxPathBytes)") == true)
        let channel = RPCChannel(target: (long, 0), configuration: .quick, logger: quietLogger)
        let error = await #expect(throws: UnixAddress.Problem.self) { try await channel.run() }
        #expect(error?.description.contains("has 125 bytes") == true)
    }

    @Test(
        "a client says in words why it cannot use a socket",
        arguments: [
            ("missing.sock", "there is no such socket; check the path"),
            ("stale.sock", "nothing listens there: the file is no socket, or was left behind"),
            ("notes", "nothing listens there: the file is no socket"),
        ]
    )
    func client(name: String, expected: String) async throws {
        try await withFolder { folder in
            try leaveSocket(at: "\(folder)/stale.sock")
            try Data().write(to: URL(fileURLWithPath: "\(folder)/notes"))
            let address = "unix:\(folder)/\(name)"
            let failed = Signal()
            let channel = RPCChannel(
                target: (address, 0),
                configuration: .quick,
                logger: quietLogger,
                onStateChange: { if $0 == .transientFailure { failed.fire() } }
            )
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await channel.run() }
                await failed.wait()
                let error = await rpcError { try await channel.unary(Methods.echo, Payload(number(1))) }
                #expect(error?.code == .unavailable)
                #expect(
                    error?.message.hasPrefix("no connection to \(address): \(expected)") == true,
                    "\(error?.message ?? "")"
                )
                channel.shutdown()
                try await tasks.waitForAll()
            }
        }
    }

    private func problem(_ host: String) -> ListenError? {
        do throws(ListenError) {
            _ = try PortReservation(host: host, port: 0)
            return nil
        } catch {
            return error
        }
    }
}

/// Leaves the file of a socket that no process listens on, as a killed server does.
private func leaveSocket(at path: String) throws {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
        $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
    }
    try #require(result == 0)
}
