// SPDX-License-Identifier: Apache-2.0

/// Finds files of a descriptor set by what they declare, as server reflection needs.
///
/// Source: https://github.com/protocolbuffers/protobuf/blob/v3.21.12/src/google/protobuf/descriptor.proto.
public struct DescriptorIndex: Sendable {
    /// A file's place in the set.
    public typealias Place = Int

    private var files: [File] = []
    private var places: [String: Place] = [:]
    private var symbols: [String: Place] = [:]
    private var messages: Set<String> = []
    private var extensions: [String: [Int32: Place]] = [:]

    private struct File: Sendable {
        var bytes: [UInt8]
        var imports: [String] = []
    }

    /// How deeply message declarations may be nested.
    private static let depthLimit = 32

    /// Reads a descriptor set.
    ///
    /// - Parameter bytes: A serialized `google.protobuf.FileDescriptorSet`.
    /// - Throws: ``ProtoError`` if the bytes are not such a message.
    public init(serializedSet bytes: [UInt8]) throws(ProtoError) {
        // Errors are stored, since the closure cannot throw a typed error.
        let result = bytes.withUnsafeBytes { buffer in
            Result<DescriptorIndex, ProtoError> { () throws(ProtoError) in
                var index = DescriptorIndex()
                try index.readSet(WireReader(buffer, message: "google.protobuf.FileDescriptorSet"))
                return index
            }
        }
        self = try result.get()
    }

    private init() {}

    /// Finds a file by its name.
    ///
    /// - Parameter name: Its path, as imports write it.
    /// - Returns: Its place, or nil.
    public func file(named name: String) -> Place? { self.places[name] }

    /// Finds the file that declares something.
    ///
    /// - Parameter symbol: The full name of a service, method, message, field, oneof, enum, enum value or extension.
    /// - Returns: The file's place, or nil.
    public func file(containing symbol: String) -> Place? { self.symbols[symbol] }

    /// Finds the file that declares an extension.
    ///
    /// - Parameters:
    ///   - type: The full name of the message that is extended.
    ///   - number: The extension's number.
    /// - Returns: The file's place, or nil.
    public func file(extending type: String, number: Int32) -> Place? { self.extensions[type]?[number] }

    /// The numbers of a message's extensions.
    ///
    /// - Parameter type: The full name of the message.
    /// - Returns: The numbers, ascending; empty for a message that no file declares.
    public func extensionNumbers(of type: String) -> [Int32]? {
        guard self.messages.contains(type) else {
            return nil
        }
        return (self.extensions[type] ?? [:]).keys.sorted()
    }

    /// A file and all that it imports.
    ///
    /// - Parameter place: The file's place in this set; another number gives an empty list.
    /// - Returns: The places of the file and of all its direct and indirect imports, each once.
    public func closure(of place: Place) -> [Place] {
        guard self.files.indices.contains(place) else {
            return []
        }
        var found = [place]
        var next = 0
        while next < found.count {
            for name in self.files[found[next]].imports {
                if let place = self.places[name], !found.contains(place) { found.append(place) }
            }
            next += 1
        }
        return found
    }

    /// A file's descriptor.
    ///
    /// - Parameter place: The file's place in this set.
    /// - Returns: A serialized `google.protobuf.FileDescriptorProto`; empty for another number.
    public func descriptor(at place: Place) -> [UInt8] {
        self.files.indices.contains(place) ? self.files[place].bytes : []
    }

    // MARK: - Reading

    /// Calls a body for each field of a message that is text, bytes or a message.
    private static func visit(
        _ reader: WireReader,
        _ body: (_ number: UInt32, _ value: Range<Int>) throws(ProtoError) -> Void
    ) throws(ProtoError) {
        var reader = reader
        while let (number, type) = try reader.field() {
            if type == .lengthDelimited {
                try body(number, try reader.delimited(type, "field \(number)"))
            } else {
                try reader.skip(type)
            }
        }
    }

    /// The text of the first field of a message with a number.
    private static func text(_ reader: WireReader, _ wanted: UInt32) throws(ProtoError) -> String {
        var text = ""
        try Self.visit(reader) { number, value throws(ProtoError) in
            if number == wanted { text = String(decoding: reader.bytes[value], as: UTF8.self) }
        }
        return text
    }

    private mutating func readSet(_ set: WireReader) throws(ProtoError) {
        var ranges: [Range<Int>] = []
        try Self.visit(set) { number, value throws(ProtoError) in
            if number == 1 { ranges.append(value) }
        }
        for range in ranges {
            try self.readFile(set.inside(range, message: "google.protobuf.FileDescriptorProto"), range)
        }
    }

    private mutating func readFile(_ file: WireReader, _ range: Range<Int>) throws(ProtoError) {
        let place = self.files.count
        let package = try Self.text(file, 2)
        var imports: [String] = []
        var parts: [(number: UInt32, range: Range<Int>)] = []
        try Self.visit(file) { number, value throws(ProtoError) in
            if number == 3 { imports.append(String(decoding: file.bytes[value], as: UTF8.self)) }
            parts.append((number, value))
        }
        self.files.append(File(bytes: Array(file.bytes[range]), imports: imports))
        self.places[try Self.text(file, 1)] = place
        for (number, range) in parts {
            let part = file.inside(range, message: "google.protobuf.FileDescriptorProto")
            switch number {
            case 4: try self.readMessage(part, scope: package, place, depth: 1)
            case 5: try self.readEnum(part, scope: package, place)
            case 6: try self.readService(part, scope: package, place)
            case 7: try self.readExtension(part, scope: package, place)
            default: break
            }
        }
    }

    private mutating func readMessage(
        _ message: WireReader,
        scope: String,
        _ place: Place,
        depth: Int
    ) throws(ProtoError) {
        guard depth <= Self.depthLimit else {
            throw message.error(.overLimit, "nested_type", "messages are nested more than \(Self.depthLimit) deep")
        }
        let name = Self.join(scope, try Self.text(message, 1))
        self.symbols[name] = place
        self.messages.insert(name)
        var parts: [(number: UInt32, range: Range<Int>)] = []
        try Self.visit(message) { number, value throws(ProtoError) in parts.append((number, value)) }
        for (number, range) in parts {
            let part = message.inside(range, message: "google.protobuf.DescriptorProto")
            switch number {
            case 2, 8: self.symbols[Self.join(name, try Self.text(part, 1))] = place
            case 3: try self.readMessage(part, scope: name, place, depth: depth + 1)
            case 4: try self.readEnum(part, scope: name, place)
            case 6: try self.readExtension(part, scope: name, place)
            default: break
            }
        }
    }

    /// An enum's values are declared next to it, not inside it.
    private mutating func readEnum(_ declaration: WireReader, scope: String, _ place: Place) throws(ProtoError) {
        self.symbols[Self.join(scope, try Self.text(declaration, 1))] = place
        try self.readNames(of: declaration, scope: scope, place)
    }

    private mutating func readService(_ service: WireReader, scope: String, _ place: Place) throws(ProtoError) {
        let name = Self.join(scope, try Self.text(service, 1))
        self.symbols[name] = place
        try self.readNames(of: service, scope: name, place)
    }

    /// The names of an enum's values or a service's methods: in both they are field 1 of the messages in field 2.
    private mutating func readNames(of parent: WireReader, scope: String, _ place: Place) throws(ProtoError) {
        var names: [String] = []
        try Self.visit(parent) { number, value throws(ProtoError) in
            if number == 2 { names.append(try Self.text(parent.inside(value, message: parent.message), 1)) }
        }
        for name in names { self.symbols[Self.join(scope, name)] = place }
    }

    private mutating func readExtension(_ field: WireReader, scope: String, _ place: Place) throws(ProtoError) {
        self.symbols[Self.join(scope, try Self.text(field, 1))] = place
        var extendee = try Self.text(field, 2)
        // Full names in descriptors begin with a dot.
        if extendee.hasPrefix(".") { extendee.removeFirst() }
        var reader = field
        while let (number, type) = try reader.field() {
            if number == 3 {
                let value = Int32(truncatingIfNeeded: try reader.number(type, "number"))
                self.extensions[extendee, default: [:]][value] = place
            } else {
                try reader.skip(type)
            }
        }
    }

    private static func join(_ scope: String, _ name: String) -> String {
        scope.isEmpty ? name : "\(scope).\(name)"
    }
}
