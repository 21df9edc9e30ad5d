// SPDX-License-Identifier: Apache-2.0

internal import ServiceKit
internal import Synchronization

/// The states of layers that are over: their locks, conditions and lists serve the layers to come.
///
/// A layer gives its state back when the last reference to it goes, so after the last answer that could still change it.
final class LayerStates: Sendable {
    /// As many layers as are in flight at once: two lanes of an engine, and some whose late answers are awaited.
    private static let most = 8

    private let free = Mutex<[Monitor<PendingLayer.State>]>([])

    /// A state that says nothing of a layer; nil if there is none.
    func take() -> Monitor<PendingLayer.State>? { self.free.withLock { $0.popLast() } }

    /// Keeps a state that nothing else refers to, unless there are enough.
    ///
    /// - Parameter state: The state.
    func keep(_ state: Monitor<PendingLayer.State>) {
        // What it held is let go of here, without this object's lock.
        state.withLock { $0.clear() }
        self.free.withLock { free in
            if free.count < Self.most { free.append(state) }
        }
    }
}
