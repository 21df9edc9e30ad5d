// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import UnixSignals

/// Work before a service is up, which SIGTERM and SIGINT end at once.
///
/// Without it the system would end the process, but not as the first process of a container, to which signals without a
/// handler are not delivered.
enum SignalledWork {
    private enum Ending<Value: Sendable>: Sendable {
        case done(Value)
        case told(String)
        case unheard
    }

    /// Runs a body until it is done or a signal comes.
    ///
    /// - Parameters:
    ///   - isNeeded: Whether the body takes long enough to be interrupted; without it signals are left as they are.
    ///   - logger: Told of a signal.
    ///   - body: The work; cancelled by a signal.
    /// - Returns: What the body returns; nil after a signal.
    /// - Throws: What the body throws.
    static func run<Value: Sendable>(
        isNeeded: Bool,
        logger: Logger,
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        guard isNeeded else { return try await body() }
        // What comes next catches signals by itself, or is ended by them as before.
        defer { for number in [SIGTERM, SIGINT] { signal(number, SIG_DFL) } }
        return try await Self.race(await UnixSignalsSequence(trapping: .sigterm, .sigint), logger: logger, body)
    }

    private static func race<Value: Sendable>(
        _ signals: UnixSignalsSequence,
        logger: Logger,
        _ body: @escaping @Sendable () async throws -> Value
    ) async throws -> Value? {
        try await withThrowingTaskGroup(of: Ending<Value>.self) { group in
            group.addTask { .done(try await body()) }
            group.addTask {
                for await signal in signals { return .told("\(signal)") }
                return .unheard
            }
            defer { group.cancelAll() }
            while let ending = try await group.next() {
                switch ending {
                case .done(let value):
                    return value
                case .told(let signal):
                    logger.info("told to stop before serving", metadata: ["signal": "\(signal)"])
                    group.cancelAll()
                    // Ends with a cancellation, or with whatever came first.
                    while await group.nextResult() != nil {}
                    return nil
                case .unheard:
                    break
                }
            }
            return nil
        }
    }
}
