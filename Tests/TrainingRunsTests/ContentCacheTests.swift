// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing

@testable import TrainingRuns

@Suite("Values kept by content")
struct ContentCacheTests {
    private func inFolder(_ body: (String) throws -> Void) throws {
        let folder = NSTemporaryDirectory() + "cache-\(UUID().uuidString)"
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try body(folder)
    }

    private func key(_ number: Int) -> [UInt8] { Array("key \(number)".utf8) }
    private func value(_ number: Int, count: Int = 100) -> [UInt8] {
        (0..<count).map { UInt8(($0 * 7 + number) % 251) }
    }

    private func files(_ folder: String) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: folder).filter { $0.hasPrefix("segment") }.sorted()
    }

    @Test("What was kept is found, by this process and the next")
    func kept() throws {
        try self.inFolder { folder in
            do {
                let cache = try ContentCache(folder, limit: 1 << 20)
                #expect(cache.value(for: self.key(1)) == nil)
                for number in 0..<50 { cache.store(self.value(number, count: number), for: self.key(number)) }
                cache.store([9, 9], for: self.key(3))
                for number in 4..<50 {
                    #expect(cache.value(for: self.key(number)) == self.value(number, count: number))
                }
                #expect(cache.counts == ContentCache.Counts(found: 46, missing: 1, damaged: 0, lost: 0))
            }
            let again = try ContentCache(folder, limit: 1 << 20)
            #expect(again.value(for: self.key(0)) == [])
            #expect(again.value(for: self.key(3)) == [9, 9])
            #expect(again.value(for: self.key(50)) == nil)
        }
    }

    @Test("The folder never takes more than its limit, and the newest values stay")
    func bounded() throws {
        try self.inFolder { folder in
            let limit = ContentCache.leastBytes
            do {
                let cache = try ContentCache(folder, limit: limit)
                for number in 0..<2000 {
                    cache.store(self.value(number), for: self.key(number))
                    #expect(cache.byteCount <= limit)
                }
                #expect(cache.value(for: self.key(0)) == nil)
                for number in 1600..<2000 { #expect(cache.value(for: self.key(number)) == self.value(number)) }
                // More than a segment has room for.
                cache.store(self.value(1, count: limit), for: self.key(1))
                #expect(cache.counts.lost == 1 && cache.value(for: self.key(1)) == nil)
            }
            let bytes = try self.files(folder)
                .reduce(0) { sum, name in
                    let size = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(name)")[.size] as? Int
                    return sum + (size ?? 0)
                }
            #expect(bytes <= limit && bytes > limit / 2)
            #expect(try ContentCache(folder, limit: 4 * limit).value(for: self.key(1999)) == self.value(1999))
        }
    }

    @Test("A record that was cut off anywhere is absent, those before it are there, and the next one fits behind them")
    func torn() throws {
        try self.inFolder { folder in
            do {
                let cache = try ContentCache(folder, limit: 1 << 20)
                for number in 0..<3 { cache.store(self.value(number), for: self.key(number)) }
            }
            let file = URL(fileURLWithPath: "\(folder)/segment-00000001.bin")
            let whole = try Data(contentsOf: file)
            let record = whole.count / 3
            for count in stride(from: 2 * record, to: whole.count, by: 5) {
                try whole.prefix(count).write(to: file)
                let cache = try ContentCache(folder, limit: 1 << 20)
                #expect(cache.value(for: self.key(1)) == self.value(1))
                #expect(cache.value(for: self.key(2)) == nil)
                cache.store(self.value(5), for: self.key(5))
                #expect(cache.value(for: self.key(5)) == self.value(5))
                #expect(cache.counts.damaged == 0)
            }
            #expect(try ContentCache(folder, limit: 1 << 20).value(for: self.key(5)) == self.value(5))
        }
    }

    @Test("No changed byte passes for a value")
    func damaged() throws {
        try self.inFolder { folder in
            do {
                let cache = try ContentCache(folder, limit: 1 << 20)
                for number in 0..<2 { cache.store(self.value(number, count: 20), for: self.key(number)) }
            }
            let file = URL(fileURLWithPath: "\(folder)/segment-00000001.bin")
            let whole = try Data(contentsOf: file)
            for place in whole.indices {
                var bytes = whole
                bytes[place] ^= 0x10
                try bytes.write(to: file)
                let cache = try ContentCache(folder, limit: 1 << 20)
                let found = (0..<2).map { cache.value(for: self.key($0)) }
                for number in 0..<2 { #expect(found[number] == nil || found[number] == self.value(number, count: 20)) }
                #expect(found.contains { $0 == nil }, "byte \(place)")
            }
        }
    }

    @Test("One process uses a folder at a time, and a limit that holds nothing is refused")
    func refused() throws {
        try self.inFolder { folder in
            let cache = try ContentCache(folder, limit: 1 << 20)
            let error = #expect(throws: RunError.self) { try ContentCache(folder, limit: 1 << 20) }
            #expect(error?.description.contains("in use by another run") == true)
            cache.store([1], for: [2])
            #expect(throws: RunError.self) { try ContentCache(folder + "2", limit: 100) }
            #expect(throws: RunError.self) { try ContentCache("/proc/nowhere", limit: 1 << 20) }
        }
    }
}
