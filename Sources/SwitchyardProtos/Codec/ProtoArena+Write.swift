// SPDX-License-Identifier: Apache-2.0

import CProtobufC

extension ProtoArena {
    /// A structure with the message's fields.
    func structure<Message: CBacked>(_ message: Message) -> UnsafeMutablePointer<Message.C> {
        let c = self.block(MemoryLayout<Message.C>.size).bindMemory(to: Message.C.self, capacity: 1)
        Message.prepare(c)
        message.write(&c.pointee, self)
        return c
    }

    /// A structure with the message's fields, or nil.
    func message<Message: CBacked>(_ message: Message?) -> UnsafeMutablePointer<Message.C>? {
        message.map { self.structure($0) }
    }

    /// Structures with the messages' fields.
    func messages<Message: CBacked>(
        _ messages: [Message]
    ) -> (Int, UnsafeMutablePointer<UnsafeMutablePointer<Message.C>?>?) {
        self.array(messages.map { Optional(self.structure($0)) })
    }

    /// Structures with a map's entries, ordered by key, so that equal maps have equal bytes.
    func map<Entry: ProtoMapEntry>(
        _ map: [Entry.Key: Entry.Value],
        as type: Entry.Type
    ) -> (Int, UnsafeMutablePointer<UnsafeMutablePointer<Entry.C>?>?) {
        self.messages(map.sorted { $0.key < $1.key }.map { Entry(key: $0.key, value: $0.value) })
    }

    /// Elements in a row.
    func array<Element>(_ elements: [Element]) -> (Int, UnsafeMutablePointer<Element>?) {
        if elements.isEmpty {
            return (0, nil)
        }
        let start = self.block(MemoryLayout<Element>.stride * elements.count)
            .bindMemory(to: Element.self, capacity: elements.count)
        start.initialize(from: elements, count: elements.count)
        return (elements.count, start)
    }

    /// Bytes.
    func bytes(_ bytes: [UInt8]) -> ProtobufCBinaryData {
        let (count, start) = self.array(bytes)
        return ProtobufCBinaryData(len: count, data: start)
    }

    /// Bytes, several times.
    func byteArrays(_ arrays: [[UInt8]]) -> (Int, UnsafeMutablePointer<ProtobufCBinaryData>?) {
        self.array(arrays.map { self.bytes($0) })
    }

    /// A text's UTF-8.
    func bytes(_ text: String) -> ProtobufCBinaryData {
        self.bytes(Array(text.utf8))
    }

    /// Texts' UTF-8.
    func texts(_ texts: [String]) -> (Int, UnsafeMutablePointer<ProtobufCBinaryData>?) {
        self.array(texts.map { self.bytes($0) })
    }
}
