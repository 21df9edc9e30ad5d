// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
internal import Foundation
public import SwitchTraining
internal import SwitchyardTypes
public import TensorKernels

/// The weights that a student begins with: its teacher's wherever tensors of the same place have the same shape, drawn ones
/// elsewhere.
///
/// From W. Fedus, B. Zoph and N. Shazeer, "Switch Transformers" (JMLR 2022), section 4.1: "initializing the dense model with
/// the non-expert weights" of the sparse one. What becomes of the networks that stand where experts were is a choice.
public struct StudentStart: Sendable, Hashable {
    /// Where the student's weights come from.
    public enum Weights: String, Sendable, Hashable, CaseIterable {
        /// The teacher, as far as they fit; drawn elsewhere.
        case teacher
        /// Drawn, all of them.
        case drawn
    }

    /// What a dense network begins with where the teacher has experts.
    public enum FeedForward: String, Sendable, Hashable, CaseIterable {
        /// Drawn, as in the paper.
        case drawn
        /// The mean of the layer's experts, element by element.
        ///
        /// It is of use where experts began as one network, and are not far from each other yet.
        case average
    }

    /// A student that was written.
    public struct Made: Sendable, Hashable {
        /// Elements of the student's tensors.
        public var parameters: Int
        /// Elements that are the teacher's, or a mean of its experts'.
        public var taken: Int
        /// Elements of the teacher's tensors.
        public var teacherParameters: Int
    }

    /// The teacher's folder, whose tokenizer the student has too.
    public var teacher: String
    /// A file like `config.json` that describes the student; nil for the teacher's shape without experts.
    public var configurationFile: String?
    /// Where the student's weights come from.
    public var weights = Weights.teacher
    /// What a dense network begins with where the teacher has experts.
    public var feedForward = FeedForward.drawn
    /// How weights are drawn.
    public var initialisation = Initialisation.paper()
    /// What drawn weights come from.
    public var seed: UInt64 = 0

    /// The folder within a run's that holds the student before its first step.
    public static let folderName = "student"
    /// The file that tells how a student began.
    static let recordName = "student.json"

    /// What a student will be, before its weights are made.
    public struct Student: Sendable {
        /// The student's shape.
        public var configuration: ModelConfiguration
        /// Its `config.json`.
        var text: String
        /// All that decides its weights: the same for the same weights.
        public var description: String
    }

    /// A start with the paper's choices.
    ///
    /// - Parameter teacher: The teacher's folder.
    public init(teacher: String) {
        self.teacher = teacher
    }

    /// Writes the student in Hugging Face layout, with the teacher's tokenizer and generation settings.
    ///
    /// It is a function of the teacher's files and this value, so one that is there already, from an earlier session of the
    /// run, stays. It gets its name when all of it is on the disk.
    ///
    /// - Parameters:
    ///   - output: The run's folder, which is made where it does not exist.
    ///   - student: What ``student()`` gave.
    ///   - pool: The threads.
    /// - Returns: What came from where.
    /// - Throws: `CheckpointError` for a teacher or configuration that cannot be used; ``RunError`` where another student is
    ///   there, or it cannot be written.
    public func write(to output: String, as student: Student, pool: WorkPool) throws -> Made {
        let source = try RunModel.checkpoint(self.teacher).open(resumingFrom: nil)
        guard let checkpoint = source.1 else { throw RunError("\(self.teacher) has no weights; name another teacher") }
        let configuration = student.configuration
        let weights = ParameterBuffer(layout: try ParameterLayout(configuration))
        try self.initialisation.fill(weights, keyWidth: configuration.keyWidth, seed: self.seed, pool: pool)
        let taken = self.weights == .drawn ? 0 : try self.take(from: checkpoint, into: weights)
        let made = Made(
            parameters: weights.layout.parameterCount,
            taken: taken,
            teacherParameters: source.0.parameterCount
        )
        let record = Record(description: student.description)
        let folder = "\(output)/\(Self.folderName)"
        if FileManager.default.fileExists(atPath: folder) {
            guard Record.read(folder) == record else {
                throw RunError(
                    "\(folder) is a student that began in another way; name another --out, or begin as that one did"
                )
            }
            return made
        }
        try self.write(weights, student.text, record, to: folder, in: output)
        return made
    }

    /// What the student will be.
    ///
    /// - Returns: Its configuration, and what decides its weights.
    /// - Throws: `CheckpointError` for a teacher or configuration that cannot be used, ``RunError`` for one with another
    ///   vocabulary.
    public func student() throws -> Student {
        let (teacher, checkpoint) = try RunModel.checkpoint(self.teacher).open(resumingFrom: nil)
        let (configuration, text) = try self.configuration(of: teacher)
        let digest = XXHash64.hash(Array(text.utf8))
        let description =
            "teacher \(Fingerprint.text(checkpoint?.fingerprint ?? 0)), configuration \(Fingerprint.text(digest)), weights"
            + " \(self.weights.rawValue), feed-forward \(self.feedForward.rawValue), \(self.initialisation), seed"
            + " \(self.seed)"
        return Student(configuration: configuration, text: text, description: description)
    }

    /// The student's configuration, and its file.
    private func configuration(
        of teacher: ModelConfiguration
    ) throws -> (configuration: ModelConfiguration, text: String) {
        guard let file = self.configurationFile else {
            let dense = try teacher.dense(directory: self.teacher)
            let rate = try DenseConfigurationFile.dropoutRate(of: self.teacher)
            return (dense, DenseConfigurationFile.text(dense, dropoutRate: rate))
        }
        let configuration = try ModelConfiguration.load(file: file)
        guard configuration.vocabularySize == teacher.vocabularySize else {
            throw RunError(
                "\(file) describes a student with a vocabulary of \(configuration.vocabularySize), but its teacher's has"
                    + " \(teacher.vocabularySize); both must be the same, and so must be the tokenizer"
            )
        }
        guard let data = FileManager.default.contents(atPath: file) else {
            throw RunError("\(file) cannot be read; correct the name, or its permissions")
        }
        return (configuration, String(decoding: SavedCheckpoint.float32(Array(data)), as: UTF8.self))
    }

    // MARK: - Weights

    /// Takes what fits; returns the number of elements.
    private func take(from checkpoint: Checkpoint, into weights: ParameterBuffer) throws(CheckpointError) -> Int {
        let teacher = checkpoint.configuration
        let roles = Set(teacher.gatewayRoles)
        var taken = 0
        for (index, entry) in weights.layout.entries.enumerated() {
            if roles.contains(entry.role) {
                guard teacher.shape(of: entry.role) == entry.shape else { continue }
                try weights.read(entry.role, of: checkpoint, into: index)
            } else if self.feedForward == .average, case .dense(let stack, let block, let matrix) = entry.role {
                let layer = SparseLayer(stack: stack, block: block)
                let expert = TensorRole.expert(layer, expert: 0, matrix)
                guard teacher.sparseLayers.contains(layer), teacher.feedForwardMatrices.contains(matrix),
                    teacher.shape(of: expert) == entry.shape
                else { continue }
                try Self.average(layer, matrix, of: checkpoint, into: weights, index)
            } else {
                continue
            }
            taken += entry.range.count
        }
        return taken
    }

    private static func average(
        _ layer: SparseLayer,
        _ matrix: FeedForwardMatrix,
        of checkpoint: Checkpoint,
        into weights: ParameterBuffer,
        _ index: Int
    ) throws(CheckpointError) {
        let count = checkpoint.configuration.expertCount
        var sums = [Double](repeating: 0, count: weights[index].count)
        for expert in 0..<count {
            try weights.read(.expert(layer, expert: expert, matrix), of: checkpoint, into: index)
            let values = weights[index]
            for place in values.indices { sums[place] += Double(values[place]) }
        }
        let values = weights[index]
        for place in values.indices { values[place] = Float(sums[place] / Double(count)) }
    }

    // MARK: - Files

    private struct Record: Codable, Hashable {
        var description: String

        static func read(_ folder: String) -> Record? {
            FileManager.default.contents(atPath: "\(folder)/\(StudentStart.recordName)")
                .flatMap { try? JSONDecoder().decode(Record.self, from: $0) }
        }
    }

    private func write(
        _ weights: ParameterBuffer,
        _ configuration: String,
        _ record: Record,
        to folder: String,
        in output: String
    ) throws {
        let partial = "\(output)/.\(Self.folderName)\(SaveFolder.partialMark)\(getpid())"
        do {
            try? FileManager.default.removeItem(atPath: partial)
            try FileManager.default.createDirectory(atPath: partial, withIntermediateDirectories: true)
            try SyncedFile.write(Array(configuration.utf8), to: "\(partial)/config.json")
            for name in SavedCheckpoint.companions {
                guard let data = FileManager.default.contents(atPath: "\(self.teacher)/\(name)") else { continue }
                try SyncedFile.write(Array(data), to: "\(partial)/\(name)")
            }
            try SafetensorsWriter.write(
                try weights.tensors(),
                to: "\(partial)/\(SavedCheckpoint.weightsName)",
                metadata: ["format": "pt"]
            )
            try SyncedFile.write(Array(try JSONEncoder().encode(record)), to: "\(partial)/\(Self.recordName)")
            guard rename(partial, folder) == 0 else { throw RunError("\(folder): \(String(cString: strerror(errno)))") }
        } catch {
            try? FileManager.default.removeItem(atPath: partial)
            throw RunError("the student could not be written to \(output): \(error); make room, or name another --out")
        }
    }
}
