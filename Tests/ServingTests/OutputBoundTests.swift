// SPDX-License-Identifier: Apache-2.0

import Checkpoints
import ExpertPooling
import ExpertServing
import NIOCore
import RPCCore
import RPCTransport
import SwitchModel
import SwitchyardProtos
import SwitchyardTypes
import TensorKernels
import Testing

@testable import GatewayServing

/// Replies that are finite, but larger than any expert computes.
@Suite(.serialized)
struct OutputBoundTests {
    private func bounds(of model: TestModel, pools: Int = 1) throws -> [SparseLayer: LayerOutputBounds] {
        let placement = try PlacementFile.load(directory: "\(ShardCache.folder(of: model, pools: pools))/gateway")
        let bounds = try #require(placement.outputBounds)
        return Dictionary(uniqueKeysWithValues: bounds.compactMap { entry in entry.layer.map { ($0, entry) } })
    }

    /// A call with all of a layer's rows.
    private func call(_ request: ExpertLayerRequest, _ bounds: LayerOutputBounds?, _ type: DType = .float32)
        -> LayerCall
    {
        var row = 0
        let groups = request.plan.groups.map { group in
            defer { row += group.rows }
            return PoolAssignment.Group(expert: group.expert, rows: row..<(row + group.rows))
        }
        let assignment = PoolAssignment(pool: "pool-0", groups: groups)
        return LayerCall(assignment, of: request, fingerprint: 1, rowType: type, bounds: bounds)
    }

    private func reply(_ outputs: FloatMatrix, _ type: DType = .float32) -> ForwardResponse {
        let count = outputs.rows * outputs.columns
        var data = [UInt8](repeating: 0, count: count * type.byteCount)
        data.withUnsafeMutableBytes {
            if let base = $0.baseAddress { type.write(outputs.pointer, count: count, to: base) }
        }
        let shape = [UInt32(outputs.rows), UInt32(outputs.columns)]
        return ForwardResponse(outputs: Tensor(dtype: WireDType(type), shape: shape, data: data))
    }

    /// What the experts of a layer compute for a request, however they keep their weights.
    private func outputs(_ experts: LocalExperts, of request: ExpertLayerRequest) throws -> FloatMatrix {
        let rows = request.plan.rowCount
        let tokens = FloatMatrix(rows: rows, columns: request.hidden.columns)
        request.gather(rows: 0..<rows, into: tokens.pointer)
        let outputs = FloatMatrix(rows: rows, columns: request.hidden.columns)
        try experts.forward(
            layer: request.layer,
            groups: request.plan.groups,
            tokens: tokens.pointer,
            outputs: outputs.pointer
        )
        return outputs
    }

    @Test(
        "What experts compute is never refused, in any type of weights and rows and for inputs of any size",
        arguments: [TestModel.miniature, TestModel(path: "Tests/Fixtures/parity/asymmetric")],
        [WeightStorage.checkpoint, .int8]
    )
    func trueRows(model: TestModel, storage: WeightStorage) throws {
        let loaded = try model.load()
        let bounds = try self.bounds(of: model)
        let experts = try LocalExperts(checkpoint: loaded.checkpoint, pool: WorkPool(threads: 1), storage: storage)
        for layer in loaded.checkpoint.configuration.sparseLayers {
            for scale: Float in [0, 1e-30, 1e-12, 1, 1e6] {
                let base = ExpertExecutorContractTests.layerRequest(loaded, tokens: 24)
                for index in 0..<base.hidden.rows * base.hidden.columns { base.hidden.pointer[index] *= scale }
                let request = ExpertLayerRequest(
                    layer: layer,
                    plan: base.plan,
                    hidden: base.hidden,
                    sequences: base.sequences
                )
                let outputs = try self.outputs(experts, of: request)
                for type in [DType.float32, .bfloat16] {
                    #expect(bounds[layer] != nil)
                    let call = self.call(request, bounds[layer], type)
                    let read = try call.read(.init(bytes: self.reply(outputs, type).serialized()))
                    #expect(read.failed.isEmpty, "\(layer) at \(scale) in \(type)")
                    #expect(read.chunks.map(\.rows) == [0..<24])
                }
            }
        }
    }

    @Test("A flipped bit in an exponent is refused where it makes a value huge, and costs its row alone")
    func flippedBits() throws {
        let loaded = try TestModel.miniature.load()
        let bounds = try self.bounds(of: .miniature)
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 24)
        let call = self.call(request, bounds[request.layer])
        let outputs = try self.outputs(loaded.experts, of: request)
        var caught = [Int](repeating: 0, count: 32)
        var small = 0
        let places = (0..<24).map { ($0 * 5) % 24 * outputs.columns + ($0 * 37) % outputs.columns }
        for place in places {
            let value = outputs.pointer[place]
            if (1e-6..<2).contains(abs(value)) { small += 1 }
            for bit in 0..<32 {
                outputs.pointer[place] = Float(bitPattern: value.bitPattern ^ (1 << UInt32(bit)))
                let read = try call.read(.init(bytes: self.reply(outputs).serialized()))
                #expect(read.failed.isSubset(of: [place / outputs.columns]))
                caught[bit] += read.failed.count
            }
            outputs.pointer[place] = value
        }
        // The highest bit of an exponent is clear in values below 2; the sign and the mantissa cannot be seen.
        #expect(small > 0 && caught[30] >= small, "\(caught) of \(small)")
        #expect(caught[0..<23].allSatisfy { $0 == 0 })
        #expect(caught[31] == 0)
    }

    @Test("How much of damaged weights the bound sees: a bit of an exponent that makes one huge, not one that is lost")
    func damagedWeights() throws {
        let loaded = try TestModel.miniature.load()
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 8)
        let bound = try #require(try self.bounds(of: .miniature)[request.layer])
        let expert = request.plan.groups[0].expert
        func words(_ matrix: FeedForwardMatrix) throws -> [UInt16] {
            try loaded.checkpoint.tensor(.expert(request.layer, expert: expert, matrix))
                .withUnsafeBytes { bytes in
                    (0..<bytes.count / 2).map { bytes.loadUnaligned(fromByteOffset: 2 * $0, as: UInt16.self) }
                }
        }
        let (wi, wo) = (try words(.wi), try words(.wo))
        let columns = request.hidden.columns
        let width = wi.count / columns
        func float(_ word: UInt16) -> Float { Float(bitPattern: UInt32(word) << 16) }
        let input = (0..<columns).map { request.hidden.row(Int(request.plan.sources[0]))[$0] }
        let limit = bound.limit(of: expert, squaredNorm: input.reduce(0) { $0 + $1 * $1 })
        let sums = (0..<width)
            .map { row in (0..<columns).reduce(Float(0)) { $0 + float(wi[row * columns + $1]) * input[$1] } }
        let hidden = sums.map { max($0, 0) }
        let outputs = (0..<columns)
            .map { row in (0..<width).reduce(Float(0)) { $0 + float(wo[row * width + $1]) * hidden[$1] } }
        var seen = (wi: 0, wo: 0, zeroed: 0)
        let tries = 400
        for index in 0..<tries {
            // The exponent's highest bit, which is clear in every weight below 2 in magnitude.
            let flip: UInt16 = 1 << 14
            let inner = (index * 7919) % wi.count
            let (row, column) = (inner / columns, inner % columns)
            let change = (float(wi[inner] ^ flip) - float(wi[inner])) * input[column]
            let activated = max(sums[row] + change, 0) - hidden[row]
            let worst = (0..<columns)
                .reduce(Float(0)) { largest, output in
                    let value = abs(outputs[output] + float(wo[output * width + row]) * activated)
                    return value.isNaN ? .infinity : max(largest, value)
                }
            if worst > limit { seen.wi += 1 }
            let outer = (index * 7907) % wo.count
            let damaged = outputs[outer / width] + (float(wo[outer] ^ flip) - float(wo[outer])) * hidden[outer % width]
            if !(abs(damaged) <= limit) { seen.wo += 1 }
            if abs(outputs[outer / width] - float(wo[outer]) * hidden[outer % width]) > limit { seen.zeroed += 1 }
        }
        // A weight that meets an idle unit changes nothing, which is no fault.
        #expect(seen.wi > tries / 8, "\(seen)")
        #expect(seen.wo > tries / 20, "\(seen)")
        #expect(seen.zeroed == 0)
        let largest = outputs.map { abs($0) }.max() ?? 0
        #expect(largest > 0 && largest < limit)
    }

    @Test("A host that returns finite rubbish loses its rows as bad replies")
    func rubbishAlone() async throws {
        let loaded = try TestModel.miniature.load()
        let bounds = try self.bounds(of: .miniature, pools: 2)
        let request = ExpertExecutorContractTests.layerRequest(loaded, tokens: 40)
        let fingerprint = loaded.checkpoint.fingerprint
        try await withHosts(.miniature, pools: 2) { hosts, pools in
            let description = try await withChannel(port: hosts[1].port) { channel in
                try await channel.call(ExpertHostMethods.describe, DescribeHostRequest(), as: HostDescription.self)
            }
            try await withIllHost(describing: description, .huge) { port in
                let ill = PoolSpecification(name: pools[1].name, targets: [.address(host: "127.0.0.1", port: port)])
                try await withRemoteExperts([pools[0], ill], of: loaded) { unchecked, cluster in
                    // Without bounds the rubbish is taken for outputs.
                    let taken = try await onThread { try unchecked.execute(request) }
                    #expect(taken.dropped.isEmpty)
                    let experts = RemoteExperts(cluster: cluster, fingerprint: fingerprint, bounds: bounds)
                    let outputs = try await onThread { try experts.execute(request) }
                    #expect(Set(outputs.dropped.map(\.reason)) == [.badReply])
                    let expected = request.plan.groups.filter { $0.expert >= 4 }.reduce(0) { $0 + $1.rows }
                    #expect(outputs.dropped.reduce(0) { $0 + $1.rows.count } == expected)
                }
                let both = PoolSpecification(name: pools[1].name, targets: pools[1].targets + ill.targets)
                try await withRemoteExperts([pools[0], both], of: loaded) { _, cluster in
                    #expect(await eventually { cluster.view.reports.allSatisfy { $0.state == .ready } })
                    let experts = RemoteExperts(cluster: cluster, fingerprint: fingerprint, bounds: bounds)
                    for _ in 0..<64 {
                        let outputs = try await onThread { try experts.execute(request) }
                        #expect(outputs.dropped.isEmpty)
                    }
                    let liar = cluster.view.reports.first { $0.id.port == port }
                    #expect(liar?.attempts[.failed(.badReply)] ?? 0 > 0)
                    #expect(liar?.ejections ?? 0 > 0)
                    #expect(cluster.view.reports.filter { $0.id.port != port }.allSatisfy { $0.failed == 0 })
                }
            }
        }
    }
}
