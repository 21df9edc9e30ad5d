// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import ExpertPooling
internal import RPCCore
internal import Receipts
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes

/// Makes receipts of a gateway's answers.
struct ReceiptMaker: Sendable {
    /// The checkpoint's fingerprint.
    let fingerprint: UInt64
    /// The model's configuration.
    let model: ModelConfiguration
    /// How the gateway keeps its own weights.
    let gatewayWeights: DType
    /// The type of rows on the way to the experts.
    let rowType: DType
    /// How many tokens an expert takes.
    let capacity: CapacityPolicy
    /// How the experts that may answer keep their weights.
    let expertWeights: @Sendable () -> Set<DType>

    /// The one type of the experts' weights; nil for a model without experts.
    ///
    /// - Throws: ``RPCError`` with `FAILED_PRECONDITION` where there is no such type, since an answer then depends on which host
    ///   computed it.
    func expertType() throws(RPCError) -> DType? {
        guard self.model.hasExperts else { return nil }
        let types = self.expertWeights()
        guard let type = types.first, types.count == 1 else {
            let found =
                types.isEmpty
                ? "no expert host is connected that says how it keeps them"
                : "the hosts keep them in \(types.map(\.description).sorted().joined(separator: " and "))"
            throw RPCError(
                .failedPrecondition,
                "return_receipt is set, and a receipt names one type of the experts' weights, but \(found); start all hosts with "
                    + "one --dtype, or leave return_receipt out"
            )
        }
        return type
    }

    /// Makes the receipt of an answer.
    ///
    /// - Parameters:
    ///   - work: The request as the engine understood it.
    ///   - result: What the engine answered, with every step.
    ///   - generations: The answer's messages.
    ///   - expertType: The type of the experts' weights when the request began.
    /// - Returns: The receipt with its digests.
    /// - Throws: ``RPCError``: `FAILED_PRECONDITION` where the experts' weights have changed their type meanwhile.
    func receipt(
        of work: EngineRequest,
        _ result: EngineResult,
        generations: [Generation],
        expertType: DType?
    ) throws(RPCError) -> Receipt {
        guard try self.expertType() == expertType else {
            throw RPCError(
                .failedPrecondition,
                "return_receipt is set, and a receipt names one type of the experts' weights, but hosts with another type joined while "
                    + "the request ran; ask again"
            )
        }
        guard let request = ReceiptRequest.message(work, model: self.model) else {
            throw RPCError(.internal, "a receipt was asked for of something other than a generation")
        }
        var receipt = Receipt(version: Receipt.currentVersion)
        receipt.model = self.description(expertType)
        receipt.request = request
        let recorded = RecordedRoutes(result.routing, model: self.model)
        receipt.routes = recorded.routes
        receipt.drops = recorded.drops
        receipt.generations = generations.map { generation in
            var generation = generation
            generation.decoderRoutes = nil
            return generation
        }
        do throws(ReceiptError) {
            return try receipt.sealed()
        } catch {
            throw RPCError(.internal, "\(error)")
        }
    }

    private func description(_ expertType: DType?) -> ReceiptModel {
        ReceiptModel(
            fingerprint: self.fingerprint.fingerprintText,
            gatewayWeights: WireDType(self.gatewayWeights),
            expertWeights: expertType.map { WireDType($0) } ?? .unspecified,
            rowDType: self.model.hasExperts ? WireDType(self.rowType) : .unspecified,
            capacity: self.capacity.settingText,
            expertCapacity: UInt32(clamping: self.model.expertCapacity),
            padTokenID: self.model.generation.padTokenID.map { UInt32(clamping: $0) }
        )
    }
}

extension CapacityPolicy {
    /// The policy as the setting `capacity` writes it.
    var settingText: String {
        switch self {
        case .checkpoint: "checkpoint"
        case .unlimited: "unlimited"
        case .factor(let factor): "factor:\(factor)"
        case .floor(let factor, .tokens): "floor:\(factor)"
        case .floor(let factor, .drawn(let seed)): "floor:\(factor):drawn:\(seed)"
        }
    }
}

/// What the routers decided for a request, as a receipt lists it.
struct RecordedRoutes: Equatable {
    var routes: ReceiptRoutes
    var drops: [ReceiptDrop] = []

    /// Lists every step of an answer.
    ///
    /// - Parameters:
    ///   - routing: What the engine reported.
    ///   - model: The model's configuration.
    init(_ routing: EngineRouting, model: ModelConfiguration) {
        func none(_ stack: SwitchyardTypes.Stack) -> StackRoutes {
            StackRoutes(layers: model.sparseLayers.filter { $0.stack == stack })
        }
        var decoder = none(.decoder)
        var stepTokens: [UInt32] = []
        for step in routing.steps {
            for row in step { decoder.append(row) }
            stepTokens.append(UInt32(clamping: step.reduce(0) { $0 + $1.tokenCount }))
        }
        let encoder = routing.encoder ?? none(.encoder)
        self.routes = ReceiptRoutes(
            encoder: ReceiptStackRoutes(encoder),
            decoder: ReceiptStackRoutes(decoder),
            stepTokens: stepTokens
        )
        self.drops = Self.drops(encoder, .encoder) + Self.drops(decoder, .decoder)
    }

    private static func drops(_ routes: StackRoutes, _ stack: SwitchyardTypes.Stack) -> [ReceiptDrop] {
        let width = routes.layers.count
        return routes.reasons.enumerated()
            .compactMap { entry, reason in
                reason.map {
                    ReceiptDrop(
                        stack: WireStack(stack),
                        token: UInt32(clamping: entry / width),
                        layer: UInt32(clamping: routes.layers[entry % width].block),
                        reason: WireDropReason($0)
                    )
                }
            }
    }
}

extension ReceiptStackRoutes {
    fileprivate init(_ routes: StackRoutes) {
        self.init(
            layers: routes.layers.map { UInt32(clamping: $0.block) },
            tokens: UInt32(clamping: routes.tokenCount),
            experts: routes.experts.map { UInt32($0) },
            probabilities: routes.probabilities
        )
    }
}

extension ExpertCluster {
    /// How the hosts that may answer, or have just answered, keep their weights.
    var expertWeightTypes: Set<DType> {
        Set(
            self.view.reports.compactMap { report in
                switch report.state {
                case .ready, .ejected, .probing, .draining, .quarantined: report.description?.weightType
                case .disconnected, .unverified, .mismatched, .spare: nil
                }
            }
        )
    }
}
