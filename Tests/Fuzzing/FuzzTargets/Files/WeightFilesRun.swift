// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import SwitchyardTypes

/// Weight files: what is accepted lies inside the file, is as large as it says, and can be read.
enum WeightFilesRun {
    /// A safetensors file.
    ///
    /// The first byte says whether the rest is the whole file, or the header of a file whose length
    /// is right and whose data has as many bytes as the second byte says, times 16.
    static func safetensors(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        var source = ByteSource(bytes)
        let isWhole = source.byte() & 1 == 1
        let dataBytes = isWhole ? 0 : Int(source.byte()) * 16
        let rest = source.rest()
        let file = isWhole ? rest : Self.file(header: rest, dataBytes: dataBytes)
        guard let contents = try Self.contents(file, .safetensors, &trace) else { return }
        let start = 8 + file.prefix(8).reversed().reduce(0) { $0 << 8 | Int($1) }
        var reached = start
        for tensor in contents.tensors.sorted(by: {
            ($0.range.lowerBound, $0.range.upperBound) < ($1.range.lowerBound, $1.range.upperBound)
        }) {
            try expect(tensor.range.lowerBound == reached, "tensors follow each other without holes", tensor.name)
            try expect(tensor.isContiguous, "a safetensors tensor is contiguous", tensor.name)
            reached = tensor.range.upperBound
        }
        try expect(reached == file.count, "the last tensor ends with the file")
        // A header that says the same in the plainest words is read the same.
        let again = Self.file(header: Self.header(contents, start: start), data: file[start...])
        guard let second = try Self.contents(again, .safetensors, &trace) else {
            throw FuzzFinding("what was accepted is accepted once more")
        }
        try expect(second.tensors.count == contents.tensors.count, "a written header has as many tensors")
        let newStart = again.count - (file.count - start)
        for (first, second) in zip(contents.tensors, second.tensors) {
            let isSame =
                first.name == second.name && first.dtype == second.dtype && first.shape == second.shape
                && first.range.lowerBound - start == second.range.lowerBound - newStart
            try expect(isSame, "a tensor is read as it was written", first.name)
        }
    }

    /// A `pytorch_model.bin`, of either format.
    static func torch(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        _ = try Self.contents(bytes, .torch, &trace)
    }

    /// The `data.pkl` of an archive with three storages of 64 bytes, or the same and more bytes at its end.
    static func pickle(_ bytes: [UInt8], _ trace: inout Trace) throws(FuzzFinding) {
        let storage = [UInt8](0..<64)
        let archive = StoredZip.archive(
            [("m/data.pkl", bytes)] + ["0", "1", "2"].map { ("m/data/\($0)", storage) }
        )
        _ = try Self.contents(archive, .torch, &trace)
    }

    /// Reads a file, and checks what was accepted.
    private static func contents(
        _ file: [UInt8],
        _ format: WeightFileContents.Format,
        _ trace: inout Trace
    ) throws(FuzzFinding) -> WeightFileContents? {
        let contents: WeightFileContents
        do throws(CheckpointError) {
            contents = try WeightFileContents(file, as: format)
        } catch {
            try expectWords("\(error)", &trace)
            return nil
        }
        trace.accept()
        trace.note(size: contents.tensors.count)
        var names: Set<String> = []
        for tensor in contents.tensors {
            trace.note(tensor.shape.count)
            trace.note(tensor.isContiguous ? 1 : 0)
            try expect(names.insert(tensor.name).inserted, "a tensor has its name alone", tensor.name)
            let isInside = tensor.range.lowerBound >= 0 && tensor.range.upperBound <= file.count
            try expect(isInside, "a tensor lies in its file", "\(tensor.range) of \(file.count)")
            var elements = 1
            for extent in tensor.shape {
                let (product, overflow) = elements.multipliedReportingOverflow(by: extent)
                try expect(!overflow && extent >= 0, "the extents' product is a number", "\(tensor.shape)")
                elements = product
            }
            let byteCount = elements * tensor.dtype.byteCount
            if tensor.isContiguous {
                try expect(tensor.range.count == byteCount, "a tensor has its shape's bytes", "\(tensor.shape)")
            }
            try expect(byteCount <= file.count, "a tensor is no larger than its file", "\(tensor.shape)")
            let view = tensor.view()
            try expect(view.byteCount == byteCount, "a view has its shape's bytes", "\(tensor.shape)")
            let sum = view.withUnsafeBytes { $0.reduce(0) { $0 &+ Int($1) } }
            trace.note(sum == 0 ? 0 : 1)
        }
        return contents
    }

    // MARK: - Writing

    private static func file(header: [UInt8], dataBytes: Int) -> [UInt8] {
        Self.file(header: header, data: (0..<dataBytes).map { UInt8(truncatingIfNeeded: $0) }[...])
    }

    private static func file(header: [UInt8], data: ArraySlice<UInt8>) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: header.count >> (8 * $0)) } + header + data
    }

    private static func header(_ contents: WeightFileContents, start: Int) -> [UInt8] {
        let entries = contents.tensors.map { tensor in
            let (begin, end) = (tensor.range.lowerBound - start, tensor.range.upperBound - start)
            return "\"\(Self.escaped(tensor.name))\":{\"dtype\":\"\(tensor.typeName)\",\"shape\":\(tensor.shape),"
                + "\"data_offsets\":[\(begin),\(end)]}"
        }
        return Array("{\(entries.joined(separator: ","))}".utf8)
    }

    private static func escaped(_ text: String) -> String {
        var output = ""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": output += "\\\(scalar)"
            case "\0"..<" ":
                let digits = String(scalar.value, radix: 16)
                output += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: output.unicodeScalars.append(scalar)
            }
        }
        return output
    }
}

/// Writes zip archives of stored members, as `torch.save` does.
enum StoredZip {
    /// Makes an archive.
    ///
    /// - Parameter members: Names and contents, in order.
    /// - Returns: The archive; checksums are 0, since the reader does not verify them.
    static func archive(_ members: [(name: String, bytes: [UInt8])]) -> [UInt8] {
        var output: [UInt8] = []
        var directory: [UInt8] = []
        for member in members {
            let sizes = Self.number(member.bytes.count, 4) + Self.number(member.bytes.count, 4)
            let common = Self.number(0, 8) + Self.number(0, 4) + sizes + Self.number(member.name.utf8.count, 2)
            directory += Self.number(0x0201_4B50, 4) + Self.number(0, 2) + Self.number(0, 2) + common
            directory += Self.number(0, 2) + Self.number(0, 2) + Self.number(0, 2) + Self.number(0, 2)
            directory += Self.number(0, 4) + Self.number(output.count, 4) + Array(member.name.utf8)
            output += Self.number(0x0403_4B50, 4) + Self.number(0, 2) + common + Self.number(0, 2)
            output += Array(member.name.utf8) + member.bytes
        }
        let end =
            Self.number(0x0605_4B50, 4) + Self.number(0, 4) + Self.number(members.count, 2)
            + Self.number(members.count, 2) + Self.number(directory.count, 4) + Self.number(output.count, 4)
        return output + directory + end + Self.number(0, 2)
    }

    private static func number(_ value: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    }
}
