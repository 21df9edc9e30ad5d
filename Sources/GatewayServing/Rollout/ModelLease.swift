// SPDX-License-Identifier: Apache-2.0

/// A request's place on a checkpoint, which stays loaded until the place is given back: when nothing refers to it any more.
///
/// One request over HTTP may be several to the engine, one for each of its prompts; all of them keep to one checkpoint.
final class ModelLease: Sendable {
    let lane: ModelLane
    private let end: @Sendable () -> Void

    init(_ lane: ModelLane, end: @escaping @Sendable () -> Void) {
        self.lane = lane
        self.end = end
    }

    deinit { self.end() }
}
