// SPDX-License-Identifier: Apache-2.0

import CProtobufC

/// A message with a C structure that protobuf-c reads and writes.
protocol CBacked: Sendable {
    /// The generated structure; its first member is a `ProtobufCMessage`.
    associatedtype C

    /// Calls the generated `init` function.
    static func prepare(_ c: UnsafeMutablePointer<C>)

    /// Copies the message out of the structure.
    init(reading c: C, _ fields: FieldReader) throws(ProtoError)

    /// Fills the prepared structure; what it points to lives in the arena.
    func write(_ c: inout C, _ arena: ProtoArena)
}

/// An entry of a map, which is a message of key and value on the wire.
protocol ProtoMapEntry: CBacked {
    associatedtype Key: Hashable & Comparable
    associatedtype Value

    var key: Key { get }
    var value: Value { get }

    init(key: Key, value: Value)
}

/// An enum whose raw value is the number on the wire.
protocol ProtoChoice: RawRepresentable where RawValue == UInt32 {}

extension MessageCodec where Message: CBacked {
    /// Creates the codec of a message with a C structure.
    init() {
        self.init(
            decode: { (bytes, limits) throws(ProtoError) in try Message.unpack(bytes, limits) },
            encode: { $0.pack() }
        )
    }
}

extension CBacked {
    /// The message's generated descriptor, as the generated `init` function sets it.
    ///
    /// Reading the descriptor's global from Swift would give a copy with another address.
    private static var descriptor: UnsafePointer<ProtobufCMessageDescriptor>? {
        withUnsafeTemporaryAllocation(of: C.self, capacity: 1) { buffer in
            guard let c = buffer.baseAddress else {
                return nil
            }
            Self.prepare(c)
            return UnsafeRawPointer(c).loadUnaligned(as: ProtobufCMessage.self).descriptor
        }
    }

    /// Reads a message.
    fileprivate static func unpack(_ bytes: UnsafeRawBufferPointer, _ limits: ProtoLimits) throws(ProtoError) -> Self {
        let fields = FieldReader(descriptor: Self.descriptor)
        guard bytes.count <= limits.maxMessageBytes else {
            throw fields.error(
                .overLimit,
                "",
                "\(bytes.count) bytes are over the limit of \(limits.maxMessageBytes); send less or raise the limit"
            )
        }
        let memory = limits.memory(forMessageBytes: bytes.count)
        let arena = ProtoArena(limit: memory)
        let unpacked = arena.withAllocator { allocator in
            protobuf_c_message_unpack(
                fields.descriptor,
                allocator,
                bytes.count,
                bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            )
        }
        return try withExtendedLifetime(arena) { () throws(ProtoError) in
            guard let unpacked else {
                throw arena.isExhausted
                    ? fields.error(
                        .overLimit,
                        "",
                        "\(bytes.count) bytes unfold to more than \(memory) bytes of memory; send fewer, larger parts"
                    )
                    : fields.error(
                        .malformed,
                        "",
                        "the \(bytes.count) bytes are not such a message; compare both sides' .proto files"
                    )
            }
            return try UnsafeMutableRawPointer(unpacked)
                .withMemoryRebound(to: C.self, capacity: 1) {
                    c throws(ProtoError) in try Self(reading: c.pointee, fields)
                }
        }
    }

    /// Writes a message.
    fileprivate func pack() -> [UInt8] {
        let arena = ProtoArena()
        let c = arena.structure(self)
        return withExtendedLifetime(arena) {
            UnsafeMutableRawPointer(c)
                .withMemoryRebound(to: ProtobufCMessage.self, capacity: 1) { base in
                    let size = protobuf_c_message_get_packed_size(base)
                    return [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
                        count = buffer.baseAddress.map { protobuf_c_message_pack(base, $0) } ?? 0
                    }
                }
        }
    }
}
