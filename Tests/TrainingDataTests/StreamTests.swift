// SPDX-License-Identifier: Apache-2.0

import Foundation
import Testing
import Tokenization

@testable import TrainingData

@Suite("Streams of examples and batches")
struct StreamTests {
    private static let textSettings: ExampleSettings = {
        var settings = ExampleSettings(format: .text)
        settings.maximumInputTokens = 40
        settings.maximumTargetTokens = 30
        return settings
    }()

    private func batches(
        _ lines: MemoryLines,
        _ settings: ExampleSettings,
        use: ExampleStream<MemoryLines>.Use = .training(epochs: nil),
        share: Double = 0,
        seed: UInt64 = 4,
        from position: DataPosition? = nil,
        limits: BatchLimits = BatchLimits(targetTokens: 100)
    ) throws -> BatchStream<MemoryLines> {
        let examples = try ExampleStream(
            lines,
            settings: settings,
            tokenizer: try Support.tokenizer(),
            use: use,
            evaluationShare: share,
            seed: seed,
            resumingAt: position
        )
        return try BatchStream(examples, limits: limits)
    }

    @Test("end a batch with its epoch, or fill it up")
    func epochEnds() throws {
        let lines = MemoryLines(Support.pairs(13), name: "lines")
        func sizes(endsWithEpoch: Bool) throws -> [Int] {
            let limits = BatchLimits(examples: 5, endsWithEpoch: endsWithEpoch)
            var stream = try self.batches(lines, Support.pairSettings, use: .training(epochs: 2), limits: limits)
            var sizes: [Int] = []
            while let batch = try stream.next() { sizes.append(batch.count) }
            return sizes
        }
        #expect(try sizes(endsWithEpoch: true) == [5, 5, 3, 5, 5, 3])
        #expect(try sizes(endsWithEpoch: false) == [5, 5, 5, 5, 5, 1])
    }

    @Test("keep the words of limits that runs have saved")
    func limitsInWords() {
        #expect(
            "\(BatchLimits(targetTokens: 4096))"
                == "BatchLimits(targetTokens: Optional(4096), inputTokens: nil, examples: nil)"
        )
        #expect(
            "\(BatchLimits(examples: 2, endsWithEpoch: true))".hasSuffix("examples: Optional(2), endsWithEpoch: true)")
        )
    }

    /// Pairs and prose with lines among them that cannot be used.
    private static func lines(text: Bool) -> MemoryLines {
        var lines = text ? Support.prose(60) : Support.pairs(60)
        lines[7] = ""
        lines[20] = text ? "nul \0 here" : "{\"input\": 1}"
        lines[33] = "   "
        // A long line of text becomes several examples; a long input is over the limit.
        let long = Support.prose(40).joined(separator: " ")
        lines[41] = text ? long : "{\"input\": \"\(long)\", \"target\": \"x\"}"
        return MemoryLines(lines, name: "lines")
    }

    private static func settings(text: Bool) -> ExampleSettings {
        guard !text else { return self.textSettings }
        var settings = Support.pairSettings
        settings.maximumInputTokens = 200
        settings.maximumTargetTokens = 100
        return settings
    }

    @Test("resume at any batch as the same run", arguments: [false, true], [false, true])
    func resumes(text: Bool, endsWithEpoch: Bool) throws {
        let lines = Self.lines(text: text)
        let settings = Self.settings(text: text)
        let limits = BatchLimits(targetTokens: 100, endsWithEpoch: endsWithEpoch)
        var whole = try self.batches(lines, settings, limits: limits)
        var positions: [DataPosition] = []
        var expected: [TokenizedBatch] = []
        var faults: [Int] = []
        // More than two epochs.
        while whole.examples.position.epoch < 3 {
            positions.append(whole.position)
            expected.append(try #require(try whole.next()))
            faults.append(whole.position.faults)
        }
        #expect(expected.count > 8)
        #expect(faults.last.map { $0 >= (text ? 3 : 4) * 3 - 4 } == true)
        for (index, position) in positions.enumerated() {
            // The position goes through a file.
            let saved = try JSONDecoder().decode(DataPosition.self, from: try JSONEncoder().encode(position))
            var resumed = try self.batches(lines, settings, from: saved, limits: limits)
            for step in index..<min(index + 3, expected.count) {
                #expect(try resumed.next() == expected[step], "batch \(step) after resuming at \(index)")
                #expect(resumed.position.faults == faults[step])
            }
        }
    }

    @Test("give each line once an epoch, in another order each time")
    func epochs() throws {
        let lines = MemoryLines(Support.pairs(80), name: "lines")
        var stream = try self.batches(
            lines,
            Support.pairSettings,
            use: .training(epochs: 3),
            limits: .init(examples: 80)
        )
        var orders: [[Int]] = []
        while let batch = try stream.next() {
            orders.append(batch.lines)
        }
        #expect(orders.count == 3)
        #expect(orders.allSatisfy { $0.sorted() == Array(0..<80) })
        #expect(Set(orders).count == 3)
        #expect(orders[0] != Array(0..<80))
    }

    @Test("the order of all lines is the files' own")
    func everything() throws {
        let lines = Self.lines(text: false)
        var stream = try self.batches(lines, Self.settings(text: false), use: .everything, limits: .init(examples: 100))
        let batch = try #require(try stream.next())
        #expect(batch.lines == (0..<60).filter { ![7, 20, 33, 41].contains($0) })
        #expect(try stream.next() == nil)
        #expect(stream.examples.faults.count == 4)
        #expect(stream.examples.faults.description.contains("lines:42: the input has "))
        #expect(stream.examples.faults.description.contains("the limit is 200"))
    }

    @Test("no line is both held out and learned from")
    func heldOut() throws {
        let lines = MemoryLines(Support.pairs(50), name: "lines")
        func used(_ use: ExampleStream<MemoryLines>.Use) throws -> [Int] {
            var stream = try self.batches(
                lines,
                Support.pairSettings,
                use: use,
                share: 0.2,
                limits: .init(examples: 50)
            )
            return try stream.next()?.lines ?? []
        }
        let held = try used(.evaluation)
        let learned = try used(.training(epochs: 1))
        #expect(held.count == 10)
        #expect((held + learned).sorted() == Array(0..<50))
    }

    @Test("text loses no token: what is shown and what is hidden make up the lines")
    func textIsWhole() throws {
        let tokenizer = try Support.tokenizer()
        let lines = Self.lines(text: true)
        var stream = try self.batches(lines, Self.textSettings, use: .training(epochs: 1))
        var found: [Int32] = []
        var examples = 0
        let sentinels = Set((0..<tokenizer.sentinelCount).compactMap { tokenizer.sentinelID($0) })
        while let batch = try stream.next() {
            examples += batch.count
            for index in 0..<batch.count {
                #expect(batch.input(index).count <= 40 && batch.target(index).count <= 30)
                #expect(batch.input(index).last == tokenizer.endTokenID)
                #expect(batch.target(index).last == tokenizer.endTokenID)
                found += (batch.input(index).dropLast() + batch.target(index).dropLast())
                    .filter { !sentinels.contains($0) }
            }
        }
        var expected: [Int32] = []
        for index in 0..<lines.count {
            guard case .bytes(let bytes) = try lines.line(index), !bytes.contains(0) else { continue }
            expected += try tokenizer.encode(utf8: bytes).dropLast()
        }
        #expect(found.sorted() == expected.sorted())
        // Short lines were joined, and the long one was cut.
        #expect(examples < 57 && examples > 20)
    }

    @Test("masks change from epoch to epoch and with the seed")
    func masks() throws {
        let lines = MemoryLines([Support.prose(4).joined(separator: " ")], name: "lines")
        var settings = Self.textSettings
        settings.maximumInputTokens = 300
        settings.maximumTargetTokens = 300
        func inputs(seed: UInt64) throws -> [[Int32]] {
            var stream = try ExampleStream(
                lines,
                settings: settings,
                tokenizer: try Support.tokenizer(),
                use: .training(epochs: 3),
                seed: seed
            )
            var inputs: [[Int32]] = []
            while let example = try stream.next() { inputs.append(example.input) }
            return inputs
        }
        let first = try inputs(seed: 1)
        #expect(first.count == 3)
        #expect(Set(first + (try inputs(seed: 2))).count == 6)
        #expect(try inputs(seed: 1) == first)
    }

    @Test("batches keep to their limits and begin another for what does not fit")
    func limits() throws {
        let lines = MemoryLines(Support.pairs(300), name: "lines")
        var settings = Support.pairSettings
        settings.maximumInputTokens = 100
        settings.maximumTargetTokens = 60
        let limits = BatchLimits(targetTokens: 60, inputTokens: 250, examples: 12)
        var stream = try self.batches(lines, settings, use: .training(epochs: 1), limits: limits)
        var batches: [TokenizedBatch] = []
        while let batch = try stream.next() { batches.append(batch) }
        #expect(batches.flatMap(\.lines).sorted() == Array(0..<300))
        for (batch, next) in zip(batches, batches.dropFirst()) {
            #expect(batch.targetIDs.count <= 60 && batch.inputIDs.count <= 250 && batch.count <= 12)
            let isFull =
                batch.count == 12 || batch.targetIDs.count + next.target(0).count > 60
                || batch.inputIDs.count + next.input(0).count > 250
            #expect(isFull)
        }
    }

    @Test("a line that cannot be used is an error where that is wanted, but for blank lines of text")
    func fatal() throws {
        var settings = Self.settings(text: false)
        settings.faultRule = .fail
        var pairs = try self.batches(Self.lines(text: false), settings, use: .everything)
        let error = #expect(throws: DataError.self) { while try pairs.next() != nil {} }
        #expect(error?.code == .unusableLine)
        #expect(error?.message.hasPrefix("lines:8: the line is empty") == true)
        settings = Self.textSettings
        settings.faultRule = .fail
        var text = try self.batches(Self.lines(text: true), settings, use: .everything)
        let nul = #expect(throws: DataError.self) { while try text.next() != nil {} }
        #expect(nul?.message.hasPrefix("lines:21: the line holds a NUL character") == true)
    }

    @Test("data without a single line that can be used is an error, not an endless search")
    func nothingUsable() throws {
        var stream = try self.batches(MemoryLines(["{}", "[]", ""], name: "bad.jsonl"), Support.pairSettings)
        let error = #expect(throws: DataError.self) { try stream.next() }
        #expect(error?.code == .noExamples)
        #expect(error?.message.contains("bad.jsonl:1: there is no field \"input\"") == true)
    }

    @Test("long inputs are cut where that is wanted, and a prefix counts")
    func cut() throws {
        let tokenizer = try Support.tokenizer()
        let text = Support.prose(9).joined(separator: " ")
        var settings = Support.pairSettings
        settings.maximumInputTokens = 20
        settings.lengthRule = .cut
        settings.inputPrefix = "sea: "
        var stream = try self.batches(
            MemoryLines(["{\"input\": \"\(text)\", \"target\": \"gold\"}"], name: "lines"),
            settings,
            use: .everything,
            limits: .init(examples: 1)
        )
        let batch = try #require(try stream.next())
        let end = try #require(tokenizer.endTokenID)
        #expect(Array(batch.input(0)) == tokenizer.encode("sea: " + text).prefix(19) + [end])
    }

    @Test("a position for other lines, another seed or other settings is refused")
    func otherPosition() throws {
        let lines = MemoryLines(Support.pairs(30), name: "lines")
        var stream = try self.batches(lines, Support.pairSettings)
        _ = try stream.next()
        let position = stream.position
        var settings = Support.pairSettings
        settings.maximumTargetTokens = 99
        var damaged = position
        damaged.place = 31
        let other = MemoryLines(Support.pairs(31), name: "lines")
        let attempts: [() throws -> Void] = [
            { _ = try self.batches(other, Support.pairSettings, from: position) },
            { _ = try self.batches(lines, settings, from: position) },
            { _ = try self.batches(lines, Support.pairSettings, share: 0.1, from: position) },
            { _ = try self.batches(lines, Support.pairSettings, seed: 5, from: position) },
            { _ = try self.batches(lines, Support.pairSettings, from: damaged) },
        ]
        for attempt in attempts {
            #expect(#expect(throws: DataError.self) { try attempt() }?.code == .otherPosition)
        }
        _ = try self.batches(lines, Support.pairSettings, from: position)
    }

    @Test("settings that cannot work are refused before anything is read")
    func settings() throws {
        let lines = MemoryLines(Support.pairs(3), name: "lines")
        var long = Support.pairSettings
        long.maximumTargetTokens = 200
        var prefixed = Self.textSettings
        prefixed.inputPrefix = "x"
        var short = Self.textSettings
        short.maximumTargetTokens = 2
        var none = Support.pairSettings
        none.maximumInputTokens = 1
        let attempts: [() throws -> Void] = [
            { _ = try self.batches(lines, long, limits: .init(targetTokens: 199)) },
            { _ = try self.batches(lines, long, limits: .init()) },
            { _ = try self.batches(lines, long, limits: .init(examples: 0)) },
            { _ = try self.batches(lines, prefixed) },
            { _ = try self.batches(lines, short) },
            { _ = try self.batches(lines, none) },
        ]
        for attempt in attempts {
            #expect(#expect(throws: DataError.self) { try attempt() }?.code == .invalidSettings)
        }
    }

    @Test("files give the same run as memory")
    func files() throws {
        let lines = Self.lines(text: true)
        let bytes = try (0..<lines.count)
            .map { index -> [UInt8] in
                guard case .bytes(let bytes) = try lines.line(index) else { return [] }
                return bytes
            }
        try Support.withFiles([Array((bytes + [[]]).joined(separator: [10]))]) { paths in
            let file = try ExampleStream(
                try FileLines(paths),
                settings: Self.textSettings,
                tokenizer: try Support.tokenizer(),
                use: .training(epochs: 2),
                seed: 4
            )
            var onDisk = try BatchStream(file, limits: BatchLimits(targetTokens: 100))
            var inMemory = try self.batches(lines, Self.textSettings, use: .training(epochs: 2))
            var count = 0
            while let batch = try inMemory.next() {
                count += 1
                #expect(try onDisk.next() == batch)
            }
            #expect(try onDisk.next() == nil)
            #expect(count > 4)
        }
    }
}
