// SPDX-License-Identifier: Apache-2.0

internal import MessageJSON

/// A JSON value to be sent, whose members keep the order in which they are written.
indirect enum JSONOutput: Sendable {
    case null
    case bool(Bool)
    case integer(Int)
    case float(Float)
    case string(String)
    case array([JSONOutput])
    case object([(name: String, value: JSONOutput)])
    /// Text that is JSON already.
    case raw(String)

    /// The value without white space.
    var text: String {
        var text = ""
        self.write(to: &text)
        return text
    }

    private func write(to text: inout String) {
        switch self {
        case .null: text += "null"
        case .bool(let value): text += value ? "true" : "false"
        case .integer(let value): text += "\(value)"
        case .float(let value): text += MessageJSONWriter.number(value)
        case .string(let value): MessageJSONWriter.append(quoted: value, to: &text)
        case .raw(let value): text += value
        case .array(let values):
            text += "["
            for (index, value) in values.enumerated() {
                if index > 0 { text += "," }
                value.write(to: &text)
            }
            text += "]"
        case .object(let members):
            text += "{"
            for (index, member) in members.enumerated() {
                if index > 0 { text += "," }
                MessageJSONWriter.append(quoted: member.name, to: &text)
                text += ":"
                member.value.write(to: &text)
            }
            text += "}"
        }
    }

    /// A text, or null.
    init(_ text: String?) { self = text.map { .string($0) } ?? .null }

    /// A log-probability: JSON has no infinity, and OpenAI's answers have nothing below -9999.
    static func logprob(_ value: Float) -> JSONOutput { .float(value.isNaN ? -9999 : max(value, -9999)) }

    /// An object with further members after its own; any other value stays as it is.
    func adding(_ more: [(name: String, value: JSONOutput)]) -> JSONOutput {
        guard case .object(let members) = self else { return self }
        return .object(members + more)
    }
}

extension JSONOutput: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
    ExpressibleByNilLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
    init(stringLiteral value: String) { self = .string(value) }
    init(integerLiteral value: Int) { self = .integer(value) }
    init(booleanLiteral value: Bool) { self = .bool(value) }
    init(nilLiteral: ()) { self = .null }
    init(arrayLiteral elements: JSONOutput...) { self = .array(elements) }
    init(dictionaryLiteral elements: (String, JSONOutput)...) {
        self = .object(elements.map { (name: $0.0, value: $0.1) })
    }
}
