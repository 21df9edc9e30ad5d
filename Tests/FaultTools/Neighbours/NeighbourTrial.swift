// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import Logging
internal import NIOCore
internal import RPCTransport
internal import SwitchyardClient
internal import Synchronization

/// Victims beside attackers, and the same victims beside harmless requests of the same sizes.
package struct NeighbourTrial: Sendable {
    /// How much is done.
    package struct Plan: Sendable {
        /// Victims beside attackers; as many again beside harmless requests.
        package var victims: Int
        /// How often attackers and harmless neighbours take turns.
        package var turns = 10
        /// The gateway's setting `capacity`.
        package var capacity = "checkpoint"
        /// Victims that call at once.
        package var callers = 4
        /// Neighbours that call at once.
        package var neighbours = 6

        /// Creates a plan.
        ///
        /// - Parameter victims: Victims beside attackers.
        package init(victims: Int) { self.victims = victims }
    }

    /// What was found.
    package struct Outcome: Sendable {
        /// Victims beside attackers, and those of them whose answer was another one than alone.
        package var victims = 0
        package var changed = 0
        /// Those of them with another token.
        package var changedTokens = 0
        /// The same beside harmless requests.
        package var harmlessVictims = 0
        package var harmlessChanged = 0
        package var harmlessChangedTokens = 0
        /// Calls of victims that failed, with the reasons.
        package var failures: [String] = []
        /// Neighbours' calls that were answered, and broken ones that were refused.
        package var attacks: [String: Int] = [:]
        package var refused = 0
        /// Broken requests that were not refused.
        package var accepted = 0
        /// The 50th and 99th percentile of victims' times beside attackers, in seconds.
        package var attacked = (median: 0.0, worst: 0.0)
        /// The same beside harmless requests.
        package var quiet = (median: 0.0, worst: 0.0)
        /// Changes that the gateway made to the places of hot experts.
        package var placements = 0

        /// How many times longer the 99th percentile is beside attackers.
        package var ratio: Double { self.quiet.worst > 0 ? self.attacked.worst / self.quiet.worst : 0 }
    }

    private let workspace: FaultWorkspace
    private let plan: Plan
    private let tell: @Sendable (String) -> Void

    /// Creates a trial.
    ///
    /// - Parameters:
    ///   - workspace: Programs and models, and a folder to write to.
    ///   - plan: How much is done.
    ///   - tell: Receives progress messages.
    package init(_ workspace: FaultWorkspace, _ plan: Plan, tell: @escaping @Sendable (String) -> Void) {
        self.workspace = workspace
        self.plan = plan
        self.tell = tell
    }

    /// Runs the cluster: two pools of one host, each of which holds the other's experts as spares, and a gateway that places hot
    /// experts on both.
    ///
    /// - Returns: What was found.
    /// - Throws: ``FaultError`` where a process does not start; what a call of a victim alone threw.
    package func run() async throws -> Outcome {
        let shards = try await self.workspace.shards(pools: 2)
        let tokens = try TokenFile(in: self.workspace.folder)
        return try await ProcessKeeper.with { keeper in
            let cluster = try FaultCluster(
                workspace: self.workspace,
                shards: shards,
                pools: 2,
                lab: nil,
                keeper: keeper
            )
            for pool in 0..<2 {
                try await cluster.startHost(pool: pool, arguments: ["--shard", "\(shards)/pool-\(1 - pool)"])
            }
            let gateway = try await cluster.startGateway(
                arguments: tokens.arguments + [
                    "--capacity", self.plan.capacity, "--replicate-hot-experts",
                    // What neighbours may do to each other is not told from what a busy machine does: no row is lost to time.
                    "--encoder-deadline-ms", "60000", "--decoder-deadline-ms", "60000",
                ]
            )
            let address = try await gateway.listening(within: .seconds(300))
            let endpoint = try Endpoint(parsing: address)
            let good = try tokens.configuration(of: .good)
            let greedy = try tokens.configuration(of: .greedy)
            var outcome = try await GatewayClient.with(endpoint: endpoint, configuration: good) { victims in
                try await GatewayClient.with(endpoint: endpoint, configuration: greedy) { neighbours in
                    try await self.run(victims, neighbours, at: address)
                }
            }
            let log = (try? String(contentsOfFile: "\(cluster.logs)/gateway.log", encoding: .utf8)) ?? ""
            outcome.placements = log.components(separatedBy: "a hot expert's placement changed").count - 1
            return outcome
        }
    }

    private func run(
        _ victims: GatewayClient,
        _ neighbours: GatewayClient,
        at address: String
    ) async throws -> Outcome {
        let texts = try LoadRequest.all(model: self.workspace.model, passageTokens: 8).map(\.text)
        let requests = try await NeighbourRequests(texts: texts, client: neighbours)
        var alone: [NeighbourAnswer] = []
        for number in 0..<NeighbourRequests.victims {
            alone.append(NeighbourAnswer(try await victims.generate(requests.victim(number), timeout: .seconds(300))))
        }
        self.tell("\(alone.count) victims alone; \(requests.hot.count) tokens keep to one expert")
        let book = NeighbourBook()
        for turn in 0..<self.plan.turns {
            let share = self.plan.victims * (turn + 1) / self.plan.turns - self.plan.victims * turn / self.plan.turns
            // Which of the two comes first changes, as the machine's other work may.
            for isAttack in turn % 2 == 0 ? [false, true] : [true, false] {
                try await self.block(
                    share,
                    isAttack: isAttack,
                    requests: requests,
                    alone: alone,
                    victims: victims,
                    neighbours: neighbours,
                    address: address,
                    book: book
                )
            }
            let outcome = book.outcome
            self.tell(
                "turn \(turn + 1): \(outcome.changed) of \(outcome.victims) changed beside attackers, \(outcome.harmlessChanged) of "
                    + "\(outcome.harmlessVictims) beside others; p99 \(Figure.seconds(outcome.attacked.worst)) and "
                    + "\(Figure.seconds(outcome.quiet.worst))"
            )
        }
        return book.outcome
    }

    /// Victims call until their share is done; neighbours call all the while.
    private func block(
        _ share: Int,
        isAttack: Bool,
        requests: NeighbourRequests,
        alone: [NeighbourAnswer],
        victims: GatewayClient,
        neighbours: GatewayClient,
        address: String,
        book: NeighbourBook
    ) async throws {
        let turn = NeighbourTurn(share)
        try await withThrowingTaskGroup(of: Void.self) { group in
            for caller in 0..<self.plan.neighbours {
                group.addTask {
                    var number = caller
                    while !turn.isOver {
                        if isAttack {
                            let (name, request) = requests.attack(number)
                            await book.attack(name) { try await neighbours.generate(request, timeout: .seconds(300)) }
                        } else {
                            await book.attack("harmless") {
                                try await neighbours.generate(requests.harmless(number), timeout: .seconds(300))
                            }
                        }
                        number += self.plan.neighbours
                    }
                }
            }
            if isAttack {
                group.addTask { try await self.sendBroken(to: address, book: book, during: turn) }
            }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for _ in 0..<self.plan.callers {
                    group.addTask {
                        while let number = turn.next() {
                            let victim = number % NeighbourRequests.victims
                            await book.victim(isAttacked: isAttack, alone: alone[victim]) {
                                NeighbourAnswer(
                                    try await victims.generate(requests.victim(victim), timeout: .seconds(300))
                                )
                            }
                        }
                    }
                }
                try await group.waitForAll()
            }
            turn.end()
            try await group.waitForAll()
        }
    }

    /// Sends what no client library would send, one after another.
    private func sendBroken(to address: String, book: NeighbourBook, during turn: NeighbourTurn) async throws {
        let endpoint = try Endpoint(parsing: address)
        let channel = RPCChannel(
            target: (host: endpoint.host, port: endpoint.port),
            configuration: RPCChannelConfiguration(),
            logger: Logger(label: "broken") { _ in SwiftLogNoOpLogHandler() }
        )
        let method = Method(service: GatewayMethods.generate.service, name: GatewayMethods.generate.name)
        let life = Task { try await channel.run() }
        defer { life.cancel() }
        var number = 0
        while !turn.isOver {
            let bytes = NeighbourRequests.broken[number % NeighbourRequests.broken.count]
            number += 1
            var options = CallOptions(deadline: .now.advanced(by: .seconds(60)), waitForReady: true)
            try options.metadata.add(TokenFile.authorization(of: .greedy), forKey: "authorization")
            await book.broken { _ = try await channel.unary(method, Payload(bytes: bytes), options: options) }
            try await Task.sleep(for: .milliseconds(20))
        }
    }
}

/// All that an answer says.
struct NeighbourAnswer: Sendable {
    /// Texts, tokens, scores and log-probabilities.
    let bits: [UInt8]
    /// The tokens alone.
    let tokens: [[UInt32]]

    init(_ response: GenerateResponse) {
        self.bits = GenerateResponse(generations: response.generations, seed: response.seed).serialized()
        self.tokens = response.generations.map(\.tokenIDs)
    }
}

/// A stretch of time with one kind of neighbours: it lasts until its victims are done.
final class NeighbourTurn: Sendable {
    private let state: Mutex<(left: Range<Int>, isOver: Bool)>

    init(_ victims: Int) { self.state = Mutex((0..<victims, false)) }

    /// Whether neighbours shall stop.
    var isOver: Bool { self.state.withLock { $0.isOver } }

    /// The next victim's number; nil when all have called.
    func next() -> Int? { self.state.withLock { $0.left.popFirst() } }

    /// The victims are done.
    func end() { self.state.withLock { $0.isOver = true } }
}

/// Collects what victims and neighbours saw.
final class NeighbourBook: Sendable {
    private struct State {
        var outcome = NeighbourTrial.Outcome()
        var attacked: [Double] = []
        var quiet: [Double] = []
    }

    private let state = Mutex(State())

    /// What is known so far.
    var outcome: NeighbourTrial.Outcome {
        self.state.withLock { state in
            var outcome = state.outcome
            outcome.attacked = Self.times(state.attacked)
            outcome.quiet = Self.times(state.quiet)
            return outcome
        }
    }

    private static func times(_ times: [Double]) -> (median: Double, worst: Double) {
        guard !times.isEmpty else { return (0, 0) }
        let sorted = times.sorted()
        return (sorted[sorted.count / 2], sorted[min(sorted.count - 1, sorted.count * 99 / 100)])
    }

    /// Makes a victim's call and compares its answer.
    func victim(isAttacked: Bool, alone: NeighbourAnswer, _ call: () async throws -> NeighbourAnswer) async {
        let start = ContinuousClock.now
        do {
            let answer = try await call()
            let time = start.duration(to: .now).seconds
            self.state.withLock { state in
                if isAttacked {
                    state.attacked.append(time)
                    state.outcome.victims += 1
                    if answer.bits != alone.bits { state.outcome.changed += 1 }
                    if answer.tokens != alone.tokens { state.outcome.changedTokens += 1 }
                } else {
                    state.quiet.append(time)
                    state.outcome.harmlessVictims += 1
                    if answer.bits != alone.bits { state.outcome.harmlessChanged += 1 }
                    if answer.tokens != alone.tokens { state.outcome.harmlessChangedTokens += 1 }
                }
            }
        } catch {
            self.state.withLock { $0.outcome.failures.append("\(error)") }
        }
    }

    /// Makes a neighbour's call.
    func attack(_ name: String, _ call: () async throws -> GenerateResponse) async {
        var ending = name
        do { _ = try await call() } catch { ending = "\(name), refused: \(error)" }
        self.state.withLock { $0.outcome.attacks[ending, default: 0] += 1 }
    }

    /// Makes a call that must be refused.
    func broken(_ call: () async throws -> Void) async {
        do {
            try await call()
            self.state.withLock { $0.outcome.accepted += 1 }
        } catch {
            self.state.withLock { $0.outcome.refused += 1 }
        }
    }
}

extension NeighbourTrial.Outcome {
    /// Everything in a few lines.
    package var lines: [String] {
        func share(_ changed: Int, _ tokens: Int, _ all: Int) -> String {
            "\(changed) of \(all) answers changed, \(tokens) in a token"
        }
        let attacks = self.attacks.filter { $0.key != "harmless" }.sorted { $0.key < $1.key }
        return [
            "beside attackers: \(share(self.changed, self.changedTokens, self.victims)), median \(Figure.seconds(self.attacked.median)), p99 "
                + Figure.seconds(self.attacked.worst),
            "beside harmless neighbours: \(share(self.harmlessChanged, self.harmlessChangedTokens, self.harmlessVictims)), median "
                + "\(Figure.seconds(self.quiet.median)), p99 \(Figure.seconds(self.quiet.worst))",
            "p99 beside attackers is \(Figure.decimal(self.ratio, 2)) times as long",
            "neighbours: \(self.attacks["harmless"] ?? 0) harmless; "
                + attacks.map { "\($0.value) x \($0.key)" }.joined(separator: ", "),
            "broken requests: \(self.refused) refused, \(self.accepted) accepted; \(self.placements) changes of hot experts' places; "
                + "\(self.failures.count) victims' calls failed",
        ]
    }
}
