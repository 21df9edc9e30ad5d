// SPDX-License-Identifier: Apache-2.0

import NIOCore
import RPCCore
import Testing

@testable import RPCTransport

@Suite("Limits in time, as machines")
struct TimeLimitMachineTests {
    private let start = ContinuousClock.now

    @Test("a third early ping is one too many, and anything the server sends clears the strikes")
    func strikes() {
        var strikes = PingStrikes(timing: ConnectionTiming(minimumPingInterval: .seconds(300), pingStrikes: 2))
        // The first ping has none before it.
        #expect(strikes.pinged(openCalls: 1, now: self.start) == false)
        #expect(strikes.pinged(openCalls: 1, now: self.start + .seconds(1)) == false)
        #expect(strikes.pinged(openCalls: 1, now: self.start + .seconds(2)) == false)
        var forgiven = strikes
        #expect(strikes.pinged(openCalls: 1, now: self.start + .seconds(3)) == true)
        forgiven.sent()
        for second in 3..<6 { #expect(forgiven.pinged(openCalls: 1, now: self.start + .seconds(second)) == false) }
        #expect(forgiven.pinged(openCalls: 1, now: self.start + .seconds(6)) == true)
    }

    @Test("pings at the interval are always allowed; without calls it is two hours unless idle pings are allowed")
    func intervals() {
        let timing = ConnectionTiming(minimumPingInterval: .seconds(60), pingStrikes: 0)
        var steady = PingStrikes(timing: timing)
        for minute in 0..<100 { #expect(steady.pinged(openCalls: 1, now: self.start + .seconds(60 * minute)) == false) }
        var idle = PingStrikes(timing: timing)
        #expect(idle.pinged(openCalls: 0, now: self.start) == false)
        #expect(idle.pinged(openCalls: 0, now: self.start + .seconds(61)) == true)
        var twoHours = PingStrikes(timing: timing)
        #expect(twoHours.pinged(openCalls: 0, now: self.start) == false)
        #expect(twoHours.pinged(openCalls: 0, now: self.start + .seconds(7_200)) == false)
        var allowed = PingStrikes(
            timing: ConnectionTiming(minimumPingInterval: .seconds(60), pingStrikes: 0, allowsIdlePings: true)
        )
        #expect(allowed.pinged(openCalls: 0, now: self.start) == false)
        #expect(allowed.pinged(openCalls: 0, now: self.start + .seconds(61)) == false)
        var uncounted = PingStrikes(timing: ConnectionTiming(minimumPingInterval: nil, pingStrikes: 0))
        for _ in 0..<10 { #expect(uncounted.pinged(openCalls: 0, now: self.start) == false) }
    }

    @Test("a stall lasts from the first check that finds it to the last")
    func stall() {
        var clock = StallClock()
        #expect(clock.observe(isWaiting: true, progress: 0, now: self.start) == .zero)
        #expect(clock.observe(isWaiting: true, progress: 0, now: self.start + .seconds(4)) == .seconds(4))
        #expect(clock.observe(isWaiting: true, progress: 1, now: self.start + .seconds(5)) == .zero)
        #expect(clock.observe(isWaiting: true, progress: 1, now: self.start + .seconds(8)) == .seconds(3))
        #expect(clock.observe(isWaiting: false, progress: 1, now: self.start + .seconds(9)) == .zero)
        #expect(clock.observe(isWaiting: true, progress: 1, now: self.start + .seconds(10)) == .zero)
        #expect(clock.observe(isWaiting: true, progress: 1, now: self.start + .seconds(11)) == .seconds(1))
    }

    @Test("a connection is swept four times within its shortest limit, and probed without calls only on request")
    func sweeps() {
        let timing = ConnectionTiming(
            keepaliveInterval: .seconds(10),
            requestTimeout: .seconds(8),
            stallTimeout: .seconds(60)
        )
        var watch = ConnectionWatch(timing: timing, now: self.start)
        watch.peerSettingsArrived()
        watch.ownSettingsAcknowledged()
        #expect(watch.nextDue == self.start + .seconds(2))
        #expect(watch.timePassed(now: self.start + .seconds(2)) == .sweep)
        #expect(watch.nextDue == self.start + .seconds(4))
        for second in stride(from: 4, through: 12, by: 2) {
            #expect(watch.timePassed(now: self.start + .seconds(second)) == .sweep)
        }
        watch.openCallsChanged(1, now: self.start + .seconds(12))
        #expect(watch.timePassed(now: self.start + .seconds(12)) == .ping)
        #expect(ConnectionTiming(requestTimeout: nil, stallTimeout: nil).sweepInterval == nil)
    }
}

@Suite("Limits in time and number over loopback", .timeLimit(.minutes(10)))
struct LimitTests {
    /// The frames of a call's request: headers, and fewer bytes of a message than were announced.
    private static func partialRequest(_ method: Method = Methods.echo) -> ByteBuffer {
        var bytes = RawPeer.preface
        var block: [UInt8] = [0x83, 0x86]
        for (name, value) in [
            (":path", method.path), (":authority", "x"), ("te", "trailers"), ("content-type", "application/grpc"),
        ] {
            block += [0x00, UInt8(name.utf8.count)] + Array(name.utf8) + [UInt8(value.utf8.count)] + Array(value.utf8)
        }
        bytes.writeImmutableBuffer(RawPeer.frame(type: 1, flags: 4, streamID: 1, payload: block))
        bytes.writeImmutableBuffer(RawPeer.frame(type: 0, streamID: 1, payload: [0, 0, 0, 0, 9, 1, 2]))
        return bytes
    }

    @Test("a request that does not arrive ends with a status, and the connection stays open")
    func slowSender() async throws {
        let timing = ConnectionTiming(requestTimeout: .milliseconds(60))
        try await withServer(timing: timing, [echo]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(Self.partialRequest())
            // Trailers-Only with END_STREAM, then NO_ERROR for the rest of the request, which is not needed.
            let head = try await peer.waitForFrame(type: 1)
            #expect(head.flags & 1 == 1)
            let reset = try await peer.waitForFrame(type: 3)
            #expect(reset.payload.getInteger(at: reset.payload.readerIndex, as: UInt32.self) == 0)
            try await peer.send(RawPeer.frame(type: 6, payload: Array(repeating: 0, count: 8)))
            try await peer.waitForFrame(type: 6)
            try await peer.close()
        }
    }

    @Test("a stream of requests may pause between two messages, but not inside one")
    func pausedStream() async throws {
        let timing = ConnectionTiming(requestTimeout: .milliseconds(60))
        try await withServer(timing: timing, [chat]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(Self.partialRequest(Methods.chat))
            let head = try await peer.waitForFrame(type: 1)
            #expect(head.flags & 1 == 1)
            try await peer.close()
            try await withChannel(port: port) { channel in
                let call = channel.bidirectional(Methods.chat, options: .waiting)
                try await call.requests.write(Payload(pattern(10)))
                var responses = call.responses.makeAsyncIterator()
                #expect(try await responses.next() == pattern(10))
                // Three times the limit, and as much more as the machine likes: what must not happen needs time not to happen in.
                try await Task.sleep(for: .milliseconds(180))
                try await call.requests.write(Payload(pattern(20)))
                #expect(try await responses.next() == pattern(20))
                call.requests.finish()
                #expect(try await responses.next() == nil)
            }
        }
    }

    @Test("a caller that does not read a stream loses the call but not the connection")
    func slowReader() async throws {
        let timing = ConnectionTiming(stallTimeout: .milliseconds(80))
        let (ended, continuation) = AsyncStream.makeStream(of: Bool.self)
        let flood = ServiceMethod.serverStreaming(Methods.count) { _, context, writer in
            do {
                while true { try await writer.write(Payload(pattern(10_000))) }
            } catch {
                continuation.yield(context.isCancelled)
                throw error
            }
        }
        try await withServer(timing: timing, [flood, echo]) { _, port in
            try await withChannel(port: port) { channel in
                let responses = channel.serverStreaming(Methods.count, Payload(pattern(1)), options: .waiting)
                var wasCancelled: Bool?
                for await flag in ended {
                    wasCancelled = flag
                    break
                }
                #expect(wasCancelled == true)
                let reply = try await channel.unary(Methods.echo, Payload(pattern(5)), options: .waiting)
                #expect(reply.message == pattern(5))
                await #expect(throws: RPCError.self) { for try await _ in responses {} }
            }
        }
    }

    @Test("a client that pings too often is told so, and its calls elsewhere continue")
    func pings() async throws {
        let timing = ConnectionTiming(minimumPingInterval: .seconds(60), pingStrikes: 2, allowsIdlePings: true)
        try await withServer(timing: timing, [echo]) { _, port in
            let peer = try await RawPeer.connect(port: port)
            try await peer.send(RawPeer.preface)
            for _ in 0..<4 { try await peer.send(RawPeer.frame(type: 6, payload: Array(repeating: 7, count: 8))) }
            let goAway = try await peer.waitForFrame(type: 7)
            var payload = goAway.payload
            payload.moveReaderIndex(forwardBy: 4)
            #expect(payload.readInteger(as: UInt32.self) == 11)
            #expect(payload.readString(length: payload.readableBytes) == "too_many_pings")
            #expect(await peer.goAwayCodeAtEnd() == nil)
            try await withChannel(port: port) { channel in
                let reply = try await channel.unary(Methods.echo, Payload(pattern(5)), options: .waiting)
                #expect(reply.message == pattern(5))
            }
        }
    }
}
