// SPDX-License-Identifier: Apache-2.0

import InteropCases
import PeerTools
import RPCTransport
import Testing

private let hasPython = Peers.mayRun(Peers.python)
private let hasProxy = Peers.mayRun(Peers.python, "nghttpx")
private let pythonHint: Comment = "make test sets SWITCHYARD_TEST_PYTHON"
private let proxyHint: Comment = "needs SWITCHYARD_TEST_PYTHON and nghttpx (nghttp2-proxy)"

@Suite("gRPC's interop cases", .serialized, .timeLimit(.minutes(10)))
struct InteropTests {
    @Test("this project's client against its server")
    func own() async throws {
        try await withInteropServer { try await runEveryCase(port: $0) }
    }

    @Test("the programs for manual runs: a server and a client in separate processes")
    func programs() async throws {
        let program = Peers.built("switchyard-interop")
        let output = try await PeerProcess.serve(program, ["server"], readyPrefix: "listening on ") { port in
            try await PeerProcess.run(program, ["client", "--port", port])
        }
        #expect(output.status == 0, "\(output.text)\(output.errors)")
        #expect(output.text.split(separator: "\n").count == InteropCase.allCases.count)
    }

    @Test("python's grpcio against this project's server", .enabled(if: hasPython, pythonHint))
    func grpcioClient() async throws {
        try await withInteropServer { port in
            expectPasses(try await PeerProcess.script("interop_client.py", ["127.0.0.1:\(port)"]), atLeast: 19)
        }
    }

    @Test("python's grpcio at the limits of this project's server", .enabled(if: hasPython, pythonHint))
    func grpcioEdges() async throws {
        try await withInteropServer { port in
            let report = try await PeerProcess.script("interop_client.py", ["127.0.0.1:\(port)", "edges"])
            expectPasses(report, atLeast: 8)
        }
    }

    @Test("python's grpcio against this project's server, through nghttpx", .enabled(if: hasProxy, proxyHint))
    func grpcioClientThroughProxy() async throws {
        try await withInteropServer { port in
            try await withProxy(to: port) { front in
                expectPasses(try await PeerProcess.script("interop_client.py", ["127.0.0.1:\(front)"]), atLeast: 19)
            }
        }
    }

    @Test("this project's client against python's grpcio", .enabled(if: hasPython, pythonHint))
    func grpcioServer() async throws {
        let script = "\(Peers.folder)/interop_server.py"
        try await PeerProcess.serve(try Peers.path(Peers.python), [script], readyPrefix: "listening on ") { port in
            try await runEveryCase(port: try #require(Int(port)), seesCompression: false)
        }
    }

    @Test("this project's client against python's grpcio, through nghttpx", .enabled(if: hasProxy, proxyHint))
    func grpcioServerThroughProxy() async throws {
        let script = "\(Peers.folder)/interop_server.py"
        try await PeerProcess.serve(try Peers.path(Peers.python), [script], readyPrefix: "listening on ") { port in
            try await withProxy(to: try #require(Int(port))) {
                try await runEveryCase(port: $0, seesCompression: false)
            }
        }
    }

    @Test("grpclib, with its own HTTP/2 stack, against this project's server", .enabled(if: hasPython, pythonHint))
    func grpclibClient() async throws {
        try await withInteropServer { port in
            expectPasses(try await PeerProcess.script("grpclib_interop.py", ["127.0.0.1", "\(port)"]), atLeast: 13)
        }
    }

    @Test("1,000 large calls at once", .enabled(if: hasPython, pythonHint))
    func parallel() async throws {
        try await withInteropServer { port in
            let arguments = ["127.0.0.1:\(port)", "parallel"]
            expectPasses(try await PeerProcess.script("interop_client.py", arguments), atLeast: 1)
        }
    }

    @Test("2,000 short deadlines at a sleeping server, and a call after them", .enabled(if: hasPython, pythonHint))
    func deadlines() async throws {
        try await withInteropServer { port in
            let arguments = ["127.0.0.1:\(port)", "deadlines"]
            expectPasses(try await PeerProcess.script("interop_client.py", arguments), atLeast: 1)
        }
    }
}
