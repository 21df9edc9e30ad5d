// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

/// Outputs and gradients of a trainer's experts over sockets.
@Suite("Experts on hosts for training", .serialized)
struct RemoteTrainingExpertsTests {
    private let model = TestModel.miniature

    /// Rows of a layer, by expert, and what must come back for them.
    private struct Sample: Sendable {
        let layer: SparseLayer
        let groups: [SwitchModel.ExpertRows]
        let tokens: FloatMatrix
        let gradients: FloatMatrix
        let outputs: FloatMatrix
        let inputGradients: FloatMatrix

        init(_ loaded: LoadedModel, rows: Int) throws {
            self.layer = loaded.checkpoint.configuration.sparseLayers[1]
            let share = rows / 8
            self.groups = (0..<8).map { .init(expert: $0, rows: $0 == 3 ? share + rows % 8 : share) }
                .filter { $0.rows > 0 }
            self.tokens = FloatMatrix(rows: rows, columns: 128)
            self.gradients = FloatMatrix(rows: rows, columns: 128)
            for index in 0..<rows * 128 {
                self.tokens.pointer[index] = Float((index * 17) % 101) / 50 - 1
                self.gradients.pointer[index] = Float((index * 13) % 89) / 400 - 0.1
            }
            self.outputs = try loaded.experts.forward(self.layer, groups: self.groups, tokens: self.tokens)
            self.inputGradients = try loaded.experts.backward(
                self.layer,
                groups: self.groups,
                tokens: self.tokens,
                outputGradients: self.gradients
            )
        }

        /// Asks for both and compares the bits.
        func check(_ experts: RemoteTrainingExperts) async throws {
            let (outputs, gradients) = try await onThread {
                let outputs = try experts.forward(self.layer, groups: self.groups, tokens: self.tokens)
                let gradients = try experts.backward(
                    self.layer,
                    groups: self.groups,
                    tokens: self.tokens,
                    outputGradients: self.gradients
                )
                return (outputs, gradients)
            }
            #expect(Self.bits(outputs) == Self.bits(self.outputs))
            #expect(Self.bits(gradients) == Self.bits(self.inputGradients))
        }

        private static func bits(_ matrix: FloatMatrix) -> [UInt32] {
            (0..<matrix.rows * matrix.columns).map { matrix.pointer[$0].bitPattern }
        }
    }

    private func experts(
        _ cluster: ExpertCluster,
        of loaded: LoadedModel,
        patience: Duration = .seconds(300)
    ) -> RemoteTrainingExperts {
        RemoteTrainingExperts(cluster: cluster, fingerprint: loaded.checkpoint.fingerprint, patience: patience)
    }

    @Test(
        "Two hosts give the bits of this process, for few rows and for more than fit into a call",
        arguments: [3, 300, 5000]
    )
    func hosts(rows: Int) async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: rows)
        try await withHosts(self.model, pools: 2) { _, pools in
            try await withRemoteExperts(pools, of: loaded) { _, cluster in
                try await sample.check(self.experts(cluster, of: loaded))
            }
        }
    }

    @Test(
        "A replica that is not well does not show",
        arguments: [Illness.garbage, .overloaded, .refuses, .wrongShape]
    )
    func illness(illness: Illness) async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: 100)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await withChannel(port: hosts[0].port) { channel in
                try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
            }
            try await withIllHost(describing: description, illness) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded) { _, cluster in
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    for _ in 0..<10 { try await sample.check(self.experts(cluster, of: loaded)) }
                }
            }
        }
    }

    @Test("A host that changes one bit of gradients is caught by audits, and its bits are never used")
    func audits() async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: 60)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            try await withLyingHost(like: hosts[0].port, isWrong: { true }) { port in
                let targets = pools[0].targets + [.address(host: "127.0.0.1", port: port)]
                let both = PoolSpecification(name: "pool-0", targets: targets)
                try await withRemoteExperts([both], of: loaded, configure: { $0.choice.auditFraction = 1 }) {
                    _,
                    cluster in
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    let gradients = try await onThread {
                        try self.experts(cluster, of: loaded)
                            .backward(
                                sample.layer,
                                groups: sample.groups,
                                tokens: sample.tokens,
                                outputGradients: sample.gradients
                            )
                    }
                    let count = sample.tokens.rows * 128
                    #expect((0..<count).allSatisfy { gradients.pointer[$0] == sample.inputGradients.pointer[$0] })
                    #expect(cluster.view.reports.first { $0.id.port == port }?.state == .quarantined)
                    try await sample.check(self.experts(cluster, of: loaded))
                }
            }
        }
    }

    @Test("Rows wait for a host that is gone, and after the patience the error says which rows and which hosts")
    func gone() async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: 40)
        try await withHosts(self.model, pools: 2) { hosts, pools in
            try await withRemoteExperts(pools, of: loaded) { _, cluster in
                await hosts[1].kill()
                let error = await #expect(throws: GatewayError.self) {
                    try await sample.check(self.experts(cluster, of: loaded, patience: .milliseconds(300)))
                }
                #expect(error?.code == .experts)
                #expect(
                    error?.message.contains("no expert host answered for 20 rows") == true,
                    "\(error?.message ?? "")"
                )
                #expect(error?.message.contains("pool-1@") == true || error?.message.contains("pool-1") == true)
            }
        }
    }

    /// What a run says that cannot begin with some hosts, though it would wait for them for a long time.
    private func refusal(of pools: [PoolSpecification], _ loaded: LoadedModel) async -> GatewayError? {
        await #expect(throws: GatewayError.self) {
            try await TrainingCluster.with(
                ExpertClusterConfiguration(pools: pools),
                of: loaded.checkpoint,
                patience: .init(),
                isStopping: { false },
                logger: quietLogger,
                body: { _ in Issue.record("the run begins") }
            )
        }
    }

    @Test("A host that computes no gradients is named at once, and is not used where another one computes them")
    func noGradients() async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: 100)
        try await withHosts(self.model, pools: 1) { hosts, pools in
            let description = try await withChannel(port: hosts[0].port) { channel in
                try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
            }
            try await withIllHost(describing: description, .knowsNoGradients) { port in
                let old = PoolTarget.address(host: "127.0.0.1", port: port)
                let error = await self.refusal(of: [PoolSpecification(name: "pool-0", targets: [old])], loaded)
                let message = error?.message ?? ""
                #expect(message.contains("127.0.0.1:\(port)") && message.contains("no method Backward"), "\(message)")
                #expect(!message.contains("after"), "\(message)")

                let both = PoolSpecification(name: "pool-0", targets: pools[0].targets + [old])
                let configure: (inout ExpertClusterConfiguration) -> Void = { $0.needsGradients = true }
                try await withRemoteExperts([both], of: loaded, configure: configure) { _, cluster in
                    #expect(
                        await eventually {
                            cluster.view.reports.contains { if case .mismatched = $0.state { true } else { false } }
                        }
                    )
                    for _ in 0..<5 { try await sample.check(self.experts(cluster, of: loaded)) }
                    #expect(!cluster.isHopeless)
                }
            }
        }
    }

    @Test("Hosts that keep weights in int8 are named at once")
    func int8() async throws {
        let loaded = try self.model.load()
        let configure: (inout ExpertHostConfiguration) -> Void = { $0.storage = .int8 }
        try await withHosts(self.model, pools: 1, configure: configure) { hosts, pools in
            let message = await self.refusal(of: pools, loaded)?.message ?? ""
            #expect(message.contains("127.0.0.1:\(hosts[0].port)") && message.contains("int8"), "\(message)")
            #expect(!message.contains("after"), "\(message)")
        }
    }

    @Test("Rows that are not finite are refused here, so that no host is blamed for them")
    func notFinite() async throws {
        let loaded = try self.model.load()
        let sample = try Sample(loaded, rows: 16)
        sample.gradients.pointer[5] = .infinity
        try await withHosts(self.model, pools: 1) { _, pools in
            try await withRemoteExperts(pools, of: loaded) { _, cluster in
                let error = await #expect(throws: GatewayError.self) {
                    try await sample.check(self.experts(cluster, of: loaded))
                }
                #expect(error?.message.contains("infinity") == true)
                #expect(cluster.view.reports.allSatisfy { $0.state == .ready && $0.failed == 0 })
            }
        }
    }

    @Test("Weights that are not exact are refused: bfloat16 ones only where the checkpoint's are wider")
    func weightTypes() throws {
        let checkpoint = try self.model.load().checkpoint
        let choice = TrainingCluster.configuration(ExpertClusterConfiguration(pools: []), of: checkpoint, .init())
            .choice
        #expect(choice.weightTypes == [.bfloat16, .float32])
        #expect(choice.encoder.deadline == .seconds(30) && choice.decoder.deadline == .seconds(30))
    }
}
