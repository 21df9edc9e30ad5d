// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

extension JSONValue {
    /// Reads a file that holds one JSON object.
    static func object(
        contentsOf path: String,
        maxBytes: Int
    ) throws(CheckpointError) -> [String: JSONValue] {
        let value: JSONValue = try JSONFile.decode(JSONValue.self, contentsOf: path, maxBytes: maxBytes)
        guard case .object(let object) = value else {
            throw CheckpointError(
                code: .malformed,
                message: "holds \(value.kind) where a JSON object is needed; fetch the file again",
                file: path
            )
        }
        return object
    }
}

/// Typed reading of JSON files with errors that name the file.
enum JSONFile {
    static func decode<T: Decodable>(
        _ type: T.Type,
        contentsOf path: String,
        maxBytes: Int
    ) throws(CheckpointError) -> T {
        let file = try MappedFile(path: path)
        guard file.bytes.count <= maxBytes else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "is \(file.bytes.count) bytes long; the limit for this file is \(maxBytes)",
                file: path
            )
        }
        return try self.decode(type, from: file.bytes, file: path)
    }

    static func decode<T: Decodable>(
        _ type: T.Type,
        from bytes: UnsafeRawBufferPointer,
        file: String
    ) throws(CheckpointError) -> T {
        do {
            return try JSONText.decode(type, from: bytes)
        } catch {
            try FileContent.refuseStandIns(bytes, file)
            throw CheckpointError(
                code: .malformed,
                message: "is not the expected JSON (\(Self.explain(error))); fetch the file again",
                file: file
            )
        }
    }

    private static func explain(_ error: any Error) -> String {
        guard let error = error as? DecodingError else { return "unreadable" }
        let (context, what): (DecodingError.Context, String)
        switch error {
        case .typeMismatch(_, let found): (context, what) = (found, "wrong type")
        case .valueNotFound(_, let found): (context, what) = (found, "null")
        case .keyNotFound(let key, let found): (context, what) = (found, "no key \"\(key.stringValue)\"")
        case .dataCorrupted(let found): (context, what) = (found, "not valid JSON")
        @unknown default: return "unreadable"
        }
        let path = context.codingPath.map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? what : "\(what) at \(path.prefix(120))"
    }
}
