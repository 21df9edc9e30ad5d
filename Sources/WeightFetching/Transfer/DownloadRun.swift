// SPDX-License-Identifier: Apache-2.0

internal import Synchronization

/// Fetches several files, some at once, and reports their progress as one.
struct DownloadRun: Sendable {
    /// A file and its place.
    struct Item: Sendable {
        var file: RemoteFile
        /// Where the file goes.
        var target: String
    }

    let downloader: FileDownloader
    let label: String
    let jobs: Int

    /// Fetches the files.
    ///
    /// - Parameters:
    ///   - items: The files; larger ones are begun first.
    ///   - present: Bytes of files that are already here, for the progress.
    ///   - fetch: Fetches one file; it is told how many of the file's bytes are on the disk.
    /// - Returns: What each file took, in the order of the items.
    /// - Throws: ``FetchError`` of the first file that cannot be fetched, the others ended; `CancellationError`.
    func run(
        _ items: [Item],
        present: Int,
        _ fetch: @escaping @Sendable (Item, @escaping @Sendable (Int) -> Void) async throws -> FetchedFile
    ) async throws -> [FetchedFile] {
        let meter = TransferMeter(
            label: self.label,
            items: items,
            present: present,
            events: self.downloader.events
        )
        let order = items.indices.sorted { items[$0].file.byteCount > items[$1].file.byteCount }
        meter.begin()
        return try await withThrowingTaskGroup(of: (Int, FetchedFile).self) { group in
            var results: [Int: FetchedFile] = [:]
            var running = 0
            for index in order {
                if running >= max(1, self.jobs), let (done, file) = try await group.next() {
                    results[done] = file
                    running -= 1
                }
                let item = items[index]
                group.addTask {
                    let file = try await fetch(item) { bytes in meter.note(bytes, of: index) }
                    return (index, file)
                }
                running += 1
            }
            for try await (done, file) in group { results[done] = file }
            return items.indices.compactMap { results[$0] }
        }
    }
}

/// How many bytes of some files are on this machine.
private final class TransferMeter: Sendable {
    private let label: String
    private let present: Int
    private let total: Int
    private let events: @Sendable (FetchEvent) -> Void
    private let counts: Mutex<[Int]>

    init(
        label: String,
        items: [DownloadRun.Item],
        present: Int,
        events: @escaping @Sendable (FetchEvent) -> Void
    ) {
        self.label = label
        self.present = present
        self.total = items.reduce(present) { $0 + $1.file.byteCount }
        self.events = events
        self.counts = Mutex(Array(repeating: 0, count: items.count))
    }

    func begin() {
        self.events(.progress(label: self.label, completed: self.present, total: self.total))
    }

    func note(_ bytes: Int, of index: Int) {
        let sum = self.counts.withLock { counts in
            counts[index] = bytes
            return counts.reduce(self.present, +)
        }
        self.events(.progress(label: self.label, completed: sum, total: self.total))
    }
}
