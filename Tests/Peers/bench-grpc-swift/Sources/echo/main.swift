// SPDX-License-Identifier: Apache-2.0

// grpc-swift-2's end of `switchyard-bench rpc`: unary calls that echo raw bytes; see Tests/Peers/bench-grpc-cpp/echo.cc for
// the arguments and the output.

import Foundation
import GRPCCore
import GRPCNIOTransportHTTP2
import NIOCore
import NIOPosix

let method = MethodDescriptor(fullyQualifiedService: "switchyard.bench.v1.Echo", method: "Echo")
let windowBytes = 16 << 20

struct Bytes: MessageSerializer, MessageDeserializer {
    func serialize<Wire: GRPCContiguousBytes>(_ message: [UInt8]) throws -> Wire { Wire(message) }
    func deserialize<Wire: GRPCContiguousBytes>(_ bytes: Wire) throws -> [UInt8] { bytes.withUnsafeBytes { Array($0) } }
}

struct EchoService: RegistrableRPCService {
    func registerMethods<Transport: ServerTransport>(with router: inout RPCRouter<Transport>) {
        router.registerHandler(forMethod: method, deserializer: Bytes(), serializer: Bytes()) { request, _ in
            let single = try await ServerRequest(stream: request)
            return StreamingServerResponse(single: ServerResponse(message: single.message))
        }
    }
}

/// Starts the program again bound to a processor, which all its threads inherit; the C function is not visible from Swift.
func bind(to cpu: Int) {
    guard getenv("ECHO_IS_BOUND") == nil else { return }
    setenv("ECHO_IS_BOUND", "1", 1)
    let program =
        (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
    let words = ["taskset", "-c", "\(cpu)", program] + CommandLine.arguments.dropFirst()
    var arguments = words.map { strdup($0) }
    arguments.append(nil)
    execv("/usr/bin/taskset", &arguments)
    perror("taskset")
    exit(1)
}

func serve(_ arguments: [String: String]) async throws {
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let transport = HTTP2ServerTransport.Posix(
        address: .ipv4(host: "127.0.0.1", port: 0),
        transportSecurity: .plaintext,
        config: .defaults {
            $0.http2.targetWindowSize = windowBytes
            $0.rpc.maxRequestPayloadSize = 64 << 20
        },
        eventLoopGroup: group
    )
    let server = GRPCServer(transport: transport, services: [EchoService()])
    try await withThrowingTaskGroup(of: Void.self) { tasks in
        tasks.addTask { try await server.serve() }
        let address = try await transport.listeningAddress
        guard let port = address.ipv4?.port, let file = arguments["address-file"] else { return }
        try Data("127.0.0.1:\(port)\n".utf8).write(to: URL(fileURLWithPath: file), options: .atomic)
        try await NIOThreadPool.singleton.runIfActive {
            while !FileHandle.standardInput.availableData.isEmpty {}
        }
        server.beginGracefulShutdown()
    }
}

func measure(_ arguments: [String: String]) async throws {
    guard let port = arguments["address"]?.split(separator: ":").last.flatMap({ Int($0) }),
        let bytes = arguments["bytes"].flatMap({ Int($0) }), let calls = arguments["calls"].flatMap({ Int($0) })
    else { return }
    let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
    let transport = try HTTP2ClientTransport.Posix(
        target: .ipv4(address: "127.0.0.1", port: port),
        transportSecurity: .plaintext,
        config: .defaults { $0.http2.targetWindowSize = windowBytes },
        eventLoopGroup: group
    )
    try await withGRPCClient(transport: transport) { client in
        let message = [UInt8](repeating: 7, count: bytes)
        @Sendable func call() async throws {
            let reply = try await client.unary(
                request: ClientRequest(message: message),
                descriptor: method,
                serializer: Bytes(),
                deserializer: Bytes(),
                options: .defaults
            ) { try $0.message }
            precondition(reply.count == bytes)
        }
        var times: [Double] = []
        for index in -(calls / 10)..<calls {
            let start = DispatchTime.now().uptimeNanoseconds
            try await call()
            if index >= 0 { times.append(Double(DispatchTime.now().uptimeNanoseconds - start) / 1_000) }
        }
        times.sort()
        let start = DispatchTime.now().uptimeNanoseconds
        let each = max(1, calls / 64)
        try await withThrowingTaskGroup(of: Void.self) { tasks in
            for _ in 0..<64 { tasks.addTask { for _ in 0..<each { try await call() } } }
            try await tasks.waitForAll()
        }
        let seconds = Double(DispatchTime.now().uptimeNanoseconds - start) / 1e9
        let p99 = times[times.count * 99 / 100]
        print(
            "{\"p50_us\": \(times[times.count / 2]), \"p99_us\": \(p99), \"calls_per_second\": \(Double(64 * each) / seconds)}"
        )
    }
}

let role = CommandLine.arguments.dropFirst().first
var arguments: [String: String] = [:]
let rest = Array(CommandLine.arguments.dropFirst(2))
for index in stride(from: 0, to: rest.count - 1, by: 2) {
    arguments[String(rest[index].dropFirst(2))] = rest[index + 1]
}
if let cpu = arguments["cpu"].flatMap({ Int($0) }) { bind(to: cpu) }
switch role {
case "server": try await serve(arguments)
case "client": try await measure(arguments)
default: print("usage: echo server|client --cpu N ...")
}
