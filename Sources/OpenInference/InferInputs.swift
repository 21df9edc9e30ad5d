// SPDX-License-Identifier: Apache-2.0

internal import RPCCore
internal import SwitchyardProtos

/// A tensor of a request, read strictly: its type, its shape and its elements agree.
struct InferInputs {
    private let tensor: InferInputTensor
    /// The tensor's elements as bytes; nil where they are in `contents`.
    private let raw: [UInt8]?

    /// Takes a tensor.
    ///
    /// - Parameters:
    ///   - tensor: The tensor.
    ///   - raw: Its elements as bytes, where the request has such.
    /// - Throws: `RPCError` for a parameter, and for elements that are given twice.
    init(_ tensor: InferInputTensor, raw: [UInt8]?) throws(RPCError) {
        self.tensor = tensor
        self.raw = raw
        if let name = tensor.parameters.keys.min() {
            throw self.wrong("has the parameter \(InferRequest.shown(name)), which is not known here; leave it out")
        }
        if raw != nil, let contents = tensor.contents, contents != InferTensorContents() {
            throw self.wrong("has contents, but the request has raw_input_contents too; give one of them")
        }
    }

    private func wrong(_ words: String) -> RPCError {
        RPCError(.invalidArgument, "inputs.\(InferRequest.shown(self.tensor.name)) \(words)")
    }

    /// The lengths of the axes as a count of rows and of elements in each.
    ///
    /// - Parameters:
    ///   - limit: The most rows.
    ///   - axes: How many axes there may be.
    /// - Returns: The rows, and the elements of each.
    /// - Throws: `RPCError` for another shape.
    private func shape(limit: Int, axes: ClosedRange<Int>) throws(RPCError) -> (rows: Int, width: Int) {
        let shape = self.tensor.shape
        guard axes.contains(shape.count), shape.allSatisfy({ $0 >= 1 && $0 <= 1 << 31 }) else {
            let words = Set([axes.lowerBound, axes.upperBound]).sorted().map(String.init).joined(separator: " or ")
            throw self.wrong("has the shape \(shape); it must have \(words) axes, each of at least 1 element")
        }
        let (rows, width) = (Int(shape[0]), shape.count > 1 ? Int(shape[1]) : 1)
        guard rows <= limit else { throw self.wrong("has \(rows) rows; the limit is \(limit)") }
        return (rows, width)
    }

    /// A text for each row, of the shape `[rows]` or `[rows, 1]`.
    ///
    /// - Parameter limit: The most rows.
    /// - Returns: The texts.
    /// - Throws: `RPCError` where type, shape and elements do not agree, or an element is not UTF-8.
    func texts(limit: Int) throws(RPCError) -> [String] {
        guard self.tensor.datatype == "BYTES" else {
            throw self.wrong("has the datatype \(InferRequest.shown(self.tensor.datatype)); it must be BYTES")
        }
        let (rows, width) = try self.shape(limit: limit, axes: 1...2)
        guard width == 1 else {
            throw self.wrong("has the shape \(self.tensor.shape); its second axis must have 1 element")
        }
        let elements =
            if let raw = self.raw {
                try self.elements(raw, count: rows)
            } else {
                self.tensor.contents?.bytesContents ?? []
            }
        guard elements.count == rows else { throw self.wrong("has \(elements.count) elements; its shape says \(rows)") }
        var texts: [String] = []
        for (index, element) in elements.enumerated() {
            guard let text = String(validating: element, as: UTF8.self) else {
                throw self.wrong("is not UTF-8 at element \(index)")
            }
            texts.append(text)
        }
        return texts
    }

    /// Elements of BYTES: each is a length of four bytes, and then its bytes.
    private func elements(_ bytes: [UInt8], count: Int) throws(RPCError) -> [[UInt8]] {
        var elements: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty, elements.count < count {
            guard rest.count >= 4 else { throw self.wrong("ends within the length of element \(elements.count)") }
            let length = Int(Self.number(rest.prefix(4)))
            rest = rest.dropFirst(4)
            guard rest.count >= length else {
                throw self.wrong("ends within element \(elements.count), which has \(length) bytes")
            }
            elements.append(Array(rest.prefix(length)))
            rest = rest.dropFirst(length)
        }
        guard rest.isEmpty else { throw self.wrong("has \(rest.count) bytes after the \(count) elements of its shape") }
        return elements
    }

    /// Token ids for each row, of the shape `[rows, length]`.
    ///
    /// - Parameters:
    ///   - limit: The most rows.
    ///   - length: The most ids of a row.
    /// - Returns: The rows.
    /// - Throws: `RPCError` where type, shape and elements do not agree, or an element is no token id.
    func tokens(limit: Int, length: Int) throws(RPCError) -> [[UInt32]] {
        let (rows, width) = try self.shape(limit: limit, axes: 2...2)
        guard width <= length else { throw self.wrong("has \(width) ids in a row; the limit is \(length)") }
        let contents = self.tensor.contents ?? InferTensorContents()
        let bytes: Int
        let listed: [Int?]
        switch self.tensor.datatype {
        case "INT64": (bytes, listed) = (8, contents.int64Contents.map { Int(exactly: $0) })
        case "INT32": (bytes, listed) = (4, contents.intContents.map { Int($0) })
        case "UINT32": (bytes, listed) = (4, contents.uintContents.map { Int($0) })
        case "UINT64": (bytes, listed) = (8, contents.uint64Contents.map { Int(exactly: $0) })
        case let other:
            throw self.wrong("has the datatype \(InferRequest.shown(other)); it must be INT64, INT32, UINT32 or UINT64")
        }
        let count = rows * width
        var ids: [UInt32?] = listed.map { $0.flatMap { UInt32(exactly: $0) } }
        if let raw = self.raw {
            guard raw.count == count * bytes else {
                throw self.wrong("has \(raw.count) bytes; its shape and datatype say \(count * bytes)")
            }
            // A negative number of either width has its highest bit set, and so is over the limit of ids.
            ids = stride(from: 0, to: raw.count, by: bytes)
                .map { start in
                    let number = Self.number(raw[start..<(start + bytes)])
                    let isNegative = self.tensor.datatype == "INT32" && number > UInt64(Int32.max)
                    return isNegative ? nil : UInt32(exactly: number)
                }
        }
        guard ids.count == count else { throw self.wrong("has \(ids.count) elements; its shape says \(count)") }
        let known = ids.compactMap { $0 }
        guard known.count == count else {
            let place = ids.firstIndex { $0 == nil } ?? 0
            throw self.wrong("is no token id at element \(place); ids are from 0 to \(UInt32.max)")
        }
        return (0..<rows).map { Array(known[($0 * width)..<(($0 + 1) * width)]) }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
