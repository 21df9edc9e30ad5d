// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
public import SwitchyardProtos

/// A receipt as a file: JSON with the names of the protocol, written in one way and read strictly.
public enum ReceiptFile {
    /// The largest file that is read, in bytes.
    public static let maxBytes = 64 << 20

    /// The most JSON values of a file.
    public static let maxValues = 1 << 22

    static let message = "switchyard.v1.Receipt"

    /// Writes a receipt.
    ///
    /// - Parameter receipt: The receipt.
    /// - Returns: JSON; equal receipts give the same text.
    public static func text(_ receipt: Receipt) -> String {
        MessageJSONWriter.text(receipt.serialized(), message: Self.message, form: .file)
    }

    /// Reads a receipt.
    ///
    /// Unknown and repeated fields, values of another type and values in another form than ``text(_:)`` gives
    /// are errors; white space between values does not matter.
    ///
    /// - Parameter bytes: The file.
    /// - Returns: The receipt, whose parts fit each other (``Receipt/checkShape()``). Its digests are not compared yet.
    /// - Throws: ``ReceiptError`` that names the field, the limit and the value.
    public static func receipt(_ bytes: [UInt8]) throws(ReceiptError) -> Receipt {
        guard bytes.count <= Self.maxBytes else {
            throw ReceiptError("", "has \(bytes.count) bytes; the limit is \(Self.maxBytes)")
        }
        let value = try Self.parse(bytes)
        let encoded = try Self.encode(value)
        let receipt: Receipt
        do throws(ProtoError) {
            receipt = try Receipt(serialized: encoded)
        } catch {
            throw ReceiptError("", "is not one of version 1: \(error)")
        }
        // Whatever is not written as it would be written here has been changed, or is not understood.
        let written = try Self.parse(Array(Self.text(receipt).utf8))
        if let difference = Self.difference(value, written, path: "") {
            throw ReceiptError(
                difference.path,
                "is \(difference.found); a receipt with that meaning has \(difference.expected) there, so it was changed by "
                    + "hand or by another program"
            )
        }
        try receipt.checkShape()
        return receipt
    }

    private static func encode(_ value: JSONValue) throws(ReceiptError) -> [UInt8] {
        do throws(MessageJSONError) {
            return try MessageJSONReader.bytes(
                value,
                message: Self.message,
                form: .file,
                unknown: "is unknown; a receipt of version 1 has no such field"
            )
        } catch {
            throw ReceiptError(error.field, error.message)
        }
    }

    private static func parse(_ bytes: [UInt8]) throws(ReceiptError) -> JSONValue {
        let result = bytes.withUnsafeBytes { buffer in
            Result<JSONValue, JSONFault> { () throws(JSONFault) in
                try JSONText.value(buffer, dialect: .serde, maxValues: Self.maxValues, refuseDuplicates: true)
            }
        }
        switch result {
        case .success(let value): return value
        case .failure(let fault):
            throw ReceiptError("", "is not JSON as `generate --receipt` writes it: \(fault.message)")
        }
    }

    /// The first place where two values differ.
    private static func difference(
        _ found: JSONValue,
        _ expected: JSONValue,
        path: String
    ) -> (path: String, found: String, expected: String)? {
        switch (found, expected) {
        case (.object(let found), .object(let expected)):
            for key in Set(found.keys).union(expected.keys).sorted() {
                let place = MessageJSONReader.join(path, key)
                guard let one = found[key] else { return (place, "missing", expected[key]?.kind ?? "a value") }
                guard let other = expected[key] else { return (place, one.kind, "nothing") }
                if let difference = Self.difference(one, other, path: place) { return difference }
            }
            return nil
        case (.array(let found), .array(let expected)):
            for index in 0..<min(found.count, expected.count) {
                let place = "\(path)[\(index)]"
                if let difference = Self.difference(found[index], expected[index], path: place) { return difference }
            }
            guard found.count != expected.count else { return nil }
            return (path, "a list of \(found.count)", "a list of \(expected.count)")
        default:
            return found == expected ? nil : (path, found.kind, expected.kind)
        }
    }
}
