// SPDX-License-Identifier: Apache-2.0

package import SwitchyardClient
internal import Synchronization

/// Clients that each make one call after another to a gateway until told to stop.
package final class Load: Sendable {
    /// What a load consists of.
    package struct Plan: Sendable {
        /// The requests, made in turn.
        package var requests: [LoadRequest]
        /// For each request the ids of the undisturbed run.
        package var references: [[UInt32]]
        /// Number of concurrent clients.
        package var clients = 4
        /// Additional clients whose calls accept no lost token.
        package var strictClients = 0
        /// How long after one call a client is due to make the next one; nil as soon as the call has ended.
        ///
        /// A client that is late makes its calls without a pause until it is on time again.
        package var interval: Duration?
        /// For each checkpoint that may answer, by fingerprint, the ids that it gives for each request; empty where one does.
        package var known: [UInt64: [[UInt32]]] = [:]
    }

    private let plan: Plan
    private let record: LoadRecord
    private let mayCall = Mutex(true)
    private let next = Mutex(0)

    /// Creates a load; ``run(_:)`` makes the calls.
    package init(_ plan: Plan, record: LoadRecord) {
        self.plan = plan
        self.record = record
    }

    /// Makes no further calls; those in flight continue.
    package func stop() { self.mayCall.withLock { $0 = false } }

    /// Calls until ``stop()``.
    ///
    /// - Parameters:
    ///   - client: Calls the gateway.
    ///   - streams: Whether tokens are examined as they arrive.
    package func run(_ client: GatewayClient, streams: Bool = true) async {
        await withDiscardingTaskGroup { group in
            for index in 0..<self.plan.clients + self.plan.strictClients {
                group.addTask { await self.call(client, isStrict: index >= self.plan.clients, streams: streams) }
            }
        }
    }

    private func call(_ client: GatewayClient, isStrict: Bool, streams: Bool) async {
        var due = ContinuousClock.now
        while self.mayCall.withLock({ $0 }), !Task.isCancelled {
            if let interval = self.plan.interval, !isStrict {
                due += interval
                if due > .now { try? await Task.sleep(until: due, clock: .continuous) }
            }
            let index = self.next.withLock { next in
                defer { next += 1 }
                return next % self.plan.requests.count
            }
            guard streams else {
                let reference = self.plan.references[index]
                await Self.unary(self.plan.requests[index], reference: reference, client: client, record: self.record)
                continue
            }
            let call = await Self.measured(
                self.plan.requests[index],
                reference: self.plan.references[index],
                known: self.plan.known.mapValues { $0[index] },
                client: client,
                isStrict: isStrict,
                record: self.record
            )
            self.record.add(call)
            if case .failed = call.outcome {
                // A refused client calls no faster than this.
                try? await Task.sleep(for: .milliseconds(20))
            }
        }
    }

    /// Makes one streaming call and notes its tokens.
    private static func measured(
        _ request: LoadRequest,
        reference: [UInt32],
        known: [UInt64: [UInt32]] = [:],
        client: GatewayClient,
        isStrict: Bool,
        record: LoadRecord
    ) async -> LoadCall {
        let start = record.now
        var call = LoadCall(start: start, end: start, outcome: .failed(.unknown, ""), isStrict: isStrict)
        var last = start
        var ids: [UInt32] = []
        do {
            for try await event in try await client.generateStream(
                request.message(strict: isStrict),
                timeout: .seconds(120)
            ) {
                switch event {
                case .token(let token):
                    let now = record.now
                    record.add(
                        TokenSample(
                            time: Float(now.seconds),
                            gap: Float((now - last).seconds),
                            isFirst: ids.isEmpty
                        )
                    )
                    last = now
                    ids.append(token.tokenID)
                case .response(let response):
                    let final = response.generations.first?.tokenIDs ?? []
                    call.lost = Self.lost(response.usage)
                    // The stream and the response that ends it must agree as well.
                    let wanted = known.isEmpty ? reference : known[response.usage?.modelFingerprint ?? 0]
                    call.outcome = .answered(isSame: final == wanted && ids == final)
                }
            }
        } catch {
            call.outcome = .failed(error.code, error.message)
            call.hasRetryHint = error.retryDelay != nil
        }
        call.tokens = ids.count
        call.end = record.now
        return call
    }

    /// Tokens that hosts lost; the undisturbed run also drops what capacity drops.
    static func lost(_ usage: Usage?) -> [WireDropReason: UInt64] {
        var lost: [WireDropReason: UInt64] = [:]
        for dropped in usage?.dropped ?? [] where dropped.reason != .capacity {
            lost[dropped.reason, default: 0] += dropped.tokens
        }
        return lost
    }

    /// Makes every request once to an undisturbed cluster.
    ///
    /// - Parameters:
    ///   - requests: The requests.
    ///   - client: Calls the gateway.
    /// - Returns: The ids of each answer.
    /// - Throws: ``FaultError`` where an answer lost tokens or is not what transformers gives; what a call threw.
    package static func references(_ requests: [LoadRequest], client: GatewayClient) async throws -> [[UInt32]] {
        var references: [[UInt32]] = []
        for request in requests {
            let ids = try await Self.answer(request, client: client)
            if let expected = request.expected, ids != expected {
                throw FaultError("undisturbed, \"\(request.text)\" gives \(ids), and transformers gives \(expected)")
            }
            references.append(ids)
        }
        return references
    }

    /// The ids of an answer that lost no token; requested again where deadlines are so short that some do.
    private static func answer(_ request: LoadRequest, client: GatewayClient) async throws -> [UInt32] {
        var failure: GatewayError?
        for _ in 0..<10 {
            do {
                let response = try await client.generate(request.message(strict: true), timeout: .seconds(120))
                return response.generations.first?.tokenIDs ?? []
            } catch {
                failure = error
            }
        }
        let reason = failure.map { "\($0)" } ?? "no answer"
        throw FaultError("the cluster loses tokens before anything is done to it: \(reason)")
    }

    /// How long a client needs for a call on average when all of them call without a pause.
    ///
    /// - Parameters:
    ///   - plan: The load.
    ///   - client: Calls the gateway.
    /// - Returns: The time.
    /// - Throws: ``FaultError`` where no call ends in ten seconds; `CancellationError`.
    static func shortestInterval(_ plan: Plan, client: GatewayClient) async throws -> Duration {
        let record = LoadRecord()
        var plan = plan
        plan.strictClients = 0
        let load = Load(plan, record: record)
        let clients = plan.clients
        return try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask { await load.run(client) }
            try await Task.sleep(for: .milliseconds(500))
            let before = (record.summary.calls, record.now)
            var calls = 0
            while record.now < .seconds(2) || calls < 8 * clients && record.now < .seconds(10) {
                try await Task.sleep(for: .milliseconds(500))
                calls = record.summary.calls - before.0
            }
            let time = record.now - before.1
            load.stop()
            try await group.waitForAll()
            guard calls > 0 else { throw FaultError("no call ended in 10 s while nothing was done to the cluster") }
            return time * clients / calls
        }
    }

    /// Makes each client's call once.
    func runOnce(_ client: GatewayClient) async {
        self.stop()
        for (request, reference) in zip(self.plan.requests, self.plan.references) {
            let call = await Self.measured(
                request,
                reference: reference,
                client: client,
                isStrict: false,
                record: self.record
            )
            self.record.add(call)
        }
    }

    /// Makes one call with one answer, without examining single tokens.
    static func unary(_ request: LoadRequest, reference: [UInt32], client: GatewayClient, record: LoadRecord) async {
        let start = record.now
        var call = LoadCall(start: start, end: start, outcome: .failed(.unknown, ""), isStrict: false)
        do {
            let response = try await client.generate(request.message(strict: false), timeout: .seconds(120))
            let ids = response.generations.first?.tokenIDs ?? []
            call.tokens = ids.count
            call.lost = Self.lost(response.usage)
            call.outcome = .answered(isSame: ids == reference)
        } catch {
            call.outcome = .failed(error.code, error.message)
            call.hasRetryHint = error.retryDelay != nil
        }
        call.end = record.now
        record.add(call)
    }

    /// Makes every call once, one after another; nothing is known about the ids.
    static func once(_ requests: [LoadRequest], client: GatewayClient, isStrict: Bool) async -> LoadSummary {
        let record = LoadRecord(keepsEverything: false)
        for request in requests {
            var call = await Self.measured(request, reference: [], client: client, isStrict: isStrict, record: record)
            if case .answered = call.outcome { call.outcome = .answered(isSame: true) }
            record.add(call)
        }
        return record.summary
    }
}
