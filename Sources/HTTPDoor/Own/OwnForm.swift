// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
internal import RPCCore
internal import SwitchyardProtos

/// The gateway's own dialect: the messages of gRPC by protobuf's JSON mapping.
enum OwnForm {
    /// Reads a message.
    ///
    /// - Parameters:
    ///   - value: The JSON value.
    ///   - name: The message's full name.
    ///   - path: Its place in the body; empty for the whole.
    /// - Returns: The message.
    /// - Throws: ``DoorFault`` naming the field that is unknown or has another type.
    static func message<Message: ProtoMessage>(
        _ value: JSONValue,
        _ name: String,
        path: String = ""
    ) throws(DoorFault) -> Message {
        let bytes: [UInt8]
        do throws(MessageJSONError) {
            let unknown = "is not a field of \(name); leave it out"
            bytes = try MessageJSONReader.bytes(value, message: name, form: .mapping, path: path, unknown: unknown)
        } catch {
            throw .invalid(error.field, error.message)
        }
        do throws(ProtoError) {
            return try Message(serialized: bytes)
        } catch {
            throw .invalid(path, "is no \(name): \(error)")
        }
    }

    /// Writes a message.
    static func json(_ message: some ProtoMessage, _ name: String) -> JSONOutput {
        .raw(MessageJSONWriter.text(message.serialized(), message: name, form: .mapping))
    }

    /// A number of 64 bits as sixteen hexadecimal digits.
    static func hexadecimal(_ number: UInt64) -> String {
        let digits = String(number, radix: 16)
        return String(repeating: "0", count: 16 - digits.count) + digits
    }

    /// Bytes in base64, padded.
    static func base64(_ bytes: [UInt8]) -> String {
        let text = Base64.encode(bytes)
        return text + String(repeating: "=", count: (4 - text.utf8.count % 4) % 4)
    }
}
