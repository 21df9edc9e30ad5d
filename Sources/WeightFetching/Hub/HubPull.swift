// SPDX-License-Identifier: Apache-2.0

/// Brings a model from the hub into the cache of the hub's own tools.
public struct HubPull: Sendable {
    /// What a pull brought.
    public struct Report: Sendable, Hashable {
        /// The commit that the revision means.
        public var commit: String
        /// The folder with the model's files.
        public var directory: String
        /// The files, by path.
        public var files: [FetchedFile]

        /// Bytes that came over the network.
        public var receivedBytes: Int { self.files.reduce(0) { $0 + $1.receivedBytes } }
    }

    private let model: HubModel
    private let selection: HubSelection
    private let environment: HubEnvironment
    private let client: WebClientConfiguration

    /// Prepares a pull.
    ///
    /// - Parameters:
    ///   - model: The model and its revision.
    ///   - selection: Which files to fetch.
    ///   - environment: The hub, the token and the cache.
    ///   - client: How to connect.
    public init(
        _ model: HubModel,
        selection: HubSelection,
        environment: HubEnvironment,
        client: WebClientConfiguration
    ) {
        self.model = model
        self.selection = selection
        self.environment = environment
        self.client = client
    }

    /// Fetches missing files, and continues what an earlier run began.
    ///
    /// The revision points to the commit only once all files are there and their checksums are right.
    ///
    /// - Parameter events: Receives events, from several tasks.
    /// - Returns: What was fetched.
    /// - Throws: ``FetchError``; `CancellationError`.
    public func run(events: @escaping @Sendable (FetchEvent) -> Void) async throws -> Report {
        try await WebClient.with(self.client) { client in
            try await self.run(FileDownloader(client: client, events: events))
        }
    }

    private func run(_ downloader: FileDownloader) async throws -> Report {
        let endpoint = self.environment.endpoint
        let address = self.model.listing(at: endpoint)
        let answer = try await downloader.fetchSmall(
            address,
            authorization: self.environment.authorization,
            what: "\(self.model.name) at \(self.model.revision)",
            most: HubListing.mostBytes,
            explain: { response, _ in self.explain(response) }
        )
        let listing = try HubListing(parsing: answer, from: address)
        let files = try self.selection.chosen(from: listing.files, of: self.model.name)
        let folder = HubFolder(self.model, cache: self.environment.cache)
        try folder.prepare()

        let missing = files.filter { !folder.hasBlob($0) }
        let partial = missing.reduce(0) { $0 + min($1.byteCount, PartialFile.byteCount(of: folder.blob($1))) }
        try Files.checkSpace(missing.reduce(-partial) { $0 + $1.byteCount }, at: self.environment.cache)
        // Files with the same bytes are one blob, and are fetched once.
        var targets: Set<String> = []
        let items = missing.filter { targets.insert(folder.blob($0)).inserted }
        let fetched = try await DownloadRun(
            downloader: downloader,
            label: "Fetching \(self.model.name)",
            jobs: self.client.jobs
        )
        .run(
            items.map {
                DownloadRun.Item(file: self.remote($0, commit: listing.commit), target: folder.blob($0))
            },
            present: files.filter { folder.hasBlob($0) }.reduce(0) { $0 + $1.byteCount }
        ) { item, progress in
            try await Self.fetch(item, folder: folder, downloader, progress: progress)
        }
        for file in files { try folder.link(file, commit: listing.commit) }
        try folder.point(to: listing.commit)
        let took = Dictionary(fetched.map { ($0.name, $0) }) { first, _ in first }
        return Report(
            commit: listing.commit,
            directory: folder.snapshot(listing.commit),
            files: files.map {
                took[$0.path]
                    ?? FetchedFile(name: $0.path, byteCount: $0.byteCount, receivedBytes: 0, origin: .present)
            }
        )
    }

    /// Fetches one file under its lock; the previous holder may already have fetched it.
    private static func fetch(
        _ item: DownloadRun.Item,
        folder: HubFolder,
        _ downloader: FileDownloader,
        progress: @Sendable (Int) -> Void
    ) async throws -> FetchedFile {
        let file = HubListing.File(
            path: item.file.name,
            byteCount: item.file.byteCount,
            checksum: item.file.checksum
        )
        let lock = try await FileLock.take(folder.lock(file)) { downloader.events(.waiting(what: file.path)) }
        defer { withExtendedLifetime(lock) {} }
        guard !folder.hasBlob(file) else {
            progress(file.byteCount)
            return FetchedFile(name: file.path, byteCount: file.byteCount, receivedBytes: 0, origin: .present)
        }
        return try await downloader.fetch(item.file, to: item.target, progress: progress)
    }

    private func remote(_ file: HubListing.File, commit: String) -> RemoteFile {
        RemoteFile(
            name: file.path,
            address: self.model.file(file.path, commit: commit, at: self.environment.endpoint),
            authorization: self.environment.authorization,
            byteCount: file.byteCount,
            checksum: file.checksum
        )
    }

    /// What the hub's refusals mean.
    ///
    /// https://huggingface.co/docs/huggingface_hub/package_reference/utilities#http-errors
    private func explain(_ response: FileTransfer.Response) -> FetchError? {
        let name = self.model.name
        let endpoint = self.environment.endpoint
        let hasToken = self.environment.authorization != nil
        switch (response.status, response.headers["x-error-code"]) {
        case (_, "RevisionNotFound"):
            return FetchError(
                .notFound,
                "\(name) has no revision \"\(self.model.revision)\" on \(endpoint); see its branches and tags on "
                    + "\(self.model.page(at: endpoint))"
            )
        case (_, "GatedRepo"), (403, _):
            return FetchError(
                .denied,
                "\(name) may not be fetched from \(endpoint) with \(hasToken ? "this token" : "no token"): accept its terms "
                    + "on \(self.model.page(at: endpoint)), and set HF_TOKEN to a token of that account that may read it"
            )
        case (401, _):
            return FetchError(
                .denied,
                hasToken
                    ? "\(endpoint) does not know the token; make another one in the hub's settings and set HF_TOKEN to it"
                    : "\(endpoint) does not show \(name) without a token: it is private or does not exist. Check "
                        + "the name, and set HF_TOKEN for a private model"
            )
        case (404, _):
            return FetchError(
                .notFound,
                "\(endpoint) has no model \(name) at the revision \(self.model.revision)"
                    + "\(hasToken ? " that this token may see" : ""); check both, such as "
                    + "google/switch-base-8 at main"
            )
        default:
            return nil
        }
    }
}
