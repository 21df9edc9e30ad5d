// SPDX-License-Identifier: Apache-2.0

/// Where the next step's rows get their caches from.
///
/// A beam that has one successor hands its cache on; a beam with more successors hands it to the first and copies to
/// the others; a beam without a successor drops it.
struct CacheOrder: Sendable, Equatable {
    enum Source: Sendable, Equatable {
        /// The cache of this step's row, as it is.
        case keep(Int)
        /// A copy of the cache of this step's row.
        case copy(Int)
    }

    /// One for each row of the next step.
    let sources: [Source]

    /// Decides about each row of the next step.
    ///
    /// - Parameter parents: For each row of the next step, the row of this step that it continues.
    init(parents: [Int]) {
        var taken: Set<Int> = []
        self.sources = parents.map { taken.insert($0).inserted ? .keep($0) : .copy($0) }
    }

    /// The next step's caches.
    ///
    /// All copies are made here, before anything is appended to the originals.
    ///
    /// - Parameters:
    ///   - caches: This step's caches, by row.
    ///   - copy: Makes a copy of a cache.
    /// - Returns: The next step's caches, by row.
    func apply<Cache>(to caches: [Cache], copy: (Cache) -> Cache) -> [Cache] {
        self.sources.map { source in
            switch source {
            case .keep(let row): caches[row]
            case .copy(let row): copy(caches[row])
            }
        }
    }
}
