// SPDX-License-Identifier: Apache-2.0

import Foundation
import Logging
import ServiceKit
import ServiceLifecycle
import Synchronization
import Testing

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// Notes when it starts and stops; runs until it is told to stop.
private struct Waiting: Service {
    let name: String
    let events: Events
    var whenRunning: @Sendable () -> Void = {}

    func run() async throws {
        self.events.append("\(self.name) starts")
        self.whenRunning()
        try await gracefulShutdown()
        self.events.append("\(self.name) stops")
    }
}

private struct Failing: Service {
    struct Reason: Error {}

    func run() async throws {
        throw Reason()
    }
}

private final class Events: Sendable {
    private let list = Mutex<[String]>([])

    var all: [String] { self.list.withLock { $0 } }

    func append(_ event: String) {
        self.list.withLock { $0.append(event) }
    }
}

@Suite("Service runner", .serialized, .timeLimit(.minutes(10)))
struct ServiceRunnerTests {
    @Test("a signal stops all services, the last one first", arguments: [SIGTERM, SIGINT])
    func signals(signal: Int32) async throws {
        let events = Events()
        let first = Waiting(name: "first", events: events)
        // The runner traps the signal before it starts a service, so it does not end this process.
        let second = Waiting(name: "second", events: events) {
            _ = kill(getpid(), signal)
        }
        try await ServiceRunner.run([first, second], shutdownLimit: .seconds(30), logger: quiet)
        #expect(Set(events.all.prefix(2)) == ["first starts", "second starts"])
        #expect(events.all.dropFirst(2) == ["second stops", "first stops"])
    }

    @Test("a second signal ends services that take their time to stop")
    func secondSignal() async {
        await #expect(throws: ServiceRunner.Interrupted.self) {
            try await ServiceRunner.run([Stubborn()], shutdownLimit: .seconds(600), logger: quiet)
        }
    }

    @Test("a service's failure ends the others and is thrown")
    func failure() async {
        let events = Events()
        await #expect(throws: Failing.Reason.self) {
            try await ServiceRunner.run(
                [Waiting(name: "first", events: events), Failing()],
                shutdownLimit: .seconds(30),
                logger: quiet
            )
        }
        #expect(!events.all.contains("first stops"))
    }
}

/// Does not stop when it is told to; ends when it is cancelled.
private struct Stubborn: Service {
    func run() async throws {
        _ = kill(getpid(), SIGTERM)
        try await gracefulShutdown()
        _ = kill(getpid(), SIGTERM)
        let (never, source) = AsyncStream.makeStream(of: Never.self)
        for await _ in never {}
        source.finish()
    }
}
