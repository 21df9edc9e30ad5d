// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Watches the weight files that a process serves from: a mapped file that another program writes into changes the model.
///
/// The states compared are those of the moment in which the files were mapped, so what happens while weights are loaded is
/// seen too. A file that is replaced by renaming is no danger: the mapping keeps the old one.
///
/// What no state shows, such as a bit that a disk flipped, is found by reading: every mapped tensor is compared with the
/// checksum in its part's manifest, soon after the start where that was not done before it, and once a day.
public final class WeightWatch: Sendable {
    private struct Watched {
        var path: String
        var state: FileState
        var isReplaced = false
    }

    private struct State {
        var files: [Watched]
        var failure: String?
    }

    private let state: Mutex<State>
    private let contents: MappedContents
    private let isCompared: Bool

    /// Watches the files of checkpoints.
    ///
    /// - Parameters:
    ///   - checkpoints: The checkpoints whose mapped tensors stay in use.
    ///   - isCompared: Whether all of them have just been compared with their checksums.
    public init(_ checkpoints: [Checkpoint], isCompared: Bool) {
        self.contents = MappedContents(checkpoints)
        self.isCompared = isCompared
        var seen: Set<ObjectIdentifier> = []
        var files: [Watched] = []
        for checkpoint in checkpoints {
            for tensor in checkpoint.tensors.values {
                guard let file = tensor.storage as? MappedFile, seen.insert(ObjectIdentifier(file)).inserted else {
                    continue
                }
                files.append(Watched(path: file.path, state: file.state))
            }
        }
        self.state = Mutex(State(files: files.sorted { $0.path < $1.path }))
    }

    /// The watched files, ascending.
    public var paths: [String] { self.state.withLock { $0.files.map(\.path) } }

    /// What happened to the weights, so that nothing computed with them may be given out; nil while all is well.
    ///
    /// Once set it stays.
    public var failure: String? { self.state.withLock { $0.failure } }

    /// Looks at every file once.
    ///
    /// - Returns: A line for each file that was replaced by renaming since the last look; these change nothing.
    public func look() -> [String] {
        let files = self.state.withLock { $0.files }
        var notes: [String] = []
        for (index, file) in files.enumerated() where !file.isReplaced {
            let now = FileState(path: file.path)
            switch file.state.change(to: now) {
            case .none: continue
            case .attributes:
                guard let now else { continue }
                self.state.withLock { $0.files[index].state = now }
            case .replaced:
                self.state.withLock { $0.files[index].isReplaced = true }
                notes.append(
                    "\(file.path) was replaced or removed; the file that was there is served until the next restart"
                )
            case .content(let how):
                let failure =
                    "the weights changed while they were served: \(file.path) was overwritten or cut (\(how)); replace files by "
                    + "renaming, and start again"
                self.fail(failure)
            }
        }
        return notes
    }

    private func fail(_ failure: String) {
        self.state.withLock { $0.failure = $0.failure ?? failure }
    }

    /// What a comparison of all mapped tensors with their checksums found.
    public struct Comparison: Sendable, Hashable {
        /// The number of tensors.
        public var tensors: Int
        /// Their bytes.
        public var bytes: Int
        /// How long it took, most of it pauses.
        public var duration: Duration
    }

    /// Compares every mapped tensor with its checksum once, at a limited pace; what differs is a ``failure``.
    ///
    /// - Parameter pace: Bytes per second at most; 200 MB if omitted.
    /// - Returns: Nil where one differs, where nothing has a checksum, and in a cancelled task.
    public func compare(pace: Int? = nil) async -> Comparison? {
        guard self.contents.count > 0 else { return nil }
        do {
            guard let duration = try await self.contents.pass(pace: pace ?? MappedContents.pace) else { return nil }
            return Comparison(tensors: self.contents.count, bytes: self.contents.byteCount, duration: duration)
        } catch {
            self.fail("the weights that are served are damaged: \(error)")
            return nil
        }
    }

    /// Looks again and again while a service runs.
    ///
    /// - Parameters:
    ///   - interval: The time between two looks.
    ///   - note: Called with each line of ``look()``.
    ///   - onCompared: Called after every tensor was compared with its checksum, and none differs.
    ///   - onFailure: Called once the weights have changed; makes the service end.
    ///   - service: The service.
    /// - Throws: What the service throws; `fingerprintMismatch` where it ended and the weights have changed.
    public func during(
        every interval: Duration = .seconds(1),
        note: @escaping @Sendable (String) -> Void,
        onCompared: @escaping @Sendable (Comparison) -> Void,
        onFailure: @escaping @Sendable (String) -> Void,
        _ service: @escaping @Sendable () async throws -> Void
    ) async throws {
        guard !self.paths.isEmpty else { return try await service() }
        try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                try await service()
                return true
            }
            group.addTask {
                // Ends early only when it is cancelled, since the service has ended.
                while (try? await Task.sleep(for: interval)) != nil {
                    for text in self.look() { note(text) }
                    if let failure = self.failure {
                        onFailure(failure)
                        break
                    }
                }
                return false
            }
            group.addTask {
                if self.isCompared { try? await Task.sleep(for: MappedContents.interval) }
                while !Task.isCancelled, let comparison = await self.compare() {
                    onCompared(comparison)
                    try? await Task.sleep(for: MappedContents.interval)
                }
                return false
            }
            for try await isService in group where isService { group.cancelAll() }
        }
        if let failure = self.failure { throw CheckpointError(code: .fingerprintMismatch, message: failure) }
    }
}
