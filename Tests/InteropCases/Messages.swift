// SPDX-License-Identifier: Apache-2.0

internal import NIOCore
internal import RPCCore

// The messages of Tests/Peers/protos/interop, under the names of those files.

/// Nothing.
struct Empty: InteropMessage {
    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {}
    func write(to bytes: inout WireBytes) {}
}

/// A switch that can also be absent.
struct BoolValue: InteropMessage {
    var value = false

    init() {}

    /// Creates a switch.
    init(_ value: Bool) { self.value = value }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        if field == 1 { self.value = value.bool }
    }

    func write(to bytes: inout WireBytes) { bytes.add(1, self.value) }
}

/// Bytes that fill a message.
struct Filling: InteropMessage {
    var body = ByteBuffer()

    init() {}

    /// Creates `count` zeros.
    init(zeros count: Int) { self.body = ByteBuffer(repeating: 0, count: count) }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        if field == 2 { self.body = value.content }
    }

    func write(to bytes: inout WireBytes) { bytes.add(2, self.body) }
}

/// The status that the server is to end the call with.
struct EchoStatus: InteropMessage {
    var code: Int32 = 0
    var message = ""

    init() {}

    /// Creates a status.
    init(_ code: Int32, _ message: String) {
        self.code = code
        self.message = message
    }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        switch field {
        case 1: self.code = value.int32
        case 2: self.message = String(buffer: value.content)
        default: break
        }
    }

    func write(to bytes: inout WireBytes) {
        bytes.add(1, self.code)
        bytes.add(2, self.message)
    }
}

/// Asks for one message.
struct SimpleRequest: InteropMessage {
    var responseSize: Int32 = 0
    var payload: Filling?
    var responseCompressed: BoolValue?
    var responseStatus: EchoStatus?
    var expectCompressed: BoolValue?

    init() {}

    /// Creates a request for a response of a size, itself filled with zeros.
    init(responseSize: Int32, zeros: Int) {
        self.responseSize = responseSize
        self.payload = Filling(zeros: zeros)
    }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        switch field {
        case 2: self.responseSize = value.int32
        case 3: self.payload = try value.message()
        case 6: self.responseCompressed = try value.message()
        case 7: self.responseStatus = try value.message()
        case 8: self.expectCompressed = try value.message()
        default: break
        }
    }

    func write(to bytes: inout WireBytes) {
        bytes.add(2, self.responseSize)
        bytes.add(3, self.payload)
        bytes.add(6, self.responseCompressed)
        bytes.add(7, self.responseStatus)
        bytes.add(8, self.expectCompressed)
    }
}

/// One message.
struct SimpleResponse: InteropMessage {
    var payload: Filling?

    init() {}

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        if field == 1 { self.payload = try value.message() }
    }

    func write(to bytes: inout WireBytes) { bytes.add(1, self.payload) }
}

/// One of many messages that the server counts.
struct StreamingInputCallRequest: InteropMessage {
    var payload: Filling?
    var expectCompressed: BoolValue?

    init() {}

    /// Creates a message that is filled with zeros.
    init(zeros: Int) { self.payload = Filling(zeros: zeros) }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        switch field {
        case 1: self.payload = try value.message()
        case 2: self.expectCompressed = try value.message()
        default: break
        }
    }

    func write(to bytes: inout WireBytes) {
        bytes.add(1, self.payload)
        bytes.add(2, self.expectCompressed)
    }
}

/// How much the server counted.
struct StreamingInputCallResponse: InteropMessage {
    var aggregatedPayloadSize: Int32 = 0

    init() {}

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        if field == 1 { self.aggregatedPayloadSize = value.int32 }
    }

    func write(to bytes: inout WireBytes) { bytes.add(1, self.aggregatedPayloadSize) }
}

/// What one streamed response is to be like.
struct ResponseParameters: InteropMessage {
    var size: Int32 = 0
    /// How long to wait before it, in microseconds.
    var intervalMicroseconds: Int32 = 0
    var compressed: BoolValue?

    init() {}

    /// Creates parameters for a response of a size.
    init(size: Int32) { self.size = size }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        switch field {
        case 1: self.size = value.int32
        case 2: self.intervalMicroseconds = value.int32
        case 3: self.compressed = try value.message()
        default: break
        }
    }

    func write(to bytes: inout WireBytes) {
        bytes.add(1, self.size)
        bytes.add(2, self.intervalMicroseconds)
        bytes.add(3, self.compressed)
    }
}

/// Asks for any number of messages.
struct StreamingOutputCallRequest: InteropMessage {
    var responseParameters: [ResponseParameters] = []
    var payload: Filling?
    var responseStatus: EchoStatus?

    init() {}

    /// Creates a request for responses of these sizes, itself filled with zeros.
    init(sizes: [Int32], zeros: Int? = nil) {
        self.responseParameters = sizes.map { ResponseParameters(size: $0) }
        self.payload = zeros.map { Filling(zeros: $0) }
    }

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        switch field {
        case 2: self.responseParameters.append(try value.message())
        case 3: self.payload = try value.message()
        case 7: self.responseStatus = try value.message()
        default: break
        }
    }

    func write(to bytes: inout WireBytes) {
        for parameters in self.responseParameters { bytes.add(2, parameters) }
        bytes.add(3, self.payload)
        bytes.add(7, self.responseStatus)
    }
}

/// One of the messages that were asked for.
struct StreamingOutputCallResponse: InteropMessage {
    var payload: Filling?

    init() {}

    mutating func read(_ field: Int, _ value: WireValue) throws(RPCError) {
        if field == 1 { self.payload = try value.message() }
    }

    func write(to bytes: inout WireBytes) { bytes.add(1, self.payload) }
}
