// SPDX-License-Identifier: Apache-2.0

import Foundation
import NIOCore
import RPCCore
import RPCTransport
import Synchronization
import Testing

/// A test of channels that is run again over an event loop that threads drive.
struct ChannelCase: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let run: @Sendable () async throws -> Void

    init(_ name: String, _ run: @escaping @Sendable () async throws -> Void) {
        self.testDescription = name
        self.run = run
    }

    static let all: [ChannelCase] = Self.sizes + Self.others + Self.hostile

    private static let sizes: [ChannelCase] = [0, 1, 1_024, 70_000, 1_000_000]
        .map { size in
            ChannelCase("a unary call of \(size) bytes") { try await CallTests().unary(size: size) }
        }

    private static let hostile: [ChannelCase] = HostileScript.all.map { script in
        ChannelCase("a hostile server: \(script.testDescription)") {
            try await HostileServerTests().survives(script: script)
        }
    }

    private static let others: [ChannelCase] = [
        ChannelCase("a payload in pieces") { try await CallTests().pieces() },
        ChannelCase("large messages") { try await CallTests().largeMessages(dataPlane: false) },
        ChannelCase("large messages, wide windows") { try await CallTests().largeMessages(dataPlane: true) },
        ChannelCase("a thousand calls") { try await CallTests().parallel() },
        ChannelCase("several connections") { try await CallTests().connections() },
        ChannelCase("server streaming") { try await CallTests().serverStreaming(messages: 5_000) },
        ChannelCase("client streaming") { try await CallTests().clientStreaming() },
        ChannelCase("messages both ways") { try await CallTests().bidirectional() },
        ChannelCase("metadata") { try await CallTests().metadata() },
        ChannelCase("message limits") { try await CallTests().messageLimits() },
        ChannelCase("refused connections") { try await ConnectionTests().refused() },
        ChannelCase("an abrupt close") { try await ConnectionTests().abruptClose() },
        ChannelCase("a lost connection") { try await ConnectionTests().connectionLoss() },
        ChannelCase("a drain") { try await ConnectionTests().drain() },
        ChannelCase("reconnecting") { try await ConnectionTests().reconnect() },
        ChannelCase("the stream limit") { try await ConnectionTests().streamLimit() },
        ChannelCase("a cancelled server") { try await ConnectionTests().serverCancelled() },
        ChannelCase("a deadline") { try await FaultTests().deadline() },
        ChannelCase("a passed deadline") { try await FaultTests().passedDeadline() },
        ChannelCase("a waiting call's deadline") { try await FaultTests().waitingDeadline() },
        ChannelCase("a cancelled task") { try await FaultTests().cancellation(how: "task") },
        ChannelCase("a cancelled handle") { try await FaultTests().cancellation(how: "handle") },
        ChannelCase("a caller that leaves") { try await FaultTests().handlerTask() },
        ChannelCase("a slow reader") { try await FaultTests().slowReader() },
        ChannelCase("a slow handler") { try await FaultTests().slowHandler() },
        ChannelCase("a retry") { try await RetryTests().unary() },
        ChannelCase("a cancelled retry") { try await RetryTests().cancelled() },
        ChannelCase("a retry after GOAWAY") { try await RetryTests().goAway() },
        ChannelCase("a server without streams that allows some") { try await StreamLimitTests().raised() },
        ChannelCase("a server without streams that is replaced") { try await StreamLimitTests().replaced() },
        ChannelCase("compressed messages") { try await CompressionTests().calls() },
        ChannelCase("counted bytes") { try await CountsTests().bytes() },
        ChannelCase("a Unix socket") { try await UnixSocketTests().calls() },
        ChannelCase("a Unix socket with TLS") { try await UnixSocketTests().encrypted() },
        ChannelCase("TLS") { try await TLSTests().calls() },
        ChannelCase("TLS with certificates on both sides") { try await TLSTests().mutual() },
        ChannelCase("TLS, waiting") { try await TLSTests().waiting() },
        ChannelCase("TLS, a drain") { try await TLSTests().drain() },
        ChannelCase("TLS, a shutdown in the handshake") { try await TLSTests().shutdownInHandshake() },
    ]
}

@Suite("Channels over an event loop that threads drive", .timeLimit(.minutes(10)))
struct DrivenCallTests {
    @Test("do what they do over others while its keeper drives", arguments: ChannelCase.all)
    func keeper(test: ChannelCase) async throws {
        try await withDrivenLoop { loop in
            try await ClientLoops.$driven.withValue(loop) { try await test.run() }
        }
    }

    @Test("do so while a thread takes the sockets and gives them back all the time", arguments: ChannelCase.all)
    func turns(test: ChannelCase) async throws {
        try await withDrivenLoop { loop in
            let isDone = Signal()
            async let driver: Void = onThread {
                var round = 0
                while isDone.count == 0 {
                    round += 1
                    // Now for one turn, now for some milliseconds of turns.
                    _ = loop.drive { turns in
                        let end = ContinuousClock.now + .milliseconds(round % 4)
                        repeat { turns.wait(until: end) } while ContinuousClock.now < end
                    }
                    if round % 3 == 0 { usleep(2_000) }
                }
            }
            let result: Result<Void, any Error>
            do {
                try await ClientLoops.$driven.withValue(loop) { try await test.run() }
                result = .success(())
            } catch {
                result = .failure(error)
            }
            isDone.fire()
            await driver
            try result.get()
        }
    }

    @Test("a thread that makes a call and waits for it gets the answer on itself")
    func runToCompletion() async throws {
        try await withServer([loopEcho]) { _, port in
            try await withDrivenLoop { loop in
                try await withChannel(port: port, .quick { $0.eventLoopGroup = loop }) { channel in
                    _ = try await channel.unary(Methods.loopEcho, Payload(number(0)), options: .waiting)
                    let (answers, here) = await onThread { () -> ([UInt32], Int) in
                        let own = pthread_self()
                        let answers = Mutex<(values: [UInt32], here: Int)>(([], 0))
                        for index in 1...200 as ClosedRange<UInt32> {
                            loop.perform {
                                _ = channel.unary(Methods.loopEcho, Payload(number(index))) { result in
                                    let value = (try? result.get())?.message.getInteger(at: 0, as: UInt32.self) ?? 0
                                    let isHere = pthread_equal(own, pthread_self()) != 0
                                    answers.withLock { answers in
                                        answers.values.append(value)
                                        answers.here += isHere ? 1 : 0
                                    }
                                }
                            }
                            while answers.withLock({ $0.values.count }) < Int(index) {
                                _ = loop.drive { $0.wait(until: .now + .milliseconds(100)) }
                            }
                        }
                        return answers.withLock { ($0.values, $0.here) }
                    }
                    #expect(answers == Array(1...200))
                    // The keeper gets an answer that comes before the thread waits.
                    #expect(here > 0)
                }
            }
        }
    }

    @Test("the deadline of a call that its thread does not wait for ends it while that thread computes")
    func deadlineMeanwhile() async throws {
        try await withServer([hang(Signal(), Signal()), echo]) { _, port in
            try await withDrivenLoop { loop in
                try await withChannel(port: port, .quick { $0.eventLoopGroup = loop }) { channel in
                    _ = try await channel.unary(Methods.echo, Payload(number(0)), options: .waiting)
                    let ended = Signal()
                    let code = Mutex<Status.Code?>(nil)
                    await onThread {
                        loop.perform {
                            let options = CallOptions(deadline: .now + .milliseconds(50))
                            _ = channel.unary(Methods.hang, Payload(number(1)), options: options) { result in
                                if case .failure(let error) = result { code.withLock { $0 = error.code } }
                                ended.fire()
                            }
                        }
                        while ended.count == 0 {}
                    }
                    #expect(code.withLock { $0 } == .deadlineExceeded)
                }
            }
        }
    }

    @Test("a name is looked up, and its addresses are tried until one answers")
    func names() async throws {
        try await withServer([echo]) { _, port in
            try await withDrivenLoop { loop in
                let configuration = RPCChannelConfiguration.quick { $0.eventLoopGroup = loop }
                for (host, isKnown) in [("localhost", true), ("no-such-host.invalid", false)] {
                    let channel = RPCChannel(target: (host, port), configuration: configuration, logger: quietLogger)
                    try await withThrowingTaskGroup(of: Void.self) { tasks in
                        tasks.addTask { try await channel.run() }
                        if isKnown {
                            let reply = try await channel.unary(Methods.echo, Payload(number(7)), options: .waiting)
                            #expect(reply.message == number(7))
                        } else {
                            while channel.state != .transientFailure { await Task.yield() }
                            #expect(channel.trouble?.contains("the host name is unknown") == true)
                        }
                        channel.shutdown()
                        try await tasks.waitForAll()
                    }
                }
            }
        }
    }

    @Test("a loop that stops under a channel ends its calls and its connections")
    func stopped() async throws {
        let began = Signal()
        try await withServer([hang(began, Signal())]) { _, port in
            let loop = try DrivenEventLoop()
            let ended = Signal()
            Thread.detachNewThread {
                loop.keep()
                ended.fire()
            }
            let channel = RPCChannel(
                target: ("127.0.0.1", port),
                configuration: .quick { $0.eventLoopGroup = loop },
                logger: quietLogger
            )
            try await withThrowingTaskGroup(of: Void.self) { tasks in
                tasks.addTask { try await channel.run() }
                async let error = rpcError {
                    try await channel.unary(Methods.hang, Payload(number(1)), options: .waiting)
                }
                await began.wait()
                loop.stop()
                let code = await error?.code
                #expect(code == .unavailable)
                await ended.wait()
                channel.shutdown()
                try await tasks.waitForAll()
                let late = await rpcError { try await channel.unary(Methods.hang, Payload(number(1))) }
                #expect(late?.code == .unavailable)
            }
        }
    }
}
