// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// One duration that a fault measures on its way.
final class Stopwatch: Sendable {
    private let duration = Mutex<Duration?>(nil)

    /// Notes the duration.
    func set(_ duration: Duration) { self.duration.withLock { $0 = duration } }

    /// The duration in seconds, once it is known.
    var seconds: Double? { self.duration.withLock { $0?.seconds } }
}

/// What a fault finds out on its way.
final class Findings: Sendable {
    private let checks = Mutex<[FaultCheck]>([])
    private let notes = Mutex<[String]>([])

    /// Notes that something had to hold, and whether it does.
    func require(_ name: String, _ holds: Bool, found: String, speed: Bool = false) {
        self.checks.withLock {
            $0.append(FaultCheck(name: name, holds: holds, found: found, isAboutSpeed: speed))
        }
    }

    /// Notes something for people.
    func note(_ text: String) { self.notes.withLock { $0.append(text) } }

    /// Adds everything to a report.
    func add(to report: inout RowReport) {
        report.checks += self.checks.withLock { $0 }
        report.notes += self.notes.withLock { $0 }
    }
}

/// A value that leaves a closure that returns something else.
final class Kept<Value: Sendable>: Sendable {
    private let kept = Mutex<Value?>(nil)

    /// Keeps a value.
    func set(_ value: Value) { self.kept.withLock { $0 = value } }

    /// The value, once there is one.
    var value: Value? { self.kept.withLock { $0 } }
}
