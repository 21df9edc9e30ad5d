// SPDX-License-Identifier: Apache-2.0

internal import Checkpoints
internal import RPCCore
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes
internal import TensorKernels

extension Routes {
    /// The message for routes.
    ///
    /// - Parameters:
    ///   - routes: The routes.
    ///   - stack: The half of the model; a stack without sparse layers does not say it itself.
    init(_ routes: StackRoutes, stack: SwitchyardTypes.Stack) {
        self.init(
            stack: WireStack(stack),
            layers: routes.layers.map { UInt32($0.block) },
            tokens: UInt32(clamping: routes.tokenCount),
            experts: routes.experts.flatMap { [UInt8(truncatingIfNeeded: $0), UInt8($0 >> 8)] },
            probabilities: routes.probabilities.flatMap { probability in
                let bits = probability.bitPattern
                return [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: bits >> $0) }
            }
        )
        if routes.reasons.contains(where: { $0 != nil }) {
            self.dropReasons = routes.reasons.map { reason in
                reason.map { UInt8(truncatingIfNeeded: WireDropReason($0).rawValue) } ?? 0
            }
        }
    }
}

extension StackRoutes {
    /// Reads a request's routes, and checks that their arrays have the lengths that its numbers say.
    ///
    /// - Parameters:
    ///   - message: The message.
    ///   - field: The field's name in errors.
    ///   - stack: The half of the model that they are for.
    /// - Throws: ``RPCError`` with `INVALID_ARGUMENT` that names what is wrong.
    init(_ message: Routes, field: String, stack: SwitchyardTypes.Stack) throws(RPCError) {
        func fail(_ text: String) -> RPCError { RPCError(.invalidArgument, "\(field)\(text)") }
        guard message.stack.stack == stack else {
            let found = message.stack.stack.map(\.description) ?? "missing"
            throw fail(".stack is \(found); it must be the \(stack)")
        }
        let (entries, overflow) = Int(message.tokens).multipliedReportingOverflow(by: message.layers.count)
        // Longer arrays do not fit into a message.
        guard !overflow, entries <= Int(Int32.max) else {
            throw fail(" has \(message.tokens) tokens and \(message.layers.count) layers, too many for a message")
        }
        let arrays = [
            ("experts", message.experts.count, 2, false), ("probabilities", message.probabilities.count, 4, true),
            ("drop_reasons", message.dropReasons.count, 1, true),
        ]
        for (name, bytes, width, mayBeEmpty) in arrays where !(mayBeEmpty && bytes == 0) {
            guard bytes == entries * width else {
                throw fail(
                    ".\(name) has \(bytes) bytes; \(message.tokens) tokens at \(message.layers.count) layers need "
                        + "\(entries * width)"
                )
            }
        }
        var reasons: [SwitchyardTypes.DropReason?] = []
        reasons.reserveCapacity(message.dropReasons.count)
        for (index, number) in message.dropReasons.enumerated() {
            let reason = WireDropReason(rawValue: UInt32(number)).flatMap(\.reason)
            guard number == 0 || reason != nil else {
                throw fail(".drop_reasons[\(index)] is \(number), which is no DropReason")
            }
            reasons.append(reason)
        }
        let experts = (0..<entries).map { UInt16(message.experts[2 * $0]) | UInt16(message.experts[2 * $0 + 1]) << 8 }
        let layers = message.layers.map { SparseLayer(stack: stack, block: Int($0)) }
        guard
            let routes = StackRoutes(
                layers: layers,
                tokenCount: Int(message.tokens),
                experts: experts,
                reasons: reasons
            )
        else {
            throw fail(" has arrays of different lengths")
        }
        self = routes
    }
}

extension RouterLossesMessage {
    /// The message for losses.
    init(_ losses: SwitchModel.RouterLosses) {
        let encoder = losses.transformers[.encoder] ?? .init()
        let decoder = losses.transformers[.decoder] ?? .init()
        self.init(
            layers: losses.layers.map { layer, losses in
                LayerRouterLosses(
                    stack: WireStack(layer.stack),
                    layer: UInt32(layer.block),
                    loadBalancingLoss: Float(losses.balance),
                    zLoss: Float(losses.z)
                )
            },
            loadBalancingLoss: Float(losses.total.balance),
            zLoss: Float(losses.total.z),
            transformersEncoderAuxLoss: Float(encoder.balance),
            transformersEncoderZLoss: Float(encoder.z),
            transformersDecoderAuxLoss: Float(decoder.balance),
            transformersDecoderZLoss: Float(decoder.z)
        )
    }
}

extension RequestReader {
    /// The model's sparse layers of one stack.
    private func layers(_ stack: SwitchyardTypes.Stack) -> [SparseLayer] {
        self.model.sparseLayers.filter { $0.stack == stack }
    }

    /// Reads a field with routes that a request gives.
    ///
    /// - Parameters:
    ///   - message: The field; nil if it is left out.
    ///   - field: Its name.
    ///   - stack: The half of the model that it is for.
    ///   - tokens: The tokens that will be computed there.
    /// - Returns: The routes, which fit the model and the tokens.
    /// - Throws: ``RPCError`` with `INVALID_ARGUMENT` that names the field and what does not fit.
    func routes(
        _ message: Routes?,
        field: String,
        stack: SwitchyardTypes.Stack,
        tokens: Int
    ) throws(RPCError) -> StackRoutes? {
        guard let message else { return nil }
        let routes = try StackRoutes(message, field: field, stack: stack)
        if let fault = routes.fault(
            layers: self.layers(stack),
            tokens: tokens,
            expertCount: self.model.expertCount
        ) {
            throw RPCError(.invalidArgument, "\(field) \(fault)")
        }
        return routes
    }

    /// Refuses to return more routes than the limit allows.
    ///
    /// - Parameters:
    ///   - isAsked: Whether the request asks for routes.
    ///   - field: The field that asks for them.
    ///   - input: The encoder's tokens.
    ///   - output: The most tokens of the decoder, over all sequences.
    /// - Throws: ``RPCError`` with `RESOURCE_EXHAUSTED` that names the limit.
    func checkRoutes(
        _ isAsked: Bool,
        named field: String = "return_routes",
        input: Int,
        output: Int
    ) throws(RPCError) {
        guard isAsked else { return }
        let entries = input * self.layers(.encoder).count + output * self.layers(.decoder).count
        guard entries <= self.limits.maxRouteEntries else {
            throw RPCError(
                .resourceExhausted,
                "\(field) is set, and the routes may have \(entries) entries, one for each token at each sparse layer; "
                    + "the limit is \(self.limits.maxRouteEntries); send a shorter input, or ask for fewer tokens or sequences"
            )
        }
    }

    /// The distributions that a score is asked for.
    ///
    /// - Parameters:
    ///   - request: The message.
    ///   - target: The target's tokens.
    /// - Returns: What to compute; nil for none.
    /// - Throws: ``RPCError`` naming the field that is wrong.
    func distributions(_ request: ScoreRequest, target: Int) throws(RPCError) -> DistributionOptions? {
        let (asked, temperature) = (Int(request.distributionTokens), request.distributionTemperature ?? 1)
        guard asked > 0 else {
            guard request.distributionTemperature == nil else {
                throw RPCError(
                    .invalidArgument,
                    "distribution_temperature is set without distribution_tokens; set both, or neither"
                )
            }
            return nil
        }
        try Self.check("distribution_tokens", asked, within: 0...self.model.vocabularySize)
        guard temperature >= 0.01, temperature <= 1000 else {
            throw RPCError(.invalidArgument, "distribution_temperature is \(temperature); it must be from 0.01 to 1000")
        }
        guard target * asked <= self.limits.maxDistributionEntries else {
            throw RPCError(
                .resourceExhausted,
                "distribution_tokens is \(asked), which makes \(target * asked) entries for \(target) target tokens; the limit"
                    + " is \(self.limits.maxDistributionEntries); ask for fewer, or score a shorter target"
            )
        }
        return DistributionOptions(tokens: asked, temperature: temperature)
    }

    /// Refuses to return more logits than the limit allows.
    func checkLogits(_ isAsked: Bool, target: Int) throws(RPCError) {
        let elements = target * self.model.vocabularySize
        guard isAsked, elements > self.limits.maxLogits else { return }
        throw RPCError(
            .resourceExhausted,
            "return_logits is set, and \(target) target tokens have \(elements) logits in a vocabulary of "
                + "\(self.model.vocabularySize); the limit is \(self.limits.maxLogits); score a shorter target"
        )
    }
}
