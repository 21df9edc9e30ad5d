// SPDX-License-Identifier: Apache-2.0

internal import MessageJSON
internal import RPCCore
package import SwitchyardProtos

/// What a line gets: a JSON object of its number, its own name if it has one, and a `response` or an `error`.
///
/// The response is the gateway's message by protobuf's JSON mapping, without what two runs would not have in common: times.
package enum BatchAnswer {
    /// The answer to a line that was generated from.
    ///
    /// - Parameters:
    ///   - response: The gateway's answer.
    ///   - id: The line's own name as JSON.
    ///   - index: The line's index, from 0.
    /// - Returns: The line to write, without its end.
    package static func line(_ response: GenerateResponse, id: String?, index: Int) -> [UInt8] {
        var response = response
        response.usage = Self.lasting(response.usage)
        return Self.line("response", Self.json(response, "switchyard.v1.GenerateResponse"), id, index)
    }

    /// The answer to a line that was scored.
    package static func line(_ response: ScoreResponse, id: String?, index: Int) -> [UInt8] {
        var response = response
        response.usage = Self.lasting(response.usage)
        for place in response.results.indices {
            response.results[place].usage = Self.lasting(response.results[place].usage)
        }
        return Self.line("response", Self.json(response, "switchyard.v1.ScoreResponse"), id, index)
    }

    /// The answer to a line that was encoded.
    package static func line(_ response: EncodeResponse, id: String?, index: Int) -> [UInt8] {
        var response = response
        response.usage = Self.lasting(response.usage)
        for place in response.results.indices {
            response.results[place].usage = Self.lasting(response.results[place].usage)
        }
        return Self.line("response", Self.json(response, "switchyard.v1.EncodeResponse"), id, index)
    }

    /// The answer to a line that failed.
    package static func line(_ fault: BatchFault, id: String?, index: Int) -> [UInt8] {
        let error =
            "{\"code\":\(MessageJSONWriter.quoted(fault.code.name)),\"message\":\(MessageJSONWriter.quoted(fault.message))}"
        return Self.line("error", error, id, index)
    }

    private static func lasting(_ usage: Usage?) -> Usage? {
        guard var usage else { return nil }
        usage.queueMicroseconds = 0
        usage.encodeMicroseconds = 0
        usage.decodeMicroseconds = 0
        return usage
    }

    private static func json(_ message: some ProtoMessage, _ name: String) -> String {
        MessageJSONWriter.text(message.serialized(), message: name, form: .mapping)
    }

    private static func line(_ key: String, _ value: String, _ id: String?, _ index: Int) -> [UInt8] {
        let name = id.map { "\"id\":\($0)," } ?? ""
        return Array("{\"line\":\(index + 1),\(name)\"\(key)\":\(value)}".utf8)
    }
}
