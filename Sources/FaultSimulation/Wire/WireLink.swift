// SPDX-License-Identifier: Apache-2.0

internal import HTTP2Session
internal import NIOCore
internal import RPCCore

/// An end of a connection.
enum LinkSide: Int {
    /// The end that opened the connection.
    case client = 0
    /// The end that accepted it.
    case server = 1

    var other: LinkSide { self == .client ? .server : .client }
}

/// One direction of a connection: bytes stay in order and come once, in pieces of any size, as with TCP.
struct WirePipe {
    private var segments: [ByteBuffer] = []
    private var first = 0
    /// Bytes that were sent and have not arrived.
    private(set) var inFlightBytes = 0
    /// When the last segment so far arrives.
    var lastArrival: Int64 = 0
    /// A segment waits for a cut network to heal.
    var isHeldBack = false
    /// The connection was cut: what its sender goes on to send, until it learns that, is lost.
    private(set) var isCut = false

    mutating func add(_ segment: ByteBuffer) {
        guard !self.isCut else { return }
        self.segments.append(segment)
        self.inFlightBytes += segment.readableBytes
    }

    mutating func next() -> ByteBuffer? {
        guard self.first < self.segments.count else { return nil }
        let segment = self.segments[self.first]
        self.first += 1
        if self.first == self.segments.count {
            self.segments.removeAll(keepingCapacity: true)
            self.first = 0
        }
        self.inFlightBytes -= segment.readableBytes
        return segment
    }

    /// Drops everything that has not arrived, except this number of the next segment's bytes, and takes nothing more.
    ///
    /// - Returns: Whether some of that segment still arrives.
    mutating func cut(keeping count: (_ segmentBytes: Int) -> Int) -> Bool {
        let first = self.next()
        self.clear()
        if var first, first.readableBytes > 1, let part = first.readSlice(length: count(first.readableBytes)) {
            self.add(part)
        }
        self.isCut = true
        return self.inFlightBytes > 0
    }

    /// Drops everything that has not arrived.
    mutating func clear() {
        self.segments = []
        self.first = 0
        self.inFlightBytes = 0
    }
}

/// One connection: a real codec at each end, and the calls that it carries.
final class WireLink {
    /// Which part of draining the server's end is in.
    enum Drain {
        case none
        case announced
        case final
    }

    /// Bytes that a socket takes before its sender must wait.
    static let socketBytes = 1 << 15

    let id: Int
    /// The processes at the two ends, by side.
    let processes: [Int]
    /// The channel that opened it.
    let channel: SimulatedChannel
    let codecs: [HTTP2Codec]
    /// Whether each end still has the connection.
    var isOpen = [true, true]
    /// What flows from each end to the other.
    var pipes = [WirePipe(), WirePipe()]
    /// Whether the client has the server's settings.
    var hasSettings = false
    /// Whether the server has announced its end, or the channel has.
    var isLeaving = false
    var outgoing: [Int32: OutgoingCall] = [:]
    var incoming: [Int32: IncomingCall] = [:]
    /// What unfinished requests hold at the server's end.
    var budget: ReceiveBudget
    var drain = Drain.none
    /// Whether an end is being flushed, so that events do not flush it once more.
    var isFlushing = [false, false]

    init(
        id: Int,
        channel: SimulatedChannel,
        processes: [Int],
        codecs: [HTTP2Codec],
        budgetBytes: Int
    ) {
        self.id = id
        self.channel = channel
        self.processes = processes
        self.codecs = codecs
        self.budget = ReceiveBudget(limitBytes: budgetBytes, stepBytes: 1)
    }

    func codec(_ side: LinkSide) -> HTTP2Codec { self.codecs[side.rawValue] }

    func process(_ side: LinkSide) -> Int { self.processes[side.rawValue] }

    func isOpen(_ side: LinkSide) -> Bool { self.isOpen[side.rawValue] }

    /// Whether an end must wait until bytes have arrived before it can send more.
    func isSocketFull(_ side: LinkSide) -> Bool { self.pipes[side.rawValue].inFlightBytes >= Self.socketBytes }

    /// Whether the client may open a stream now.
    var takesCalls: Bool {
        self.isOpen(.client) && self.hasSettings && !self.isLeaving && self.codec(.client).availableStreams > 0
    }
}

/// A client's way to one server, over one connection after another.
final class SimulatedChannel {
    enum Phase: Equatable {
        case connecting
        case ready
        case waiting
        case stopped
    }

    /// Its number in the run.
    let id: Int
    /// The process that it belongs to, and which start of it.
    let owner: Int
    let generation: Int
    /// Where it leads: a port, which stands for an address.
    let port: Int
    var phase = Phase.connecting
    var link: WireLink?
    /// Which attempt to connect the next event belongs to.
    var attempt = 0
    var failures = 0
    /// Calls that wait for a connection or a stream.
    var waiting: [OutgoingCall] = []

    init(id: Int, owner: Int, generation: Int, port: Int) {
        self.id = id
        self.owner = owner
        self.generation = generation
        self.port = port
    }
}
