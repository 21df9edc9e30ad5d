// SPDX-License-Identifier: Apache-2.0

import CProtobufC

/// Copies fields out of the C structure of one message and names the message in errors.
struct FieldReader {
    /// The message's generated descriptor.
    let descriptor: UnsafePointer<ProtobufCMessageDescriptor>?

    /// An error that names the message.
    func error(_ code: ProtoError.Code, _ field: String, _ detail: String) -> ProtoError {
        let name = self.descriptor?.pointee.name.map { String(cString: $0) }
        return ProtoError(code, message: name ?? "message", field: field, detail: detail)
    }

    /// A text, checked to be UTF-8; NULs inside it are kept.
    func string(_ data: ProtobufCBinaryData, _ field: String) throws(ProtoError) -> String {
        guard let start = data.data, data.len > 0 else {
            return ""
        }
        guard let text = String(validating: UnsafeBufferPointer(start: start, count: data.len), as: UTF8.self) else {
            throw self.error(.invalidUTF8, field, "the \(data.len) bytes are not UTF-8; encode the text as UTF-8")
        }
        return text
    }

    /// Texts, checked to be UTF-8.
    func strings(
        _ count: Int,
        _ data: UnsafeMutablePointer<ProtobufCBinaryData>?,
        _ field: String
    ) throws(ProtoError) -> [String] {
        var texts: [String] = []
        for element in UnsafeBufferPointer(start: data, count: data == nil ? 0 : count) {
            texts.append(try self.string(element, field))
        }
        return texts
    }

    /// Bytes.
    func bytes(_ data: ProtobufCBinaryData) -> [UInt8] {
        guard let start = data.data else {
            return []
        }
        return Array(UnsafeBufferPointer(start: start, count: data.len))
    }

    /// Bytes, several times.
    func byteArrays(_ count: Int, _ data: UnsafeMutablePointer<ProtobufCBinaryData>?) -> [[UInt8]] {
        UnsafeBufferPointer(start: data, count: data == nil ? 0 : count).map { self.bytes($0) }
    }

    /// Numbers.
    func array<Element>(_ count: Int, _ elements: UnsafeMutablePointer<Element>?) -> [Element] {
        guard let elements else {
            return []
        }
        return Array(UnsafeBufferPointer(start: elements, count: count))
    }

    /// An enum value that this side must understand: an unknown one is an error.
    func choice<Choice: ProtoChoice>(_ rawValue: UInt32, _ field: String) throws(ProtoError) -> Choice {
        guard let choice = Choice(rawValue: rawValue) else {
            throw self.error(
                .unknownChoice,
                field,
                "\(Int32(bitPattern: rawValue)) is not known; use a value of the .proto file"
            )
        }
        return choice
    }

    /// A message, or nil where the field is absent.
    func message<Message: CBacked>(
        _ pointer: UnsafeMutablePointer<Message.C>?,
        as type: Message.Type = Message.self
    ) throws(ProtoError) -> Message? {
        guard let pointer else {
            return nil
        }
        let base = UnsafeRawPointer(pointer).loadUnaligned(as: ProtobufCMessage.self)
        return try Message(reading: pointer.pointee, FieldReader(descriptor: base.descriptor))
    }

    /// Messages.
    func messages<Message: CBacked>(
        _ count: Int,
        _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Message.C>?>?,
        as type: Message.Type = Message.self
    ) throws(ProtoError) -> [Message] {
        guard let pointers else {
            return []
        }
        var messages: [Message] = []
        messages.reserveCapacity(count)
        for index in 0..<count {
            if let message = try self.message(pointers[index], as: type) {
                messages.append(message)
            }
        }
        return messages
    }

    /// A map.
    func map<Entry: ProtoMapEntry>(
        _ count: Int,
        _ pointers: UnsafeMutablePointer<UnsafeMutablePointer<Entry.C>?>?,
        as type: Entry.Type
    ) throws(ProtoError) -> [Entry.Key: Entry.Value] {
        let entries = try self.messages(count, pointers, as: type)
        // As in every protobuf map, the last of several entries with one key wins.
        return Dictionary(entries.map { ($0.key, $0.value) }) { _, last in last }
    }
}
