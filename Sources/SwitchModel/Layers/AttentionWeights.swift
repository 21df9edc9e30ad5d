// SPDX-License-Identifier: Apache-2.0

internal import TensorKernels

/// The four projections of an attention sublayer, all without bias.
///
/// `inner` is `heads * d_kv`.
struct AttentionWeights: Sendable {
    /// `[inner, d_model]`.
    let query: PackedMatrix

    /// `[inner, d_model]`.
    let key: PackedMatrix

    /// `[inner, d_model]`.
    let value: PackedMatrix

    /// `[d_model, inner]`.
    let output: PackedMatrix

    /// Elements of all heads' queries of one token.
    var innerWidth: Int {
        self.query.outputs
    }
}
