// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes

/// The bytes of the simulation's messages: little-endian integers one after the other.
///
/// The real messages have tests and fuzz targets of their own; here they only have to be long, and to show when bytes
/// of one row end up in another.
struct WireWriter {
    private(set) var bytes: [UInt8] = []

    mutating func add<Value: FixedWidthInteger>(_ value: Value) {
        var rest = value
        for _ in 0..<(Value.bitWidth / 8) {
            self.bytes.append(UInt8(truncatingIfNeeded: rest))
            rest = rest >> 8
        }
    }

    /// A row: its value in every word, mixed with the word's place.
    mutating func addRow(_ row: UInt64, byteCount: Int) {
        for word in 0..<(byteCount / 8) { self.add(row ^ UInt64(word) &* 0x9E37_79B9_7F4A_7C15) }
    }
}

/// Reads what ``WireWriter`` wrote.
struct WireReader {
    private let bytes: [UInt8]
    private var place = 0

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var isAtEnd: Bool { self.place == self.bytes.count }

    mutating func read<Value: FixedWidthInteger>(_ type: Value.Type) -> Value? {
        let count = Value.bitWidth / 8
        guard self.place + count <= self.bytes.count else { return nil }
        var value: Value = 0
        for index in (0..<count).reversed() {
            value = (Value.bitWidth > 8 ? value << 8 : 0) | Value(truncatingIfNeeded: self.bytes[self.place + index])
        }
        self.place += count
        return value
    }

    /// Reads a row whose words agree.
    mutating func readRow(byteCount: Int) -> UInt64? {
        guard let first = self.read(UInt64.self) else { return nil }
        for word in 1..<max(1, byteCount / 8) {
            guard self.read(UInt64.self) == first ^ UInt64(word) &* 0x9E37_79B9_7F4A_7C15 else { return nil }
        }
        return first
    }
}

/// What a gateway asks a host for.
struct ForwardMessage {
    struct Group {
        var expert: Int
        var rows: [UInt64]
    }

    var layer: SparseLayer
    var groups: [Group]

    var rowCount: Int { self.groups.reduce(0) { $0 + $1.rows.count } }

    func bytes(rowBytes: Int) -> [UInt8] {
        var writer = WireWriter()
        writer.add(UInt8(self.layer.stack == .decoder ? 1 : 0))
        writer.add(UInt8(self.layer.block))
        writer.add(UInt16(self.groups.count))
        for group in self.groups {
            writer.add(UInt16(group.expert))
            writer.add(UInt16(group.rows.count))
        }
        for group in self.groups { for row in group.rows { writer.addRow(row, byteCount: rowBytes) } }
        return writer.bytes
    }

    init(layer: SparseLayer, groups: [Group]) {
        self.layer = layer
        self.groups = groups
    }

    init?(_ bytes: [UInt8], rowBytes: Int) {
        var reader = WireReader(bytes)
        guard let stack = reader.read(UInt8.self), let block = reader.read(UInt8.self),
            let count = reader.read(UInt16.self)
        else { return nil }
        var heads: [(expert: Int, rows: Int)] = []
        for _ in 0..<count {
            guard let expert = reader.read(UInt16.self), let rows = reader.read(UInt16.self) else { return nil }
            heads.append((Int(expert), Int(rows)))
        }
        self.layer = SparseLayer(stack: stack == 1 ? .decoder : .encoder, block: Int(block))
        self.groups = []
        for head in heads {
            var rows: [UInt64] = []
            for _ in 0..<head.rows {
                guard let row = reader.readRow(byteCount: rowBytes) else { return nil }
                rows.append(row)
            }
            self.groups.append(Group(expert: head.expert, rows: rows))
        }
        guard reader.isAtEnd else { return nil }
    }
}

/// What a host answers.
struct ForwardReply {
    /// Stands for a row that is not finite.
    static let notFinite = UInt64.max

    var isLeaving: Bool
    var rows: [UInt64]

    init(isLeaving: Bool, rows: [UInt64]) {
        self.isLeaving = isLeaving
        self.rows = rows
    }

    func bytes(rowBytes: Int) -> [UInt8] {
        var writer = WireWriter()
        writer.add(UInt8(self.isLeaving ? 1 : 0))
        writer.add(UInt16(self.rows.count))
        for row in self.rows { writer.addRow(row, byteCount: rowBytes) }
        return writer.bytes
    }

    init?(_ bytes: [UInt8], rowBytes: Int) {
        var reader = WireReader(bytes)
        guard let flag = reader.read(UInt8.self), let count = reader.read(UInt16.self) else { return nil }
        self.isLeaving = flag == 1
        self.rows = []
        for _ in 0..<count {
            guard let row = reader.readRow(byteCount: rowBytes) else { return nil }
            self.rows.append(row)
        }
        guard reader.isAtEnd else { return nil }
    }
}

/// One token on its way to a client.
struct TokenMessage: Equatable {
    var token: UInt32
    /// Rows of the request that were dropped so far.
    var drops: UInt32

    /// The message, as long as a row, as if a text came with it.
    func bytes(rowBytes: Int) -> [UInt8] {
        var writer = WireWriter()
        writer.add(self.token)
        writer.add(self.drops)
        writer.addRow(UInt64(self.token), byteCount: rowBytes)
        return writer.bytes
    }

    init(token: UInt32, drops: UInt32) {
        self.token = token
        self.drops = drops
    }

    init?(_ bytes: [UInt8], rowBytes: Int) {
        var reader = WireReader(bytes)
        guard let token = reader.read(UInt32.self), let drops = reader.read(UInt32.self),
            reader.readRow(byteCount: rowBytes) == UInt64(token), reader.isAtEnd
        else { return nil }
        self.init(token: token, drops: drops)
    }
}

extension SimulatedRequest {
    /// What the client sends.
    var bytes: [UInt8] {
        var writer = WireWriter()
        writer.add(UInt32(self.id))
        writer.add(self.seed)
        writer.add(UInt16(self.inputTokens))
        writer.add(UInt16(self.outputTokens))
        writer.add(UInt8(self.slots))
        writer.add(UInt32(self.queueTimeout))
        writer.add(UInt8(self.priority))
        return writer.bytes
    }

    init?(_ bytes: [UInt8]) {
        var reader = WireReader(bytes)
        guard let id = reader.read(UInt32.self), let seed = reader.read(UInt64.self),
            let input = reader.read(UInt16.self), let output = reader.read(UInt16.self),
            let slots = reader.read(UInt8.self), let queueTimeout = reader.read(UInt32.self),
            let priority = reader.read(UInt8.self), reader.isAtEnd
        else { return nil }
        self.init(
            id: Int(id),
            time: 0,
            client: 0,
            seed: seed,
            inputTokens: Int(input),
            outputTokens: Int(output),
            slots: Int(slots),
            queueTimeout: Int(queueTimeout),
            priority: Int(priority)
        )
    }
}
