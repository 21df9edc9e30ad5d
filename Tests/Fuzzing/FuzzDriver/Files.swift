// SPDX-License-Identifier: Apache-2.0

import FuzzTargets
import Glibc

/// Files of inputs.
enum Files {
    /// The content of a file, or nothing where it cannot be read.
    static func read(_ path: String) -> [UInt8]? {
        guard let file = fopen(path, "rb") else { return nil }
        defer { fclose(file) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            let count = fread(&chunk, 1, chunk.count, file)
            if count == 0 { return bytes }
            bytes.append(contentsOf: chunk[..<count])
        }
    }

    /// Writes a file and the folder that it is in.
    @discardableResult
    static func write(_ bytes: [UInt8], to path: String) -> Bool {
        if let slash = path.lastIndex(of: "/") { Self.makeFolder(String(path[..<slash])) }
        guard let file = fopen(path, "wb") else {
            print("error: \(path) cannot be written; choose another folder")
            return false
        }
        defer { fclose(file) }
        return fwrite(bytes, 1, bytes.count, file) == bytes.count
    }

    /// Makes a folder and those above it.
    static func makeFolder(_ path: String) {
        var partial = path.hasPrefix("/") ? "/" : ""
        for part in path.split(separator: "/") {
            partial += part + "/"
            mkdir(partial, 0o755)
        }
    }

    /// The paths of a folder's files, in order; none where there is no such folder.
    static func list(_ folder: String) -> [String] {
        guard let directory = opendir(folder) else { return [] }
        defer { closedir(directory) }
        var paths: [String] = []
        while let entry = readdir(directory) {
            guard entry.pointee.d_type == UInt8(DT_REG) else { continue }
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            paths.append("\(folder)/\(name)")
        }
        return paths.sorted()
    }

    /// Writes the seeds of every target, each into the target's folder.
    static func writeSeeds(to folder: String) -> Bool {
        for target in FuzzTarget.allCases {
            for seed in Seeds.inputs(for: target) {
                guard Self.write(seed.bytes, to: "\(folder)/\(target.rawValue)/\(seed.name)") else { return false }
            }
        }
        return true
    }

    /// A short name for an input.
    static func name(of bytes: [UInt8]) -> String {
        let hash = bytes.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
        return String(hash, radix: 16)
    }
}

/// A file in memory that holds the input that is about to run, so that it survives whatever the input does.
final class CurrentInput {
    private static let capacity = FuzzTarget.maxInputBytes + 8
    private let memory: UnsafeMutableRawPointer

    init?(path: String) {
        if let slash = path.lastIndex(of: "/") { Files.makeFolder(String(path[..<slash])) }
        let file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0o644)
        guard file >= 0 else { return nil }
        defer { close(file) }
        guard ftruncate(file, off_t(Self.capacity)) == 0 else { return nil }
        let memory = mmap(nil, Self.capacity, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
        guard let memory, memory != MAP_FAILED else { return nil }
        self.memory = memory
    }

    deinit {
        munmap(self.memory, Self.capacity)
    }

    /// Keeps an input.
    func set(_ bytes: [UInt8]) {
        self.memory.storeBytes(of: UInt64(min(bytes.count, FuzzTarget.maxInputBytes)), as: UInt64.self)
        bytes.withUnsafeBytes { source in
            guard let start = source.baseAddress else { return }
            (self.memory + 8).copyMemory(from: start, byteCount: min(source.count, FuzzTarget.maxInputBytes))
        }
    }

    /// The input that a process that is gone kept last.
    static func last(path: String) -> [UInt8]? {
        guard let bytes = Files.read(path), bytes.count == Self.capacity else { return nil }
        let count = bytes[..<8].reversed().reduce(0) { $0 << 8 | Int($1) }
        return count <= FuzzTarget.maxInputBytes ? Array(bytes[8..<8 + count]) : nil
    }
}
