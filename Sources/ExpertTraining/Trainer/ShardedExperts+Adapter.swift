// SPDX-License-Identifier: Apache-2.0

public import Checkpoints
public import SwitchTraining

extension ShardedExperts {
    /// A LoRA adapter that is trained in place of experts' weights.
    public struct Adapter: Sendable {
        /// The adapter of the whole model.
        public var settings: LowRankSettings
        /// The checkpoint whose weights stay as they are, which hosts get.
        public var base: Checkpoint

        /// Names an adapter and what is below it.
        ///
        /// - Parameters:
        ///   - settings: The adapter of the whole model.
        ///   - base: The whole checkpoint whose weights stay as they are.
        public init(_ settings: LowRankSettings, base: Checkpoint) {
            self.settings = settings
            self.base = base
        }
    }
}
