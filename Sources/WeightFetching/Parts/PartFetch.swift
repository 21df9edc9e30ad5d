// SPDX-License-Identifier: Apache-2.0

/// Brings a part of a model, which `switchyard shard` wrote, from an address into a folder on this machine.
public struct PartFetch: Sendable {
    /// What a fetch brought.
    public struct Report: Sendable, Hashable {
        /// The folder with the part.
        public var directory: String
        /// The part's name.
        public var name: String
        /// Bytes of the part's files.
        public var byteCount: Int
        /// Bytes that came over the network.
        public var receivedBytes: Int
    }

    private let address: RemoteAddress
    private let cache: PartCache
    private let client: WebClientConfiguration

    /// The default folder for parts.
    ///
    /// - Parameter environment: The process's environment: `XDG_CACHE_HOME`, or `.cache` in `HOME`.
    /// - Returns: The folder; nil where the environment names none.
    public static func usualCache(_ environment: [String: String]) -> String? {
        func value(_ key: String) -> String? { environment[key].flatMap { $0.isEmpty ? nil : $0 } }
        return (value("XDG_CACHE_HOME") ?? value("HOME").map { "\($0)/.cache" }).map { "\($0)/switchyard/shards" }
    }

    /// Prepares a fetch.
    ///
    /// - Parameters:
    ///   - address: The folder with `manifest.json`; a query goes along with each of its files.
    ///   - cache: The folder with all parts; nil where none is given.
    ///   - client: How to connect.
    /// - Throws: ``FetchError`` where no cache is given.
    public init(
        _ address: RemoteAddress,
        cache: String?,
        client: WebClientConfiguration
    ) throws(FetchError) {
        guard let root = cache else {
            throw FetchError(
                .invalidArgument,
                "there is no HOME to keep what is fetched in; name a folder with --shard-cache or SWITCHYARD_SHARD_CACHE"
            )
        }
        self.address = address
        self.cache = PartCache(root)
        self.client = client
    }

    /// Fetches missing files.
    ///
    /// The manifest is requested at every start. Where it is not available, but the address named a part before that is
    /// complete on this machine, that part is used, with a warning.
    ///
    /// - Parameter events: Receives events, from several tasks.
    /// - Returns: Where the part is, and what it took.
    /// - Throws: ``FetchError``; `CancellationError`.
    public func run(events: @escaping @Sendable (FetchEvent) -> Void) async throws -> Report {
        try await WebClient.with(self.client) { client in
            try await self.run(FileDownloader(client: client, events: events))
        }
    }

    /// Compares a part that ``run(events:)`` brought with its checksums again, for when it turns out not to load.
    ///
    /// Damaged files are removed, so that another ``run(events:)`` fetches them, and them alone.
    ///
    /// - Parameters:
    ///   - directory: The folder that the report named.
    ///   - events: Receives events.
    /// - Returns: The names of the removed files; empty where the part is as it was fetched.
    /// - Throws: ``FetchError``; `CancellationError`.
    public func removeDamaged(
        in directory: String,
        events: @escaping @Sendable (FetchEvent) -> Void
    ) async throws -> [String] {
        guard let digest = directory.split(separator: "/").last.map(String.init), self.cache.part(digest) == directory
        else { return [] }
        let lock = try await FileLock.take(self.cache.lock(digest)) { events(.waiting(what: digest)) }
        defer { withExtendedLifetime(lock) {} }
        return try self.cache.removeDamaged(digest, from: self.address)
    }

    private func run(_ downloader: FileDownloader) async throws -> Report {
        try self.cache.prepare()
        let address = self.address.appending(PartManifest.fileName)
        let fallback = try self.cache.remembered(self.address)
        var asking = downloader
        // A host that can serve does not wait for a server that is down.
        if fallback != nil { asking.policy.attempts = 3 }
        let bytes: [UInt8]
        do {
            bytes = try await asking.fetchSmall(
                address,
                authorization: self.address.authorization,
                what: "the shard's manifest",
                most: PartManifest.mostBytes,
                explain: { _, _ in nil }
            )
        } catch let error as FetchError {
            guard let (digest, manifest) = fallback, error.code != .invalidArgument else { throw error }
            downloader.events(.warning("\(error); serving what it named before, which is complete in the cache"))
            return self.report(digest, manifest, received: 0)
        }
        let manifest = try PartManifest(parsing: bytes, from: address)
        let digest = try RunningChecksum.sha256(bytes)
        let received = try await self.fetch(digest, manifest, bytes: bytes, downloader)
        try self.cache.remember(digest, at: self.address)
        return self.report(digest, manifest, received: received)
    }

    /// Fetches the files under the part's lock; the previous holder may already have fetched them.
    private func fetch(
        _ digest: String,
        _ manifest: PartManifest,
        bytes: [UInt8],
        _ downloader: FileDownloader
    ) async throws -> Int {
        if self.cache.isPresent(digest, manifest) { return 0 }
        let lock = try await FileLock.take(self.cache.lock(digest)) {
            downloader.events(.waiting(what: manifest.name))
        }
        defer { withExtendedLifetime(lock) {} }
        if self.cache.isPresent(digest, manifest) { return 0 }
        let folder = self.cache.incomplete(digest)
        try Files.createDirectories(folder)
        let missing = manifest.files.filter { Files.byteCount("\(folder)/\($0.name)") != $0.byteCount }
        let partial = missing.reduce(0) { $0 + min($1.byteCount, PartialFile.byteCount(of: "\(folder)/\($1.name)")) }
        try Files.checkSpace(missing.reduce(-partial) { $0 + $1.byteCount }, at: folder)
        let fetched = try await DownloadRun(
            downloader: downloader,
            label: "Fetching \(manifest.name)",
            jobs: self.client.jobs
        )
        .run(
            missing.map { file in
                DownloadRun.Item(
                    file: RemoteFile(
                        name: file.name,
                        address: self.address.appending(file.name),
                        authorization: self.address.authorization,
                        byteCount: file.byteCount,
                        checksum: .sha256(file.sha256.lowercased())
                    ),
                    target: "\(folder)/\(file.name)"
                )
            },
            present: manifest.byteCount - missing.reduce(0) { $0 + $1.byteCount }
        ) { item, progress in
            try await downloader.fetch(item.file, to: item.target, progress: progress)
        }
        try self.cache.commit(digest, manifest: bytes)
        return fetched.reduce(0) { $0 + $1.receivedBytes }
    }

    private func report(_ digest: String, _ manifest: PartManifest, received: Int) -> Report {
        Report(
            directory: self.cache.part(digest),
            name: manifest.name,
            byteCount: manifest.byteCount,
            receivedBytes: received
        )
    }
}
