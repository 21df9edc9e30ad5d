// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

/// A field that a dialect's body may have.
struct BodyField: Sendable {
    /// The field's name.
    let name: String
    /// Its schema in the OpenAPI document.
    let schema: JSONOutput

    init(_ name: String, _ about: String, _ schema: JSONOutput) {
        self.name = name
        self.schema = schema.adding([(name: "description", value: .string(about))])
    }
}

/// An object of a body, read strictly: each field is known, and is what it must be.
///
/// Null stands for a field that is left out.
struct BodyReader {
    private let members: [String: JSONValue]
    private let path: String

    /// Takes an object apart.
    ///
    /// - Parameters:
    ///   - value: The value.
    ///   - fields: The fields that it may have.
    ///   - path: Its place in the body; empty for the whole.
    /// - Throws: ``DoorFault`` for another value, and for an unknown field, by its name.
    init(_ value: JSONValue, _ fields: [BodyField], path: String = "") throws(DoorFault) {
        self.path = path
        guard case .object(let members) = value else {
            throw .invalid(path, "is \(value.kind); it must be an object")
        }
        if let unknown = members.keys.filter({ key in !fields.contains { $0.name == key } }).min() {
            let name = String(unknown.prefix(80))
            throw .invalid(
                path.isEmpty ? name : "\(path).\(name)",
                "is not a field of this request; leave it out (it may have \(fields.map(\.name).joined(separator: ", ")))"
            )
        }
        self.members = members.filter { $0.value != .null }
    }

    /// A field's place in the body.
    func place(_ name: String) -> String { self.path.isEmpty ? name : "\(self.path).\(name)" }

    /// A field's value; nil if it is left out.
    func value(_ name: String) -> JSONValue? { self.members[name] }

    /// A field's value that must be there.
    func required(_ name: String, _ words: String) throws(DoorFault) -> JSONValue {
        guard let value = self.members[name] else { throw .invalid(self.place(name), "is missing; \(words)") }
        return value
    }

    /// A true or false.
    func flag(_ name: String) throws(DoorFault) -> Bool? {
        guard let value = self.members[name] else { return nil }
        guard case .bool(let flag) = value else { throw self.wrong(name, value, "true or false") }
        return flag
    }

    /// A text.
    func text(_ name: String) throws(DoorFault) -> String? {
        guard let value = self.members[name] else { return nil }
        guard case .string(let text) = value else { throw self.wrong(name, value, "a text") }
        return text
    }

    /// A whole number, also one that is written with a fraction of zero.
    func integer(_ name: String, in range: ClosedRange<Int>) throws(DoorFault) -> Int? {
        guard let value = self.members[name] else { return nil }
        let words = "a whole number from \(range.lowerBound) to \(range.upperBound)"
        guard let number = Self.whole(value), range.contains(number) else { throw self.wrong(name, value, words) }
        return number
    }

    /// A number.
    func number(_ name: String, in range: ClosedRange<Double>) throws(DoorFault) -> Float? {
        guard let value = self.members[name] else { return nil }
        guard let number = value.double, range.contains(number) else {
            throw self.wrong(name, value, "a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return Float(number)
    }

    /// A list of texts.
    func texts(_ name: String) throws(DoorFault) -> [String]? {
        guard let value = self.members[name] else { return nil }
        guard case .array(let elements) = value else { throw self.wrong(name, value, "a list of texts") }
        var texts: [String] = []
        for (index, element) in elements.enumerated() {
            guard case .string(let text) = element else { throw self.wrong("\(name)[\(index)]", element, "a text") }
            texts.append(text)
        }
        return texts
    }

    /// Refuses a field that cannot be honoured, unless it has a value that asks for nothing.
    ///
    /// - Parameters:
    ///   - name: The field.
    ///   - isNeutral: Whether a value asks for nothing.
    ///   - words: Why it cannot be honoured, and what to do, as the end of a sentence.
    /// - Throws: ``DoorFault`` that names the field.
    func refuse(_ name: String, unless isNeutral: (JSONValue) -> Bool, _ words: String) throws(DoorFault) {
        guard let value = self.members[name], !isNeutral(value) else { return }
        throw .invalid(self.place(name), "is \(value.kind), which \(words)")
    }

    /// The fault of a field with another value than it may have.
    func wrong(_ name: String, _ value: JSONValue, _ words: String) -> DoorFault {
        .invalid(self.place(name), "is \(value.kind); it must be \(words)")
    }

    /// A whole number; nil for anything else.
    static func whole(_ value: JSONValue) -> Int? {
        switch value {
        case .integer(let number): number
        case .number(let number): Int(exactly: number)
        default: nil
        }
    }

    /// Token ids; nil for anything else.
    static func tokenIDs(_ elements: [JSONValue]) -> [UInt32]? {
        var ids: [UInt32] = []
        ids.reserveCapacity(elements.count)
        for element in elements {
            guard case .integer(let number) = element, let id = UInt32(exactly: number) else { return nil }
            ids.append(id)
        }
        return ids
    }
}
