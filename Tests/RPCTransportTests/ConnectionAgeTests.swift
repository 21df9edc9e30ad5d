// SPDX-License-Identifier: Apache-2.0

import RPCCore
import Testing

@testable import RPCTransport

@Suite("The age of connections", .timeLimit(.minutes(10)))
struct ConnectionAgeTests {
    private let start = ContinuousClock.now

    private func watch(grace: Duration?, chance: Double = 0.5) -> ConnectionWatch {
        let timing = ConnectionTiming(
            maxAge: .seconds(100),
            maxAgeGrace: grace,
            requestTimeout: nil,
            stallTimeout: nil
        )
        var watch = ConnectionWatch(timing: timing, chance: chance, now: self.start)
        watch.peerSettingsArrived()
        watch.ownSettingsAcknowledged()
        watch.openCallsChanged(1, now: self.start)
        return watch
    }

    @Test("ages are spread by a tenth to both sides", arguments: [(0.0, 90), (0.5, 100), (1.0, 110)])
    func spread(chance: Double, seconds: Int) {
        var watch = self.watch(grace: nil, chance: chance)
        // The factor is a floating-point number.
        let (before, after) = (
            self.start + .seconds(seconds) - .milliseconds(1), self.start + .seconds(seconds) + .milliseconds(1)
        )
        #expect(watch.nextDue.map { before < $0 && $0 < after } == true)
        #expect(watch.timePassed(now: before) == .wait)
        #expect(watch.timePassed(now: after) == .drain)
        // Without a grace its calls may take for ever.
        #expect(watch.nextDue == nil)
        #expect(watch.timePassed(now: self.start + .seconds(9_999)) == .wait)
    }

    @Test("after the grace its calls are ended, once")
    func grace() {
        var watch = self.watch(grace: .seconds(5))
        #expect(watch.timePassed(now: self.start + .seconds(100)) == .drain)
        #expect(watch.nextDue == self.start + .seconds(105))
        #expect(watch.timePassed(now: self.start + .seconds(104)) == .wait)
        #expect(watch.timePassed(now: self.start + .seconds(105)) == .abandon)
        #expect(watch.timePassed(now: self.start + .seconds(106)) == .wait)
        #expect(watch.nextDue == nil)
    }

    @Test("a connection that has reached its age finishes its calls, and the client makes another")
    func drained() async throws {
        let (began, cancelled) = (Signal(), Signal())
        let timing = ConnectionTiming(maxAge: .milliseconds(300), maxAgeGrace: .milliseconds(300))
        try await withServer(timing: timing, [echo, hang(began, cancelled)]) { server, port in
            try await withChannel(port: port) { channel in
                let first = try await channel.unary(Methods.echo, Payload(number(1)), options: .waiting)
                #expect(first.message == number(1))
                // A call that never ends is ended by the server.
                let error = await rpcError {
                    try await channel.unary(Methods.hang, Payload(number(2)), options: .waiting)
                }
                #expect(error != nil)
                // The client goes on with new connections: calls are answered, across several of them.
                let target = server.counts.openedConnections + 3
                while server.counts.openedConnections < target {
                    let reply = try await channel.unary(Methods.echo, Payload(number(3)), options: .waiting)
                    #expect(reply.message == number(3))
                }
            }
        }
    }
}
