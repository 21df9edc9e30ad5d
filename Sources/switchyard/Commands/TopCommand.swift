// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import CommandKit
import Foundation
import ServiceKit
import SwitchyardClient
import SwitchyardProtos
import SwitchyardTypes
import Synchronization
import UnixSignals

/// `switchyard top`: the cluster, live.
struct TopCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top",
        abstract: "Watch the cluster live: tokens, queue, hosts, and which experts work.",
        discussion: """
            On a terminal the screen is drawn anew at each interval and follows the window's size; q quits. Elsewhere there is
            one line for each interval. Counts of rows and drops are those of the last interval; `status` has all since the
            start. While the gateway gives no answer, the last picture stays.

            EXAMPLE
              switchyard top
              switchyard top --endpoint gateway:7400 --interval 5
              switchyard top --samples 10 > top.txt
            """
    )

    @OptionGroup var client: ClientOptions

    @Option(help: ArgumentHelp("Time between two looks. (0.1 to 3600)", valueName: "seconds"))
    var interval = 1.0

    @Option(
        help: ArgumentHelp("End after this many looks. (1 to 1000000000; default: at q or Ctrl-C)", valueName: "count")
    )
    var samples: Int?

    func validate() throws {
        guard (0.1...3_600).contains(self.interval) else {
            throw ValidationError("--interval is \(self.interval), but must be from 0.1 to 3600 seconds")
        }
        if let samples, !(1...1_000_000_000).contains(samples) {
            throw ValidationError("--samples is \(samples), but must be from 1 to 1000000000")
        }
    }

    func run() async throws {
        try await self.client.withClient(defaultTimeout: 5) { client in
            // What cannot be reached at the beginning is an error; later it is a complaint on the screen.
            let model = try await client.describeModel()
            guard LiveTerminal.isAvailable else {
                try await self.watch(client, model) { screen in
                    Terminal.print(screen.line)
                } isDone: {
                    false
                }
                return
            }
            let terminal = LiveTerminal()
            defer { terminal.close() }
            try await self.watch(client, model) { screen in
                let size = terminal.size
                terminal.draw(screen.lines(columns: size.columns, rows: size.rows))
            } isDone: {
                while let key = terminal.key {
                    // q, Q and Ctrl-C.
                    if [0x71, 0x51, 0x03].contains(key) { return true }
                }
                return false
            }
        }
    }

    /// Looks at the cluster until it is told to end; shows each look, and again whenever the window may have changed.
    private func watch(
        _ client: GatewayClient,
        _ model: ModelDescription,
        show: (TopScreen) -> Void,
        isDone: () -> Bool
    ) async throws {
        let signals = StopFlag()
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await signals.watch() }
            defer { group.cancelAll() }
            var last: (cluster: ClusterDescription, time: ContinuousClock.Instant)?
            var screen: TopScreen?
            var looks = 0
            let isLive = LiveTerminal.isAvailable
            while !signals.isSet {
                let now = ContinuousClock.now
                do throws(GatewayError) {
                    let cluster = try await client.describeCluster()
                    let seconds = last.map { $0.time.duration(to: now).inSeconds } ?? 0
                    let movement = ClusterMovement(cluster, since: last?.cluster, seconds: seconds)
                    last = (cluster, now)
                    screen = TopScreen(model: model, cluster: cluster, movement: movement)
                } catch {
                    screen?.complaint = "no answer: \(error.message)"
                }
                if let screen { show(screen) }
                looks += 1
                if looks == self.samples { return }
                let end = now.advanced(by: .milliseconds(Int64(self.interval * 1000)))
                repeat {
                    if signals.isSet || isDone() { return }
                    let pause = min(.milliseconds(100), max(.milliseconds(1), ContinuousClock.now.duration(to: end)))
                    try await Task.sleep(for: pause)
                    if isLive, let screen { show(screen) }
                } while ContinuousClock.now < end
            }
        }
    }
}

/// Whether a signal has told the process to end.
private final class StopFlag: Sendable {
    private let stopped = Mutex(false)

    var isSet: Bool { self.stopped.withLock { $0 } }

    func watch() async {
        let signals = await UnixSignalsSequence(trapping: [.sigint, .sigterm, .sighup])
        for await _ in signals {
            self.stopped.withLock { $0 = true }
            return
        }
    }
}
