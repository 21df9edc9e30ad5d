// SPDX-License-Identifier: Apache-2.0

/// Where a long piece of work is left for a moment, so that something more urgent does not wait for its end.
///
/// The work is cut where no sum is cut, so the bits are those of work without pauses.
public struct WorkPauses {
    /// Multiply-adds between two pauses, about: what takes one thread some 300 microseconds.
    private static let distance = 1 << 24

    /// Panels that are computed at once at least: a product's input is laid out anew after each pause.
    static let leastPanels = 4

    /// What happens in a pause, on the thread that handed in the work; it may use the pool.
    public let pause: () -> Void

    /// Describes pauses.
    ///
    /// - Parameter pause: What happens in each.
    public init(_ pause: @escaping () -> Void) {
        self.pause = pause
    }

    /// Items of work up to the next pause.
    ///
    /// - Parameters:
    ///   - multiplyAdds: What takes as long as an item, at least 1.
    ///   - threads: Threads that share the work.
    /// - Returns: How many items, at least one for each thread.
    public func items(of multiplyAdds: Int, threads: Int) -> Int {
        threads * max(1, Self.distance / max(1, multiplyAdds))
    }

    /// Columns of a product up to the next pause.
    ///
    /// - Parameters:
    ///   - depth: The length of each sum.
    ///   - rows: Rows of the product.
    ///   - threads: Threads that share the work.
    /// - Returns: How many columns, whole panels.
    public func columns(depth: Int, rows: Int, threads: Int) -> Int {
        let panel = PackedLayout.panelColumns
        return panel * max(Self.leastPanels, self.items(of: depth * panel * (rows + 4), threads: threads))
    }
}
