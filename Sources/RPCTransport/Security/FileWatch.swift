// SPDX-License-Identifier: Apache-2.0

/// Decides when changed files are reloaded, as a pure machine.
///
/// Files that belong together (a certificate and its key) change one after the other, so a change is loaded only once it
/// has been seen twice. A state that failed to load is not tried again until something changes.
struct FileWatch: Sendable {
    /// What the runner has to do.
    enum Action: Sendable, Hashable {
        /// Look again after the usual interval.
        case wait
        /// Something changed: look again soon.
        case lookAgain
        /// The change has settled: load the files.
        case load
    }

    /// The state that was loaded last, or failed to load.
    private var tried: [FileStamp?]
    /// A change that was seen once.
    private var pending: [FileStamp?]?

    /// Begins with files that are about to be loaded.
    init(loaded: [FileStamp?]) {
        self.tried = loaded
    }

    /// The files were checked.
    mutating func looked(_ stamps: [FileStamp?]) -> Action {
        guard stamps != self.tried else {
            self.pending = nil
            return .wait
        }
        guard stamps == self.pending else {
            self.pending = stamps
            return .lookAgain
        }
        self.tried = stamps
        self.pending = nil
        return .load
    }
}
