// SPDX-License-Identifier: Apache-2.0

import CommandKit
import FaultTools
import Foundation
import SwitchyardClient
import SwitchyardProtos
import Synchronization
import Testing

@testable import switchyard

@Suite("switchyard up", .serialized)
struct UpTests {
    /// Longer than any start takes: only a hang runs into it.
    private static let patience = Duration.seconds(300)

    /// One `up` in its own process, with its own temporary folder.
    private struct Up {
        let process: KeptProcess
        /// The replacement for the system's temporary folder.
        let temporary: String

        /// Waits for a line of its output.
        @discardableResult
        func line(containing text: String) async throws -> String {
            let deadline = ContinuousClock.now.advanced(by: UpTests.patience)
            while ContinuousClock.now < deadline {
                if let line = self.process.lines.first(where: { $0.contains(text) }) { return line }
                if let exit = self.process.exit {
                    throw FaultError("up left, \(exit):\n\(self.process.lines.joined(separator: "\n"))")
                }
                try await Task.sleep(for: .milliseconds(10))
            }
            throw FaultError("no line with \(text):\n\(self.process.lines.joined(separator: "\n"))")
        }

        /// Waits until it is ready.
        ///
        /// - Returns: The gateway's address.
        func ready() async throws -> String {
            let line = try await self.line(containing: "ready on ")
            return try #require(line.firstMatch(of: /ready on ([^;]+);/)).1.description
        }

        /// The content of its temporary folder, except other programs' files.
        var folders: [String] {
            ((try? FileManager.default.contentsOfDirectory(atPath: self.temporary)) ?? [])
                .filter { $0.hasPrefix("switchyard-") }.sorted()
        }
    }

    private final class Counter: Sendable {
        private let count = Mutex(0)

        func next() -> Int {
            self.count.withLock { count in
                count += 1
                return count
            }
        }
    }

    private static func waitUntil(_ what: String, _ condition: () -> Bool) async throws {
        let deadline = ContinuousClock.now.advanced(by: Self.patience)
        while !condition() {
            guard ContinuousClock.now < deadline else { throw FaultError("never: \(what)") }
            try await Task.sleep(for: .milliseconds(10))
        }
    }

    private func inFolder(_ body: (String) async throws -> Void) async throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent("up-\(UUID().uuidString)").path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try await body(folder)
    }

    private func start(
        _ keeper: ProcessKeeper,
        in folder: String,
        _ arguments: [String] = [],
        environment: [String: String] = [:]
    ) -> Up {
        let process = keeper.start(
            ProcessSpecification(
                name: "up",
                executable: TestCluster.executable,
                arguments: [
                    "up", TestCluster.miniature, "--pools", "1", "--listen", "127.0.0.1:0", "--threads", "1",
                    "--host-threads", "1",
                ] + arguments,
                addressFile: "\(folder)/never",
                logFile: "\(folder)/up.log",
                environment: ["TMPDIR": folder].merging(environment) { _, new in new }
            )
        )
        return Up(process: process, temporary: folder)
    }

    // MARK: - Start and stop

    @Test("a start ends with a table of all processes and the ready line; a stop removes everything")
    func startAndStop() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                let up = self.start(keeper, in: folder, ["--replicas", "2"])
                let gateway = try await up.ready()
                let lines = up.process.lines
                let start = try #require(lines.firstIndex { $0.hasPrefix("pool ") }, "\(lines)")
                let titles = lines[start].split(separator: " ").map(String.init)
                #expect(titles == ["pool", "address", "experts", "state", "memory"])
                let table = lines[(start + 2)...].prefix { !$0.isEmpty }
                #expect(table.count == 3)
                #expect(
                    table.filter { $0.hasPrefix("pool-0") && $0.contains("0-7") && $0.contains("ready") }.count == 2
                )
                #expect(table.last?.hasPrefix("gateway") == true && table.last?.contains(gateway) == true)
                #expect(lines.last?.contains("ready on \(gateway)") == true, "\(lines)")
                #expect(up.folders.isEmpty == false)
                let processes = ProcessTree.children(of: try #require(up.process.identifier))
                #expect(processes.count == 3)
                try up.process.signal(SIGTERM)
                let exit = try await up.process.ended(within: Self.patience)
                #expect(exit.code == 0, "\(exit)")
                #expect(up.process.lines.last == "stopped")
                #expect(!processes.contains(where: ProcessTree.isRunning))
                #expect(up.folders.isEmpty, "\(up.folders)")
            }
        }
    }

    @Test("it can be stopped before it is ready", arguments: [SIGINT, SIGTERM, SIGHUP])
    func stoppedEarly(number: Int32) async throws {
        try await self.inFolder { folder in
            // A read of a pipe without a writer waits, and so does a host for its settings.
            let pipe = "\(folder)/settings.json"
            #expect(mkfifo(pipe, 0o600) == 0)
            try await ProcessKeeper.with { keeper in
                let up = self.start(keeper, in: folder, environment: ["SWITCHYARD_CONFIG": pipe])
                try await Self.waitUntil("a host is started") {
                    up.process.identifier.map { !ProcessTree.children(of: $0).isEmpty } ?? false
                }
                let hosts = ProcessTree.children(of: try #require(up.process.identifier))
                try up.process.signal(number)
                let exit = try await up.process.ended(within: Self.patience)
                #expect(exit.code == 0, "\(exit)\n\(up.process.lines.joined(separator: "\n"))")
                #expect(!hosts.contains(where: ProcessTree.isRunning))
                #expect(up.folders.isEmpty, "\(up.folders)")
            }
        }
    }

    @Test("a host that cannot start ends it, with the host's error")
    func configurationError() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                let up = self.start(keeper, in: folder, environment: ["SWITCHYARD_MAX_ROWS": "many"])
                let exit = try await up.process.ended(within: Self.patience)
                let text = up.process.lines.joined(separator: "\n")
                #expect(exit.code == 1, "\(exit)\n\(text)")
                #expect(text.contains("pool-0/0 did not start"), "\(text)")
                #expect(text.contains("SWITCHYARD_MAX_ROWS") || text.contains("max-rows"), "\(text)")
                #expect(text.contains("many"), "\(text)")
                #expect(up.folders.isEmpty, "\(up.folders)")
            }
        }
    }

    @Test("Ctrl-C lets streams in flight finish")
    func drain() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                // However slow the machine is, the drain must not end before the streams do.
                let up = self.start(keeper, in: folder, environment: ["SWITCHYARD_DRAIN_SECONDS": "110"])
                let gateway = try await up.ready()
                let began = Counter()
                try await withThrowingTaskGroup(of: Int.self) { streams in
                    for _ in 0..<8 {
                        streams.addTask {
                            var tokens = 0
                            try await GatewayClient.with(endpoint: Endpoint(parsing: gateway)) { client in
                                let request = GenerateRequest(
                                    input: .text("Now is the winter of our <extra_id_0>"),
                                    parameters: GenerationParameters(maxNewTokens: 400, minNewTokens: 400)
                                )
                                var isWhole = false
                                for try await event in try await client.generateStream(request) {
                                    switch event {
                                    case .token:
                                        tokens += 1
                                        if tokens == 3, began.next() == 8 { try up.process.signal(SIGINT) }
                                    case .response(let response):
                                        isWhole = response.generations.first?.tokenIDs.count == 400
                                    }
                                }
                                #expect(isWhole)
                            }
                            return tokens
                        }
                    }
                    for try await tokens in streams { #expect(tokens == 400) }
                }
                let exit = try await up.process.ended(within: Self.patience)
                #expect(exit.code == 0, "\(exit)")
                #expect(up.process.lines.last == "stopped")
            }
        }
    }

    @Test("a second Ctrl-C cuts off requests in flight, and its status shows it")
    func hastened() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                let up = self.start(keeper, in: folder)
                let gateway = try await up.ready()
                let processes = ProcessTree.children(of: try #require(up.process.identifier))
                let host = try #require(
                    processes.first { process in
                        let line = (try? String(contentsOfFile: "/proc/\(process)/cmdline", encoding: .utf8)) ?? ""
                        return line.contains("expert-host")
                    }
                )
                // Without its host no layer is answered before its deadline: the request outlasts every time limit.
                #expect(kill(host, SIGSTOP) == 0)
                let request = Task {
                    try await GatewayClient.with(endpoint: Endpoint(parsing: gateway)) { client in
                        let parameters = GenerationParameters(maxNewTokens: 1000, minNewTokens: 1000)
                        let long = GenerateRequest(
                            input: .text("my <extra_id_0>"),
                            parameters: parameters,
                            dropPolicy: DropPolicy(maxDroppedFraction: 1)
                        )
                        _ = try await client.generate(long)
                    }
                }
                try await GatewayClient.with(endpoint: Endpoint(parsing: gateway)) { client in
                    var isRunning = false
                    while !isRunning {
                        isRunning = try await client.describeCluster().gateway.map { $0.usedSlots > 0 } ?? false
                    }
                }
                try up.process.signal(SIGINT)
                try await up.line(containing: "stopping the gateway")
                try up.process.signal(SIGINT)
                let exit = try await up.process.ended(within: Self.patience)
                #expect(exit.code == 1, "\(exit)")
                #expect(up.process.lines.contains { $0.contains("cut off") })
                await #expect(throws: (any Error).self) { try await request.value }
                #expect(!processes.contains(where: ProcessTree.isRunning))
            }
        }
    }

    @Test("if it is killed its processes end too, and the next start removes its leftovers")
    func killed() async throws {
        try await self.inFolder { folder in
            try await ProcessKeeper.with { keeper in
                let first = self.start(keeper, in: folder)
                _ = try await first.ready()
                let processes = ProcessTree.children(of: try #require(first.process.identifier))
                #expect(processes.count == 2)
                try first.process.signal(SIGKILL)
                _ = try await first.process.ended(within: Self.patience)
                try await Self.waitUntil("its processes end") { !processes.contains(where: ProcessTree.isRunning) }
                let left = first.folders
                #expect(!left.isEmpty)
                let second = self.start(keeper, in: folder)
                _ = try await second.ready()
                #expect(Set(second.folders).isDisjoint(with: left), "\(second.folders)")
                try second.process.signal(SIGTERM)
                _ = try await second.process.ended(within: Self.patience)
                #expect(second.folders.isEmpty, "\(second.folders)")
            }
        }
    }

    // MARK: - Parts of another cut

    /// The miniature with another value in its configuration, which makes it another model.
    private func otherModel(in folder: String, _ key: String, _ value: any Sendable) throws -> String {
        let path = "\(folder)/other-\(key)"
        try FileManager.default.copyItem(atPath: TestCluster.miniature, toPath: path)
        let file = URL(fileURLWithPath: "\(path)/config.json")
        var object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        object[key] = value
        try JSONSerialization.data(withJSONObject: object).write(to: file)
        return path
    }

    private func complaint(_ folder: String, pools: Int = 2) throws -> String {
        do {
            _ = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: pools, folder: folder)
        } catch {
            return "\(error)"
        }
        Issue.record("\(folder) was taken")
        return ""
    }

    @Test("--shards reuses its own cut, refuses any other's parts, and names the file and what to do")
    func otherParts() async throws {
        try await self.inFolder { folder in
            let own = "\(folder)/own"
            let foreign = "\(folder)/foreign"
            let first = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: own)
            let again = try ShardWorkspace.prepare(model: TestCluster.miniature, pools: 2, folder: own)
            #expect(again.folder == own && again.pools == first.pools)
            _ = try ShardWorkspace.prepare(
                model: try self.otherModel(in: folder, "layer_norm_epsilon", 1e-5),
                pools: 2,
                folder: foreign
            )

            // A change outside the tensors still changes answers.
            let capacity = "\(folder)/capacity"
            _ = try ShardWorkspace.prepare(
                model: try self.otherModel(in: folder, "expert_capacity", 9),
                pools: 2,
                folder: capacity
            )
            #expect(try self.complaint(capacity).contains("\(capacity)/gateway/config.json is not the same as"))

            let whole = try self.complaint(foreign)
            for part in ["\(foreign)/placement.json", "fingerprint", TestCluster.miniature, "--shards"] {
                #expect(whole.contains(part), "\(whole)")
            }
            #expect(try self.complaint(own, pools: 3).contains("has 2 pools, not 3"))

            // One part of another model among the model's own.
            try FileManager.default.moveItem(atPath: "\(own)/pool-1", toPath: "\(folder)/kept")
            try FileManager.default.copyItem(atPath: "\(foreign)/pool-1", toPath: "\(own)/pool-1")
            #expect(try self.complaint(own).contains("\(own)/pool-1/manifest.json was cut from"))

            // One of the model's own parts in another's place.
            try FileManager.default.removeItem(atPath: "\(own)/pool-1")
            try FileManager.default.copyItem(atPath: "\(own)/pool-0", toPath: "\(own)/pool-1")
            #expect(try self.complaint(own).contains("\(own)/pool-1/manifest.json describes the"))

            try FileManager.default.removeItem(atPath: "\(own)/pool-1")
            #expect(try self.complaint(own).contains("\(own)/pool-1/manifest.json is missing"))

            // The part's name, with other experts than the placement has.
            try FileManager.default.moveItem(atPath: "\(folder)/kept", toPath: "\(own)/pool-1")
            let file = URL(fileURLWithPath: "\(own)/pool-1/manifest.json")
            let text = try String(contentsOf: file, encoding: .utf8)
            var object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
            object["experts"] = (object["experts"] as? [[String: Any]] ?? [])
                .map { $0.merging(["experts": [4, 5]]) { _, new in new } }
            try JSONSerialization.data(withJSONObject: object).write(to: file)
            let experts = try self.complaint(own)
            #expect(experts.contains("holds experts 4-5") && experts.contains("puts 4-7 there"), "\(experts)")
        }
    }
}
