// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import JSONValues

extension JSONValue {
    /// Reads a file that holds one JSON object, by the rules of Python's `json`.
    ///
    /// - Parameters:
    ///   - path: The file.
    ///   - maxBytes: The most bytes that it may have.
    /// - Returns: The object's members; of two equal keys the last counts.
    /// - Throws: `CheckpointError` that names the file and the place.
    static func object(
        contentsOf path: String,
        maxBytes: Int
    ) throws(CheckpointError) -> [String: JSONValue] {
        try self.object(
            try JSONFile.withBytes(of: path, maxBytes: maxBytes) { (bytes) throws(CheckpointError) in
                try JSONFile.value(bytes, file: path)
            },
            file: path
        )
    }

    /// Reads one JSON object, by the rules of Python's `json`.
    ///
    /// - Parameters:
    ///   - contents: The text.
    ///   - name: What errors call it.
    /// - Returns: The object's members; of two equal keys the last counts.
    /// - Throws: `CheckpointError` that names the place.
    static func object(_ contents: [UInt8], name: String) throws(CheckpointError) -> [String: JSONValue] {
        let result: Result<JSONValue, CheckpointError> = contents.withUnsafeBytes { bytes in
            do throws(CheckpointError) {
                return .success(try JSONFile.value(bytes, file: name))
            } catch {
                return .failure(error)
            }
        }
        return try self.object(try result.get(), file: name)
    }

    private static func object(_ value: JSONValue, file path: String) throws(CheckpointError) -> [String: JSONValue] {
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

/// A scanner that throws this module's errors.
typealias CheckpointScanner = JSONValues.JSONScanner<CheckpointError>

extension CheckpointError: JSONFailure {
    static func malformed(_ found: String, at position: Int, in file: String) -> CheckpointError {
        CheckpointError(
            code: .malformed,
            message: "is not the expected JSON (\(found) at byte \(position)); fetch the file again",
            file: file
        )
    }

    static func tooManyValues(_ limit: Int, at position: Int, in file: String) -> CheckpointError {
        CheckpointError(
            code: .limitExceeded,
            message:
                "holds more than \(limit) JSON values by byte \(position), more than any checkpoint needs; fetch the "
                + "file again",
            file: file
        )
    }
}

/// Reading of JSON files with errors that name the file.
enum JSONFile {
    /// The most values of a file.
    ///
    /// The largest that is known, an index of `google/switch-c-2048`, has under 70,000.
    static let maxValues = 1_048_576

    /// Reads one of this program's own files: the keys of a type, each at most once.
    static func decode<T: Decodable>(
        _ type: T.Type,
        contentsOf path: String,
        maxBytes: Int
    ) throws(CheckpointError) -> T {
        try self.withBytes(of: path, maxBytes: maxBytes) { (bytes) throws(CheckpointError) in
            // Foundation's decoder is laxer than JSON, so the text is checked first.
            _ = try self.value(bytes, file: path, refuseDuplicates: true)
            do {
                return try JSONDecoder().decode(type, from: Data(bytes))
            } catch {
                throw CheckpointError(
                    code: .malformed,
                    message: "is not the expected JSON (\(self.explain(error))); fetch the file again",
                    file: path
                )
            }
        }
    }

    /// Reads a text by the rules of Python's `json`.
    static func value(
        _ bytes: UnsafeRawBufferPointer,
        file: String,
        refuseDuplicates: Bool = false
    ) throws(CheckpointError) -> JSONValue {
        var scanner = CheckpointScanner(bytes, file: file, dialect: .python, maxValues: self.maxValues)
        let value = try scanner.value(refuseDuplicates: refuseDuplicates)
        try scanner.end()
        return value
    }

    /// Maps a file, and says what it is if it is not JSON at all.
    static func withBytes<R>(
        of path: String,
        maxBytes: Int,
        _ body: (UnsafeRawBufferPointer) throws(CheckpointError) -> R
    ) throws(CheckpointError) -> R {
        let file = try MappedFile(path: path)
        guard file.bytes.count <= maxBytes else {
            throw CheckpointError(
                code: .limitExceeded,
                message: "is \(file.bytes.count) bytes long; the limit for this file is \(maxBytes)",
                file: path
            )
        }
        try FileContent.refuseStandIns(file.bytes, path)
        try FileContent.refuseOtherEncodings(file.bytes, path)
        return try withExtendedLifetime(file) { () throws(CheckpointError) in try body(file.bytes) }
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
