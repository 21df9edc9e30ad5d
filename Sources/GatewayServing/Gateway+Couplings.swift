// SPDX-License-Identifier: Apache-2.0

internal import ExpertPooling
internal import SwitchModel

extension GatewayConfiguration {
    /// Settings under which an answer can depend on the requests beside it, each in a sentence that says what to set instead.
    ///
    /// With all others a request's tokens and log-probabilities are the same bits alone and in any company, as long as no
    /// host loses its rows.
    public var couplings: [String] {
        var sentences: [String] = []
        if self.engine.capacityPolicy.isShared {
            sentences.append(
                "requests can change each other's answers: capacity \(self.engine.capacityPolicy.settingText) shares an expert's places "
                    + "among all requests of a step; set capacity to checkpoint or unlimited to keep them apart"
            )
        }
        if self.cluster.choice.allowsMixedWeightTypes {
            sentences.append(
                "requests can change each other's answers: with mixed-weight-types an answer depends on the replica that computes it, and "
                    + "so on the load; unset mixed-weight-types to keep them apart"
            )
        }
        return sentences
    }
}
