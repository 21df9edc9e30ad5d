// SPDX-License-Identifier: Apache-2.0

import SwitchModel
import SwitchyardTypes

@testable import GatewayServing

extension RequestHandler {
    /// A handler whose receipts are of no checkpoint, for tests that ask for none.
    init(reader: RequestReader, engine: InferenceEngine) {
        self.init(
            reader: reader,
            engine: engine,
            receipts: ReceiptMaker(
                fingerprint: 0,
                model: reader.model,
                gatewayWeights: .float32,
                rowType: .float32,
                capacity: .checkpoint,
                expertWeights: { [.float32] }
            )
        )
    }
}
