// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// A model in the hub's cache: `models--ORG--NAME` with `blobs`, `snapshots` and `refs`.
///
/// The layout is that of the hub's own tools, which find what is put here, and continue each other's downloads:
/// https://huggingface.co/docs/huggingface_hub/guides/manage-cache
struct HubFolder: Sendable {
    private let root: String
    private let locks: String
    private let model: HubModel

    init(_ model: HubModel, cache: String) {
        let name = "models--" + model.name.split(separator: "/").joined(separator: "--")
        self.root = "\(cache)/\(name)"
        self.locks = "\(cache)/.locks/\(name)"
        self.model = model
    }

    /// Where a file's bytes go; files with the same bytes are stored once.
    func blob(_ file: HubListing.File) -> String { "\(self.root)/blobs/\(file.checksum.digits)" }

    /// The lock of a file's bytes, which the hub's own tools take as well.
    func lock(_ file: HubListing.File) -> String { "\(self.locks)/\(file.checksum.digits).lock" }

    /// The folder with the files of a commit under their names.
    func snapshot(_ commit: String) -> String { "\(self.root)/snapshots/\(commit)" }

    /// Whether a file's bytes are there.
    ///
    /// They are named by their checksums, which were verified first.
    func hasBlob(_ file: HubListing.File) -> Bool { Files.byteCount(self.blob(file)) == file.byteCount }

    /// Makes the folders.
    func prepare() throws(FetchError) {
        for path in ["\(self.root)/blobs", "\(self.root)/refs", "\(self.root)/snapshots", self.locks] {
            try Files.createDirectories(path)
        }
    }

    /// Links a file's bytes under their name in a commit, relative to the snapshot, so that the cache can be moved.
    func link(_ file: HubListing.File, commit: String) throws(FetchError) {
        let path = "\(self.snapshot(commit))/\(file.path)"
        let depth = file.path.split(separator: "/").count + 1
        let target = String(repeating: "../", count: depth) + "blobs/\(file.checksum.digits)"
        if (try? FileManager.default.destinationOfSymbolicLink(atPath: path)) == target { return }
        try Files.createDirectories((path as NSString).deletingLastPathComponent)
        let temporary = "\(path).\(UInt32.random(in: 0...UInt32.max)).link"
        guard symlink(target, temporary) == 0 else { throw Files.failure("cannot be linked", temporary) }
        guard rename(temporary, path) == 0 else {
            let failure = Files.failure("cannot be linked", path)
            unlink(temporary)
            throw failure
        }
    }

    /// Records which commit the revision means, once all of its files are there.
    func point(to commit: String) throws(FetchError) {
        guard self.model.revision != commit else { return }
        let path = "\(self.root)/refs/\(self.model.revision)"
        try Files.createDirectories((path as NSString).deletingLastPathComponent)
        try Files.write(Array(commit.utf8), to: path)
    }
}
