// SPDX-License-Identifier: Apache-2.0

extension Array where Element == DecoderCache {
    /// The caches for a next step whose rows continue rows of this one.
    ///
    /// - Parameter parents: For each row of the next step, the row of this step that it continues, as
    ///   ``GenerationSession/parents`` has them.
    /// - Returns: One cache a row of the next step. The first row to continue a row takes its cache over, others get a
    ///   fork of it; caches that nobody continues are let go.
    public func continued(by parents: [Int]) -> [DecoderCache] {
        var taken = [Bool](repeating: false, count: self.count)
        return parents.map { parent in
            defer {
                taken[parent] = true
            }
            return taken[parent] ? self[parent].fork() : self[parent]
        }
    }
}
