// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import Foundation

/// Values on disk by the content that they were computed from: bounded, and checked when they are read.
///
/// The folder holds segments, `segment-00000001.bin` and so on, to whose last one values are appended. A record is
///
///     magic | bytes of the key | bytes of the value | XXH64 of these three, the key and the value | key | value
///
/// with four-byte numbers and an eight-byte hash, little-endian. A value whose record does not fit its hash, or is cut off,
/// counts as absent, so it is computed again and appended. When all segments together are over the limit, the oldest one
/// goes, with what it holds. One process uses a folder at a time.
public final class ContentCache {
    /// What was found, and what was not.
    public struct Counts: Sendable, Hashable {
        /// Values that were read.
        public var found = 0
        /// Values that were not there.
        public var missing = 0
        /// Records that did not fit their hash.
        public var damaged = 0
        /// Values that could not be written.
        public var lost = 0
    }

    private struct Place {
        var segment: Int
        var offset: Int
        var keyBytes: Int
        var valueBytes: Int

        var byteCount: Int { ContentCache.headerBytes + self.keyBytes + self.valueBytes }
    }

    private struct Segment {
        let path: String
        let descriptor: Int32
        var byteCount: Int
    }

    /// Bytes of a record before its key.
    private static let headerBytes = 20
    private static let magic: UInt32 = 0x5359_4343
    private static let prefix = "segment-"
    private static let suffix = ".bin"
    /// Segments that the limit is divided into.
    private static let segmentsPerLimit = 8
    /// The least limit.
    public static let leastBytes = 1 << 16

    private let directory: String
    private let limit: Int
    private let lock: Int32
    private var segments: [Int: Segment] = [:]
    private var index: [UInt64: Place] = [:]

    /// What was found so far, and what was not.
    public private(set) var counts = Counts()

    /// Bytes of all segments.
    public var byteCount: Int { self.segments.values.reduce(0) { $0 + $1.byteCount } }

    /// Opens a folder, or makes it.
    ///
    /// - Parameters:
    ///   - directory: The folder.
    ///   - limit: Bytes at most, at least ``leastBytes``.
    /// - Throws: ``RunError`` where the folder cannot be used, or another process uses it.
    public init(_ directory: String, limit: Int) throws(RunError) {
        guard limit >= Self.leastBytes else {
            throw RunError("the cache's limit is \(limit) bytes, but must be at least \(Self.leastBytes)")
        }
        self.directory = directory
        self.limit = limit
        do {
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        } catch {
            throw RunError("\(directory) cannot be created: \(error); name another folder for the cache")
        }
        self.lock = open("\(directory)/lock", O_RDWR | O_CREAT | O_CLOEXEC, 0o644)
        guard self.lock >= 0 else {
            throw RunError("\(directory): \(String(cString: strerror(errno))); name another folder for the cache")
        }
        guard flock(self.lock, LOCK_EX | LOCK_NB) == 0 else {
            close(self.lock)
            throw RunError(
                "\(directory) is in use by another run; name another folder for the cache, or wait for its end"
            )
        }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        for number in names.compactMap(Self.number).sorted() { self.openSegment(number) }
        self.trim()
    }

    deinit {
        for segment in self.segments.values { close(segment.descriptor) }
        close(self.lock)
    }

    /// Reads a value.
    ///
    /// - Parameter key: What it was computed from.
    /// - Returns: The value; nil where it is absent or damaged.
    public func value(for key: [UInt8]) -> [UInt8]? {
        let hash = XXHash64.hash(key)
        guard let place = self.index[hash], let record = self.read(place) else {
            self.counts.missing += 1
            return nil
        }
        guard Self.checksum(record) == Self.word64(record, 12) else {
            self.counts.damaged += 1
            self.counts.missing += 1
            self.index[hash] = nil
            return nil
        }
        // Another key may have the same hash.
        guard record[Self.headerBytes..<Self.headerBytes + place.keyBytes].elementsEqual(key) else {
            self.counts.missing += 1
            return nil
        }
        self.counts.found += 1
        return Array(record[(Self.headerBytes + place.keyBytes)...])
    }

    /// Keeps a value; one that cannot be written, or is larger than a segment, is not kept.
    ///
    /// - Parameters:
    ///   - value: The value.
    ///   - key: What it was computed from.
    public func store(_ value: [UInt8], for key: [UInt8]) {
        let segmentLimit = self.limit / Self.segmentsPerLimit
        let place = Place(segment: 0, offset: 0, keyBytes: key.count, valueBytes: value.count)
        guard key.count <= segmentLimit, value.count <= segmentLimit, place.byteCount <= segmentLimit,
            var segment = self.segmentWithRoom(for: place.byteCount, limit: segmentLimit)
        else {
            self.counts.lost += 1
            return
        }
        var record: [UInt8] = []
        record.reserveCapacity(place.byteCount)
        for number in [Self.magic, UInt32(key.count), UInt32(value.count)] { Self.append(number, to: &record) }
        Self.append(UInt64(0), to: &record)
        record += key
        record += value
        let sum = Self.checksum(record)
        withUnsafeBytes(of: sum.littleEndian) { record.replaceSubrange(12..<20, with: $0) }
        let written = record.withUnsafeBytes {
            pwrite(segment.body.descriptor, $0.baseAddress, $0.count, off_t(segment.body.byteCount))
        }
        guard written == record.count else {
            // What is half there must not be in the way of the next record.
            _ = ftruncate(segment.body.descriptor, off_t(segment.body.byteCount))
            self.counts.lost += 1
            return
        }
        self.index[XXHash64.hash(key)] = Place(
            segment: segment.number,
            offset: segment.body.byteCount,
            keyBytes: key.count,
            valueBytes: value.count
        )
        segment.body.byteCount += record.count
        self.segments[segment.number] = segment.body
        self.trim()
    }

    // MARK: - Segments

    private static func number(_ name: String) -> Int? {
        guard name.hasPrefix(self.prefix), name.hasSuffix(self.suffix) else { return nil }
        let digits = name.dropFirst(self.prefix.count).dropLast(self.suffix.count)
        guard digits.count == 8, digits.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
        return Int(digits)
    }

    private func path(_ number: Int) -> String {
        let digits = String(number)
        return "\(self.directory)/\(Self.prefix)\(String(repeating: "0", count: max(0, 8 - digits.count)))\(digits)"
            + Self.suffix
    }

    /// Opens a segment and notes what it holds, as far as its records follow each other.
    private func openSegment(_ number: Int) {
        let path = self.path(number)
        let descriptor = open(path, O_RDWR | O_CLOEXEC)
        guard descriptor >= 0 else { return }
        let end = Int(lseek(descriptor, 0, SEEK_END))
        var segment = Segment(path: path, descriptor: descriptor, byteCount: 0)
        var header = [UInt8](repeating: 0, count: Self.headerBytes)
        while segment.byteCount + Self.headerBytes <= end {
            let offset = segment.byteCount
            let count = header.withUnsafeMutableBytes { pread(descriptor, $0.baseAddress, $0.count, off_t(offset)) }
            guard count == Self.headerBytes, Self.word32(header, 0) == Self.magic else { break }
            let place = Place(
                segment: number,
                offset: offset,
                keyBytes: Int(Self.word32(header, 4)),
                valueBytes: Int(Self.word32(header, 8))
            )
            guard offset + place.byteCount <= end else { break }
            var key = [UInt8](repeating: 0, count: place.keyBytes)
            let read = key.withUnsafeMutableBytes {
                pread(descriptor, $0.baseAddress, $0.count, off_t(offset + Self.headerBytes))
            }
            guard read == key.count else { break }
            self.index[XXHash64.hash(key)] = place
            segment.byteCount += place.byteCount
        }
        // What follows is the torn end of a process that was killed, or damage.
        if segment.byteCount < end { _ = ftruncate(descriptor, off_t(segment.byteCount)) }
        self.segments[number] = segment
    }

    /// The last segment, or a new one where it has no room.
    private func segmentWithRoom(for bytes: Int, limit: Int) -> (number: Int, body: Segment)? {
        let last = self.segments.keys.max() ?? 0
        if let segment = self.segments[last], segment.byteCount + bytes <= limit { return (last, segment) }
        let path = self.path(last + 1)
        let descriptor = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { return nil }
        let segment = Segment(path: path, descriptor: descriptor, byteCount: 0)
        self.segments[last + 1] = segment
        return (last + 1, segment)
    }

    /// Removes the oldest segments while all are over the limit.
    private func trim() {
        while self.byteCount > self.limit, self.segments.count > 1, let oldest = self.segments.keys.min(),
            let segment = self.segments.removeValue(forKey: oldest)
        {
            close(segment.descriptor)
            unlink(segment.path)
            self.index = self.index.filter { $0.value.segment != oldest }
        }
    }

    private func read(_ place: Place) -> [UInt8]? {
        guard let segment = self.segments[place.segment] else { return nil }
        var record = [UInt8](repeating: 0, count: place.byteCount)
        let count = record.withUnsafeMutableBytes {
            pread(segment.descriptor, $0.baseAddress, $0.count, off_t(place.offset))
        }
        return count == record.count ? record : nil
    }

    // MARK: - Bytes

    /// The hash of a record but for the hash itself, chained: the numbers, then key and value.
    private static func checksum(_ record: [UInt8]) -> UInt64 {
        record.withUnsafeBytes { bytes in
            let numbers = XXHash64.hash(UnsafeRawBufferPointer(rebasing: bytes[..<12]))
            return XXHash64.hash(UnsafeRawBufferPointer(rebasing: bytes[Self.headerBytes...]), seed: numbers)
        }
    }

    private static func append<Number: FixedWidthInteger>(_ number: Number, to bytes: inout [UInt8]) {
        withUnsafeBytes(of: number.littleEndian) { bytes.append(contentsOf: $0) }
    }

    private static func word32(_ bytes: [UInt8], _ offset: Int) -> UInt32 {
        bytes.withUnsafeBytes { UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
    }

    private static func word64(_ bytes: [UInt8], _ offset: Int) -> UInt64 {
        bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
    }
}
