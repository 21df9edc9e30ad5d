// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Subprocess
internal import Synchronization
internal import SystemPackage

/// Runs programs for tests.
public enum PeerProcess {
    /// What a program printed and how it ended.
    public struct Output: Sendable {
        /// Its standard output.
        public var text: String
        /// Its standard error.
        public var errors: String
        /// The exit status; -1 where a signal ended it.
        public var status: Int32
    }

    /// Runs a program to its end.
    ///
    /// - Parameters:
    ///   - executable: Its path.
    ///   - arguments: Its arguments.
    /// - Returns: What it printed.
    /// - Throws: What keeps it from being started.
    public static func run(_ executable: String, _ arguments: [String]) async throws -> Output {
        let result = try await Subprocess.run(
            .path(FilePath(executable)),
            arguments: Arguments(arguments),
            output: .string(limit: 1 << 22),
            error: .string(limit: 1 << 22)
        )
        var status: Int32 = -1
        if case .exited(let code) = result.terminationStatus { status = code }
        return Output(text: result.standardOutput, errors: result.standardError, status: status)
    }

    /// Runs a script of `Tests/Peers` that ends with one line of JSON.
    ///
    /// - Parameters:
    ///   - name: The script's name.
    ///   - arguments: Its arguments.
    ///   - python: The python that runs it.
    /// - Returns: The line's object.
    /// - Throws: ``PeerError`` where the script fails or python is missing.
    public static func script(
        _ name: String,
        _ arguments: [String],
        with python: String = Peers.python
    ) async throws -> [String: Any] {
        let output = try await Self.run(try Peers.path(python), ["\(Peers.folder)/\(name)"] + arguments)
        return try Self.object(of: output, from: name)
    }

    /// The JSON object on the last line of a program's output.
    ///
    /// - Parameters:
    ///   - output: What the program printed.
    ///   - name: What it is called in errors.
    /// - Returns: The object.
    /// - Throws: ``PeerError`` where the program failed or printed no object.
    public static func object(of output: Output, from name: String) throws -> [String: Any] {
        let line = output.text.split(separator: "\n").last ?? ""
        guard output.status == 0,
            let object = try? JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any]
        else {
            throw PeerError(description: "\(name) ended with \(output.status):\n\(output.text)\n\(output.errors)")
        }
        return object
    }

    /// Runs a program for as long as a body takes, then asks it to leave with SIGTERM.
    ///
    /// - Parameters:
    ///   - executable: Its path.
    ///   - arguments: Its arguments.
    ///   - readyPrefix: What the line of output begins with that says that it is up; nil starts the body at once.
    ///   - onLine: Gets every line of output.
    ///   - body: Gets the rest of that line.
    /// - Returns: What the body returned.
    /// - Throws: What the body throws; ``PeerError`` with the program's output where it leaves early.
    public static func serve<Result: Sendable>(
        _ executable: String,
        _ arguments: [String],
        readyPrefix: String?,
        onLine: @escaping @Sendable (String) -> Void = { _ in },
        body: @escaping @Sendable (String) async throws -> Result
    ) async throws -> Result {
        let (ready, continuation) = AsyncStream.makeStream(of: String.self)
        if readyPrefix == nil { continuation.yield("") }
        return try await withThrowingTaskGroup(of: Result?.self) { group in
            group.addTask {
                let outcome = try await Self.supervise(executable, arguments) { line in
                    onLine(line)
                    if let readyPrefix, line.hasPrefix(readyPrefix) {
                        continuation.yield(String(line.dropFirst(readyPrefix.count)))
                    }
                }
                if Task.isCancelled { return nil }
                throw PeerError(description: "\(executable) left early: \(outcome)")
            }
            group.addTask {
                for await line in ready { return try await body(line) }
                return nil
            }
            defer { group.cancelAll() }
            while let result = try await group.next() {
                if let result {
                    group.cancelAll()
                    return result
                }
            }
            throw CancellationError()
        }
    }

    /// Runs a program until it leaves or the task is cancelled; returns how it ended and the last it said.
    private static func supervise(
        _ executable: String,
        _ arguments: [String],
        onLine: @escaping @Sendable (String) -> Void
    ) async throws -> String {
        var options = PlatformOptions()
        options.teardownSequence = [.gracefulShutDown(allowedDurationToNextStep: .seconds(5))]
        let said = Mutex<[String]>([])
        let result = try await Subprocess.run(
            .path(FilePath(executable)),
            arguments: Arguments(arguments),
            platformOptions: options,
            input: .none,
            output: .sequence,
            error: .combinedWithOutput
        ) { execution in
            let identifier = execution.processIdentifier.value
            try await withTaskCancellationHandler {
                for try await line in execution.standardOutput.strings() {
                    let text = line.trimmingCharacters(in: .newlines)
                    said.withLock { $0.append(text) }
                    onLine(text)
                }
            } onCancel: {
                kill(identifier, SIGTERM)
            }
        }
        let last = said.withLock { $0.suffix(20).joined(separator: "\n") }
        return "\(result.terminationStatus)\n\(last)"
    }
}
