// SPDX-License-Identifier: Apache-2.0

extension DecoderCache {
    /// Arranges the caches of a step's rows for the rows of the next step.
    ///
    /// The first row that continues a cache takes it over; further ones get a fork of it. Caches that no row continues
    /// are left out.
    ///
    /// - Parameters:
    ///   - caches: One cache for each row of the last step.
    ///   - parents: For each row of the next step, the row of the last step that it continues; see
    ///     ``GenerationSession/parents``.
    /// - Returns: One cache for each row of the next step, all of them different.
    public static func arranged(_ caches: [DecoderCache], by parents: [Int]) -> [DecoderCache] {
        var isTaken = [Bool](repeating: false, count: caches.count)
        return parents.map { parent in
            defer { isTaken[parent] = true }
            return isTaken[parent] ? caches[parent].fork() : caches[parent]
        }
    }
}
