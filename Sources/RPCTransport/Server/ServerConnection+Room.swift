// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore
internal import SwitchyardTypes

// Room for calls, and the connection's place among others.

extension ServerConnection {
    /// Asks whether there is room for a call.
    ///
    /// - Parameter context: The call.
    /// - Returns: The error that refuses it; nil if there is room.
    func admit(_ context: ServerContext) -> RPCError? {
        if let refusal = self.placeRefusal(context) { return refusal }
        guard let hasRoom = self.hasRoom else { return nil }
        let refusal = hasRoom(context)
        if refusal == nil {
            self.admittedInRead += 1
        } else if refusal?.code == .resourceExhausted {
            self.refusedInRead += 1
        }
        return refusal
    }

    /// Refuses a call of a connection that has no place for it.
    private func placeRefusal(_ context: ServerContext) -> RPCError? {
        if self.servesProbesOnly, !self.probeServices.contains(context.method.service) {
            guard self.places.promote() else {
                return RPCError(.resourceExhausted, "all connections of the server are busy; try again later")
            }
            self.servesProbesOnly = false
        }
        guard let name = context.shared.callerName, name != self.knownName else { return nil }
        guard self.places.identify(name) else {
            return RPCError(
                .resourceExhausted,
                "the \(name) has its share of the server's connections, and all of them are busy; use one of them"
            )
        }
        self.knownName = name
        return nil
    }

    func readEnded() -> Duration? {
        let (admitted, refused) = (self.admittedInRead, self.refusedInRead)
        guard admitted + refused > 0 else { return nil }
        self.admittedInRead = 0
        self.refusedInRead = 0
        // Nearly every read of a server with room.
        if refused == 0, self.pace == RefusalPace() { return nil }
        return self.pace.readEnded(admitted: admitted, refused: refused, chance: .random(in: 0...1), now: .now)
    }

    /// Leaves for another connection: at once if there is no call, otherwise when the calls have ended.
    func leave() {
        guard self.calls.isEmpty else { return self.beginDrain() }
        guard let handler = self.handler, handler.handshakeIsComplete else {
            self.handler?.close(reason: "it was silent, and left for another connection")
            return
        }
        self.drain = .final
        self.codec.goAway(debug: "the server has many connections, and this one was idle")
        handler.setNeedsFlush()
    }

    /// How many refusals are kept: their retry hints take few values.
    private static let refusalLimit = 32

    /// Writes the end of a call that there is no room for, from what was stored for the one before.
    ///
    /// - Returns: Whether it was written.
    func submitRefusal(_ call: ServerCall, _ ending: ServerCallState.Ending) -> Bool {
        guard case .trailersOnly(let trailers, let encodings) = ending.block, encodings.isEmpty,
            trailers.status.code == .resourceExhausted
        else { return false }
        do throws(HTTP2CodecError) {
            var block = self.refusals[trailers]
            if block == nil, self.refusals.count < Self.refusalLimit {
                block = try self.codec.store(ending.fields.forCodec)
                self.refusals[trailers] = block
            }
            guard let block else { return false }
            try self.codec.submitResponse(streamID: call.streamID, block, endStream: true)
            self.setNeedsFlush()
        } catch {
            self.fail(call, error)
        }
        return true
    }
}
