// SPDX-License-Identifier: Apache-2.0

internal import Receipts
internal import SwitchModel
internal import SwitchyardProtos
internal import SwitchyardTypes

/// The drops that a replay takes from a receipt instead of computing them: rows that hosts lost, and with a capacity that is
/// counted over all requests of a step, rows over it.
struct GivenDrops {
    /// What the encoder's tokens are given; nil for nothing.
    private(set) var encoder: StackRoutes?

    /// What each row of each step is given.
    private(set) var steps: [[StackRoutes?]] = []

    /// - Parameters:
    ///   - receipt: A receipt whose parts fit each other.
    ///   - takesCapacity: Whether rows over capacity are taken as well.
    init(_ receipt: Receipt, takesCapacity: Bool) {
        guard let routes = receipt.routes, let encoder = routes.encoder, let decoder = routes.decoder else { return }
        var lost: [WireStack: [UInt32: [(layer: UInt32, reason: DropReason)]]] = [:]
        for drop in receipt.drops {
            guard let reason = drop.reason.reason, takesCapacity || reason != .capacity else { continue }
            lost[drop.stack, default: [:]][drop.token, default: []].append((drop.layer, reason))
        }
        guard !lost.isEmpty else { return }
        self.encoder = lost[.encoder].flatMap { Self.routes(0..<encoder.tokens, of: encoder, .encoder, $0) }
        guard let lost = lost[.decoder] else { return }
        var token: UInt32 = 0
        for (step, tokens) in routes.stepTokens.enumerated() {
            defer { token += tokens }
            // The first step has one row, with the decoder prefix; in the others each row has a token.
            let rows = step == 0 ? [token..<token + tokens] : (token..<token + tokens).map { $0..<$0 + 1 }
            self.steps.append(rows.map { Self.routes($0, of: decoder, .decoder, lost) })
        }
    }

    /// The drops of some tokens; nil if there are none.
    private static func routes(
        _ tokens: Range<UInt32>,
        of routes: ReceiptStackRoutes,
        _ stack: Stack,
        _ lost: [UInt32: [(layer: UInt32, reason: DropReason)]]
    ) -> StackRoutes? {
        guard tokens.contains(where: { lost[$0] != nil }) else { return nil }
        let width = routes.layers.count
        var reasons = [DropReason?](repeating: nil, count: tokens.count * width)
        for (row, token) in tokens.enumerated() {
            for drop in lost[token] ?? [] {
                guard let layer = routes.layers.firstIndex(of: drop.layer) else { continue }
                reasons[row * width + layer] = drop.reason
            }
        }
        var given = StackRoutes(
            layers: routes.layers.map { SparseLayer(stack: stack, block: Int($0)) },
            tokenCount: tokens.count,
            experts: [UInt16](repeating: 0, count: tokens.count * width),
            reasons: reasons
        )
        given?.givesDropsOnly = true
        return given
    }
}
