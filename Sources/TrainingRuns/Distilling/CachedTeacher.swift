// SPDX-License-Identifier: Apache-2.0

public import SwitchTraining

/// A teacher whose answers are kept on disk, so that what was asked once costs nothing the second time.
public final class CachedTeacher: Teacher {
    private let teacher: any Teacher
    let cache: ContentCache

    /// Puts a cache before a teacher.
    ///
    /// - Parameters:
    ///   - teacher: The teacher, which is asked for what is not in the cache.
    ///   - cache: The cache.
    public init(_ teacher: any Teacher, cache: ContentCache) {
        self.teacher = teacher
        self.cache = cache
    }

    /// The teacher's own.
    public var identity: TeacherIdentity { self.teacher.identity }

    /// What the cache had, and what it had not.
    public var counts: ContentCache.Counts { self.cache.counts }

    /// Reads answers, and asks the teacher for those that are not there.
    ///
    /// - Parameter questions: The questions.
    /// - Returns: The answers, in the order of the questions.
    /// - Throws: What the teacher throws.
    public func answers(to questions: [TeacherQuestion]) throws -> [TeacherAnswer] {
        let identity = self.teacher.identity
        let keys = questions.map { $0.bytes(for: identity) }
        var answers: [TeacherAnswer?] = zip(questions, keys)
            .map { question, key in
                self.cache.value(for: key)
                    .flatMap { TeacherAnswer(bytes: $0, kept: identity.kept, places: question.target.count) }
            }
        let missing = answers.indices.filter { answers[$0] == nil }
        guard !missing.isEmpty else { return answers.compactMap { $0 } }
        for (index, answer) in zip(missing, try self.teacher.answers(to: missing.map { questions[$0] })) {
            answers[index] = answer
            self.cache.store(answer.bytes, for: keys[index])
        }
        return answers.compactMap { $0 }
    }
}

extension TeacherQuestion {
    /// All that decides the answer, as bytes.
    func bytes(for identity: TeacherIdentity) -> [UInt8] {
        var bytes: [UInt8] = Array("answer 1".utf8)
        bytes.append(numbers: [
            identity.fingerprint, UInt64(identity.expertCapacity), UInt64(identity.kept),
            identity.temperature.bitPattern, UInt64(self.input.count), UInt64(self.target.count),
        ])
        bytes.append(numbers: self.input)
        bytes.append(numbers: self.target)
        return bytes
    }
}

extension TeacherAnswer {
    /// The ids, then the log-probabilities' bits, four bytes each, little-endian.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(8 * self.tokens.count)
        bytes.append(numbers: self.tokens)
        bytes.append(numbers: self.logprobs.map(\.bitPattern))
        return bytes
    }

    /// Reads what ``bytes`` wrote; nil where the number of bytes is another.
    init?(bytes: [UInt8], kept: Int, places: Int) {
        let (count, overflow) = places.multipliedReportingOverflow(by: kept)
        guard !overflow, count <= bytes.count, bytes.count == 8 * count else { return nil }
        self.init(kept: kept, tokens: [], logprobs: [])
        bytes.withUnsafeBytes { source in
            func word(_ index: Int) -> UInt32 {
                UInt32(littleEndian: source.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
            }
            self.tokens = (0..<count).map { Int32(bitPattern: word($0)) }
            self.logprobs = (count..<2 * count).map { Float(bitPattern: word($0)) }
        }
    }
}

extension [UInt8] {
    /// Adds whole numbers, little-endian.
    mutating func append<Number: FixedWidthInteger>(numbers: [Number]) {
        for number in numbers {
            Swift.withUnsafeBytes(of: number.littleEndian) { self.append(contentsOf: $0) }
        }
    }
}
