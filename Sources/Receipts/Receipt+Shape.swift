// SPDX-License-Identifier: Apache-2.0

public import SwitchyardProtos
internal import SwitchyardTypes

extension Receipt {
    /// Checks that a receipt's parts are all there and fit each other, whatever model they are of.
    ///
    /// - Throws: ``ReceiptError`` that names the field, what it must be and what it is.
    public func checkShape() throws(ReceiptError) {
        guard self.version == Self.currentVersion else {
            throw ReceiptError("version", "is \(self.version); this program reads version \(Self.currentVersion)")
        }
        guard let model = self.model else { throw ReceiptError("model", "is missing") }
        guard self.request != nil else { throw ReceiptError("request", "is missing") }
        guard let routes = self.routes else { throw ReceiptError("routes", "is missing") }
        guard let digests = self.digests else { throw ReceiptError("digests", "is missing") }
        guard model.fingerprint.utf8.count == 16,
            model.fingerprint.utf8.allSatisfy({ (0x30...0x39).contains($0) || (0x61...0x66).contains($0) })
        else {
            throw ReceiptError(
                "model.fingerprint",
                "is \"\(model.fingerprint.prefix(80))\"; it must be sixteen hexadecimal digits"
            )
        }
        let parts: [(String, [UInt8])] = [
            ("model", digests.model), ("request", digests.request), ("routes", digests.routes),
            ("drops", digests.drops),
            ("generations", digests.generations), ("receipt", digests.receipt),
        ]
        for (name, digest) in parts where digest.count != 32 {
            throw ReceiptError("digests.\(name)", "has \(digest.count) bytes; a SHA-256 has 32")
        }
        try routes.checkShape()
        try self.checkDrops(routes)
        guard !self.generations.isEmpty else {
            throw ReceiptError("generations", "is empty; an answer has at least one")
        }
        for (index, generation) in self.generations.enumerated() where generation.decoderRoutes != nil {
            throw ReceiptError("generations[\(index)].decoder_routes", "is set; the routes of a receipt are in routes")
        }
    }

    /// Drops name entries of the routes, each once, in order.
    private func checkDrops(_ routes: ReceiptRoutes) throws(ReceiptError) {
        var previous: ReceiptDrop?
        for (index, drop) in self.drops.enumerated() {
            let field = "drops[\(index)]"
            let stack: ReceiptStackRoutes?
            switch drop.stack {
            case .encoder: stack = routes.encoder
            case .decoder: stack = routes.decoder
            case .unspecified: throw ReceiptError("\(field).stack", "is missing")
            }
            guard let stack, drop.token < stack.tokens else {
                throw ReceiptError(
                    "\(field).token",
                    "is \(drop.token); the routes of that stack have \(stack?.tokens ?? 0) tokens"
                )
            }
            guard stack.layers.contains(drop.layer) else {
                throw ReceiptError("\(field).layer", "is \(drop.layer); the routes' layers are \(stack.layers)")
            }
            guard drop.reason != .unspecified else { throw ReceiptError("\(field).reason", "is missing") }
            if let previous, !previous.comes(before: drop) {
                throw ReceiptError(field, "is not in order: by stack, token and layer, each once")
            }
            previous = drop
        }
    }
}

extension ReceiptDrop {
    /// Whether a list of drops has this one before another.
    func comes(before other: ReceiptDrop) -> Bool {
        (self.stack.rawValue, self.token, self.layer) < (other.stack.rawValue, other.token, other.layer)
    }
}

extension ReceiptRoutes {
    fileprivate func checkShape() throws(ReceiptError) {
        guard let encoder = self.encoder else { throw ReceiptError("routes.encoder", "is missing") }
        guard let decoder = self.decoder else { throw ReceiptError("routes.decoder", "is missing") }
        try encoder.checkShape("routes.encoder")
        try decoder.checkShape("routes.decoder")
        var total: UInt64 = 0
        for (step, tokens) in self.stepTokens.enumerated() {
            guard tokens > 0 else {
                throw ReceiptError("routes.step_tokens[\(step)]", "is 0; a step has a token at least")
            }
            // At most 2^32 numbers below 2^32: the sum fits.
            total += UInt64(tokens)
        }
        guard total == UInt64(decoder.tokens) else {
            throw ReceiptError(
                "routes.step_tokens",
                "has \(total) tokens in all; routes.decoder.tokens is \(decoder.tokens)"
            )
        }
    }
}

extension ReceiptStackRoutes {
    fileprivate func checkShape(_ field: String) throws(ReceiptError) {
        guard zip(self.layers, self.layers.dropFirst()).allSatisfy({ $0 < $1 }) else {
            throw ReceiptError("\(field).layers", "is \(self.layers); layers ascend")
        }
        let (entries, overflow) = Int(self.tokens).multipliedReportingOverflow(by: self.layers.count)
        for (name, count) in [("experts", self.experts.count), ("probabilities", self.probabilities.count)]
        where overflow || count != entries {
            throw ReceiptError(
                "\(field).\(name)",
                "has \(count) entries; \(self.tokens) tokens at \(self.layers.count) layers need \(entries)"
            )
        }
        if let index = self.experts.firstIndex(where: { $0 > UInt32(UInt16.max) }) {
            throw ReceiptError(
                "\(field).experts[\(index)]",
                "is \(self.experts[index]); it must be at most \(UInt16.max)"
            )
        }
    }
}
