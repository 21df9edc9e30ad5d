// SPDX-License-Identifier: Apache-2.0

import CommandKit
import ExpertTraining
import Foundation
import TrainingRuns

/// What a training run says of itself, once a second: `status.json` in its folder.
struct TrainingStatus: Codable, Sendable {
    /// How it goes.
    enum State: String, Codable, Sendable {
        case running
        case ended
        case stopped
        case failed
    }

    /// The file's name.
    static let name = "status.json"
    /// Seconds of silence after which a run is taken for dead.
    static let patience = 10.0

    var state: State
    /// Why it failed.
    var reason: String?
    /// When this was written, in seconds since 1970.
    var written: Double
    /// The trainer's process, and its machine.
    var process: Int32
    var machine: String
    /// Steps that were taken, and those of the whole run; nil where time ends it.
    var step: Int
    var steps: Int?
    /// Of the last report.
    var loss: Double?
    var evaluationLoss: Double?
    var tokensPerSecond: Double?
    var secondsLeft: Double?
    /// Steps before the last save.
    var savedStep: Int?
    var saveFailures: Int
    /// Bytes of the log in memory and in files at most.
    var logMemoryLimit: Int?
    var logFileLimit: Int?
    /// Experts on hosts.
    var shards: [ShardedExperts.ShardStatus]

    private static let words = (infinite: "inf", negative: "-inf", none: "nan")

    /// The status as JSON, keys in snake case and in order.
    ///
    /// - Parameter isPretty: Whether it takes several lines.
    /// - Returns: JSON.
    /// - Throws: Never for a status of a run.
    func json(isPretty: Bool) throws -> String {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        if isPretty { encoder.outputFormatting.insert(.prettyPrinted) }
        encoder.nonConformingFloatEncodingStrategy = .convertToString(
            positiveInfinity: Self.words.infinite,
            negativeInfinity: Self.words.negative,
            nan: Self.words.none
        )
        return String(decoding: try encoder.encode(self), as: UTF8.self)
    }

    /// Reads the status of a run.
    ///
    /// - Parameter folder: The run's folder.
    /// - Throws: ``Failure`` in words.
    init(of folder: String) throws {
        let path = "\(folder)/\(Self.name)"
        guard let data = FileManager.default.contents(atPath: path) else {
            throw Failure(
                description:
                    "\(path) cannot be read; name the folder of a run, its --out, on the machine where it trains"
            )
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        decoder.nonConformingFloatDecodingStrategy = .convertFromString(
            positiveInfinity: Self.words.infinite,
            negativeInfinity: Self.words.negative,
            nan: Self.words.none
        )
        do {
            self = try decoder.decode(Self.self, from: data)
        } catch {
            throw Failure(description: "\(path) is no status of a run of this version: \(error)")
        }
    }

    init(
        state: State,
        reason: String?,
        written: Double,
        step: Int,
        saveFailures: Int,
        shards: [ShardedExperts.ShardStatus]
    ) {
        self.state = state
        self.reason = reason
        self.written = written
        self.process = getpid()
        self.machine = Self.thisMachine
        self.step = step
        self.saveFailures = saveFailures
        self.shards = shards
    }

    /// Why a run's status cannot be read.
    struct Failure: Error, CustomStringConvertible {
        var description: String
    }

    /// This machine's name.
    static var thisMachine: String {
        let name = try? String(contentsOfFile: "/proc/sys/kernel/hostname", encoding: .utf8)
        return name?.trimmingCharacters(in: .whitespacesAndNewlines) ?? ""
    }

    /// Why a run that says that it trains does not; nil where it does.
    ///
    /// - Parameter now: The time in seconds since 1970.
    /// - Returns: The reason, as a sentence.
    func silence(now: Double) -> String? {
        guard self.state == .running else { return nil }
        if self.machine == Self.thisMachine, kill(self.process, 0) != 0, errno == ESRCH {
            return "its process, \(self.process), is gone; go on with --resume"
        }
        let age = now - self.written
        guard age > Self.patience else { return nil }
        return "it has said nothing for \(RunLine.time(age)); its process is \(self.process) on \(self.machine)"
    }
}

/// A run's status for a terminal.
struct TrainingReport {
    var status: TrainingStatus
    /// The time in seconds since 1970.
    var now: Double
    /// How many columns a line may take.
    var columns = Terminal.columns

    /// The whole report.
    var text: String {
        var parts = [self.run.wrapped(columns: self.columns)]
        if !self.status.shards.isEmpty { parts += [self.log.wrapped(columns: self.columns), self.hosts] }
        return parts.joined(separator: "\n\n")
    }

    private var run: String {
        let status = self.status
        var words = ["step \(status.step)" + (status.steps.map { " of \($0)" } ?? "")]
        let silence = status.silence(now: self.now)
        let state = silence == nil ? status.state.rawValue : "silent"
        let style: Terminal.Style =
            state == "failed" || state == "silent" ? .red : state == "running" ? .green : .bold
        if let loss = status.loss { words.append(String(format: "loss %.4f", loss)) }
        if let loss = status.evaluationLoss { words.append(String(format: "evaluation loss %.4f", loss)) }
        if let rate = status.tokensPerSecond { words.append(String(format: "%.0f tokens/s", rate)) }
        if status.state == .running, let left = status.secondsLeft { words.append("\(RunLine.time(left)) left") }
        words.append(status.savedStep.map { "saved after step \($0)" } ?? "nothing saved yet")
        if status.saveFailures > 0 { words.append("\(status.saveFailures) saves failed") }
        let reason = (status.reason ?? silence).map { ": \($0)" } ?? ""
        return "run \(Terminal.styled(state, style)): " + words.joined(separator: ", ") + reason
    }

    private var log: String {
        let shards = self.status.shards
        let inFiles = shards.reduce(0) { $0 + $1.logFileBytes }
        let inMemory = shards.reduce(0) { $0 + $1.logBytes } - inFiles
        var text = "log: \(Self.bytes(inMemory)) of \(Self.bytes(self.status.logMemoryLimit ?? 0)) in memory"
        if let limit = self.status.logFileLimit, limit > 0 {
            text += ", \(Self.bytes(inFiles)) of \(Self.bytes(limit)) in files"
        }
        text +=
            ", \(shards.map(\.logSteps).max() ?? 0) steps; calls repeated: \(shards.reduce(0) { $0 + $1.repeatedCalls })"
        return text + ", failed: \(shards.reduce(0) { $0 + $1.failures })"
    }

    private var hosts: String {
        var table = TextTable([
            ("shard", .left), ("host", .left), ("state", .left), ("steps behind", .right), ("calls behind", .right),
            ("snapshot", .left), ("checksums", .left),
        ])
        for replica in self.status.shards.flatMap(\.replicas) {
            table.add([
                replica.shard, replica.target, replica.state, replica.lag.map { "\($0)" } ?? "",
                replica.callsBehind.map { "\($0)" } ?? "", self.snapshot(replica), Self.checks(replica),
            ])
        }
        return ([table.text(columns: self.columns, keys: 2)] + self.notes.map { $0.wrapped(columns: self.columns) })
            .joined(separator: "\n")
    }

    private var notes: [String] {
        self.status.shards.flatMap { shard in
            let home =
                "\(shard.name): the trainer keeps the state after step \(shard.keptStep), \(self.age(shard.keptAge))"
            let troubles = shard.replicas.compactMap { replica in replica.trouble.map { "\(replica.target): \($0)" } }
            let recoveries = shard.recoveries.filter { $0.calls > 0 }.suffix(1)
                .map { last in
                    "\(last.target) was back \(self.age(last.age)): step \(last.step)'s state in"
                        + " \(Self.seconds(last.loadSeconds)), \(last.calls) calls repeated in"
                        + " \(Self.seconds(last.replaySeconds)) that took \(Self.seconds(last.firstCallsSeconds)) at first"
                }
            return [home] + (shard.logTrouble.map { ["\(shard.name): \($0)"] } ?? []) + troubles + recoveries
        }
    }

    private func snapshot(_ replica: ShardedExperts.ReplicaStatus) -> String {
        guard let step = replica.snapshotStep else { return "none" }
        return "step \(step)" + (replica.snapshotAge.map { ", \(self.age($0))" } ?? "")
    }

    /// An age, which has grown since the status was written.
    private func age(_ seconds: Double) -> String {
        "\(RunLine.time(max(0, seconds + self.now - self.status.written))) ago"
    }

    private static func checks(_ replica: ShardedExperts.ReplicaStatus) -> String {
        let wrong = replica.differences + replica.memoryChanges
        let right = "\(replica.agreements + replica.memoryChecks) right"
        return wrong == 0 ? right : "\(right), \(replica.differences) differed, \(replica.memoryChanges) changed"
    }

    private static func seconds(_ seconds: Double) -> String { String(format: "%.2f s", seconds) }

    private static func bytes(_ count: Int) -> String {
        for (unit, size) in [("GB", 1e9), ("MB", 1e6), ("KB", 1e3)] where Double(count) >= size {
            return String(format: "%.1f \(unit)", Double(count) / size)
        }
        return "\(count) bytes"
    }
}
