// SPDX-License-Identifier: Apache-2.0

internal import Digests
public import SwitchyardProtos

extension Receipt {
    /// The version of receipts that this program writes and reads.
    public static let currentVersion: UInt32 = 1

    /// Computes the digests of a receipt's parts.
    ///
    /// - Returns: The digests that the receipt must have.
    /// - Throws: ``ReceiptError`` when libcrypto does not offer SHA-256.
    public func computedDigests() throws(ReceiptError) -> ReceiptDigests {
        do throws(DigestError) {
            var digests = ReceiptDigests()
            digests.model = try RunningDigest.sha256(self.model?.serialized() ?? [])
            digests.request = try RunningDigest.sha256(self.request?.serialized() ?? [])
            digests.routes = try RunningDigest.sha256(self.routes?.serialized() ?? [])
            digests.drops = try RunningDigest.sha256(Receipt(drops: self.drops).serialized())
            digests.generations = try RunningDigest.sha256(Receipt(generations: self.generations).serialized())
            let version = (0..<4).map { UInt8(truncatingIfNeeded: self.version >> (8 * UInt32($0))) }
            digests.receipt = try RunningDigest.sha256(
                version + digests.model + digests.request + digests.routes + digests.drops + digests.generations
            )
            return digests
        } catch {
            throw ReceiptError("digests", "cannot be computed: \(error)")
        }
    }

    /// The receipt with the digests of its parts.
    ///
    /// - Returns: A copy whose ``digests`` are computed.
    /// - Throws: ``ReceiptError`` when libcrypto does not offer SHA-256.
    public func sealed() throws(ReceiptError) -> Receipt {
        var receipt = self
        receipt.digests = try self.computedDigests()
        return receipt
    }

    /// Compares the digests with what they are of.
    ///
    /// - Throws: ``ReceiptError`` that names the first part that is not the one its digest was computed of.
    public func checkDigests() throws(ReceiptError) {
        let computed = try self.computedDigests()
        let stated = self.digests ?? ReceiptDigests()
        let parts: [(name: String, stated: [UInt8], computed: [UInt8])] = [
            ("model", stated.model, computed.model), ("request", stated.request, computed.request),
            ("routes", stated.routes, computed.routes), ("drops", stated.drops, computed.drops),
            ("generations", stated.generations, computed.generations), ("receipt", stated.receipt, computed.receipt),
        ]
        for part in parts where !RunningDigest.areEqual(part.stated, part.computed) {
            throw ReceiptError(
                "digests.\(part.name)",
                "is \(RunningDigest.hexadecimal(part.stated)), but what it stands for has "
                    + "\(RunningDigest.hexadecimal(part.computed)): one of the two was changed"
            )
        }
    }
}
