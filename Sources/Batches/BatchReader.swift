// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
package import RPCCore
package import SwitchyardProtos

/// What is asked of each line.
package enum BatchTask: String, Sendable, CaseIterable {
    /// Continue from it: `GenerateRequest`.
    case generate
    /// Score a target: `ScoreRequest`.
    case score
    /// Give the encoder's hidden states: `EncodeRequest`.
    case encode

    /// The full name of the request's message.
    var message: String {
        switch self {
        case .generate: "switchyard.v1.GenerateRequest"
        case .score: "switchyard.v1.ScoreRequest"
        case .encode: "switchyard.v1.EncodeRequest"
        }
    }
}

/// How a line is read.
package enum BatchFormat: String, Sendable, CaseIterable {
    /// A JSON object: the request by protobuf's JSON mapping, and an `id` for the answer.
    case jsonl
    /// The input's text as it is.
    case text
}

/// A request that a line makes.
package enum BatchRequest: Sendable, Equatable {
    case generate(GenerateRequest)
    case score(ScoreRequest)
    case encode(EncodeRequest)
}

/// Why a line has no answer.
package struct BatchFault: Error, Sendable, Hashable {
    /// The code of gRPC.
    package var code: Status.Code
    /// What is wrong.
    package var message: String

    /// Describes a fault.
    ///
    /// - Parameters:
    ///   - code: The code.
    ///   - message: What is wrong.
    package init(_ code: Status.Code, _ message: String) {
        self.code = code
        self.message = message
    }
}

/// A line as it was read.
package struct BatchLine: Sendable {
    /// The line's own name as JSON; nil where it has none.
    package var id: String?
    /// The request, or why there is none.
    package var request: Result<BatchRequest, BatchFault>
}

/// Reads lines as requests.
package struct BatchReader: Sendable {
    /// Values of a line at most, those inside others included.
    private static let mostValues = 1 << 20

    /// What is asked of each line.
    package let task: BatchTask
    /// How a line is read.
    package let format: BatchFormat
    /// The seed of the first line; each has its index added.
    package let seed: UInt64
    private let defaults: JSONValue

    /// Describes how to read.
    ///
    /// - Parameters:
    ///   - task: What is asked of each line.
    ///   - format: How a line is read.
    ///   - defaults: What holds for lines that do not say otherwise.
    ///   - seed: The seed of the first line.
    package init(task: BatchTask, format: BatchFormat, defaults: BatchRequest, seed: UInt64) {
        self.task = task
        self.format = format
        self.seed = seed
        self.defaults = Self.value(Self.text(of: defaults))
    }

    /// A request by protobuf's JSON mapping, in one line.
    ///
    /// - Parameter request: The request.
    /// - Returns: JSON.
    package static func text(of request: BatchRequest) -> String {
        let (bytes, task): ([UInt8], BatchTask) =
            switch request {
            case .generate(let request): (request.serialized(), .generate)
            case .score(let request): (request.serialized(), .score)
            case .encode(let request): (request.serialized(), .encode)
            }
        return MessageJSONWriter.text(bytes, message: task.message, form: .mapping)
    }

    private static func value(_ text: String) -> JSONValue {
        let bytes = Array(text.utf8)
        let value = try? bytes.withUnsafeBytes {
            try JSONText.value($0, dialect: .serde, maxValues: Self.mostValues)
        }
        return value ?? .object([:])
    }

    /// Reads a line.
    ///
    /// - Parameters:
    ///   - bytes: The line without its end.
    ///   - index: Its index, from 0.
    /// - Returns: The line.
    package func line(_ bytes: [UInt8], index: Int) -> BatchLine {
        var id: String?
        do throws(BatchFault) {
            var members = try self.members(of: bytes)
            if members["custom_id"] != nil {
                throw BatchFault(.invalidArgument, "custom_id is a field of OpenAI's batch lines; add --format openai")
            }
            if let name = members.removeValue(forKey: "id") {
                switch name {
                case .string(let text): id = MessageJSONWriter.quoted(text)
                case .integer(let number): id = String(number)
                default: throw BatchFault(.invalidArgument, "id is \(name.kind); it must be a string or an integer")
                }
            }
            return BatchLine(id: id, request: .success(try self.request(members, index: index)))
        } catch {
            return BatchLine(id: id, request: .failure(error))
        }
    }

    private func members(of bytes: [UInt8]) throws(BatchFault) -> [String: JSONValue] {
        switch self.format {
        case .text:
            guard let text = String(validating: bytes, as: UTF8.self) else {
                throw BatchFault(.invalidArgument, "the line is not UTF-8")
            }
            guard text.contains(where: { !$0.isWhitespace }) else {
                throw BatchFault(.invalidArgument, "the line is blank")
            }
            return ["text": .string(text)]
        case .jsonl:
            let value: JSONValue
            do throws(JSONFault) {
                value =
                    try bytes.withUnsafeBytes { bytes in
                        Result { () throws(JSONFault) in
                            try JSONText.value(
                                bytes,
                                dialect: .serde,
                                maxValues: Self.mostValues,
                                refuseDuplicates: true
                            )
                        }
                    }
                    .get()
            } catch {
                throw BatchFault(.invalidArgument, "the line is not JSON: \(error.message)")
            }
            guard case .object(let members) = value else {
                throw BatchFault(.invalidArgument, "the line is \(value.kind); it must be an object")
            }
            return members
        }
    }

    private func request(_ members: [String: JSONValue], index: Int) throws(BatchFault) -> BatchRequest {
        let value = Self.merged(.object(members), over: self.defaults)
        let bytes: [UInt8]
        do throws(MessageJSONError) {
            let unknown = "is not a field of \(self.task.message); leave it out"
            bytes = try MessageJSONReader.bytes(value, message: self.task.message, form: .mapping, unknown: unknown)
        } catch {
            throw BatchFault(
                .invalidArgument,
                error.field.isEmpty ? "the line \(error.message)" : "\(error.field) \(error.message)"
            )
        }
        do throws(ProtoError) {
            switch self.task {
            case .generate:
                var request = try GenerateRequest(serialized: bytes)
                // With a seed of its own a line has the same answer whenever it is asked.
                var parameters = request.parameters ?? GenerationParameters()
                if parameters.seed == nil { parameters.seed = self.seed &+ UInt64(index) }
                request.parameters = parameters
                return .generate(request)
            case .score: return .score(try ScoreRequest(serialized: bytes))
            case .encode: return .encode(try EncodeRequest(serialized: bytes))
            }
        } catch {
            throw BatchFault(.invalidArgument, "the line is no \(self.task.message): \(error)")
        }
    }

    /// A line's members over the defaults: objects are merged, all else of the line's replaces the default.
    private static func merged(_ value: JSONValue, over defaults: JSONValue) -> JSONValue {
        guard case .object(let own) = value, case .object(let others) = defaults else { return value }
        var result = others
        for (key, value) in own {
            // The mapping takes both of a field's names.
            let camel = Self.camel(key)
            if let other = result.removeValue(forKey: camel) {
                result[key] = Self.merged(value, over: other)
            } else {
                result[key] = value
            }
        }
        return .object(result)
    }

    private static func camel(_ name: String) -> String {
        let words = name.split(separator: "_", omittingEmptySubsequences: false)
        guard words.count > 1, let first = words.first else { return name }
        return String(first) + words.dropFirst().map { $0.prefix(1).uppercased() + $0.dropFirst() }.joined()
    }
}
