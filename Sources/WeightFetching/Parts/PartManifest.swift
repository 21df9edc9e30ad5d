// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardTypes

/// What fetching needs from a part's `manifest.json`: the files, with their sizes and checksums.
///
/// The part's reader checks everything else once the files are here.
package struct PartManifest: Sendable, Hashable {
    static let fileName = "manifest.json"
    static let mostBytes = 64 << 20
    private static let mostFiles = 10_000

    /// A file of the part.
    package struct File: Sendable, Hashable, Decodable {
        package var name: String
        package var byteCount: Int
        package var sha256: String
    }

    private struct Document: Decodable {
        var formatVersion: Int
        var name: String
        var files: [File]?
    }

    /// The part's name, for people.
    var name: String
    /// All files but the manifest.
    package let files: [File]
    /// The bytes of all files, at most `StatedSizes.most`.
    package let byteCount: Int

    /// Reads a manifest.
    ///
    /// - Parameters:
    ///   - bytes: The file.
    ///   - address: Where it came from.
    /// - Throws: ``FetchError`` for what is not a manifest, for one without files, and for invalid names.
    package init(parsing bytes: [UInt8], from address: RemoteAddress) throws(FetchError) {
        func failure(_ complaint: String) -> FetchError {
            FetchError(.badAnswer, "\(address): \(complaint)")
        }
        let document: Document
        do {
            document = try AnswerJSON.decode(Document.self, from: bytes)
        } catch {
            throw failure(
                "is not a shard's manifest (\(error.message)); give the address of a folder that `switchyard shard` wrote, such as "
                    + "https://HOST/shards/pool-0"
            )
        }
        guard let files = document.files, !files.isEmpty else {
            throw failure(
                "lists no files, as `switchyard shard` of earlier versions wrote it; cut the checkpoint again, or copy the "
                    + "shard to this machine"
            )
        }
        guard files.count <= Self.mostFiles else {
            throw failure("lists \(files.count) files; the limit is \(Self.mostFiles), so cut the checkpoint again")
        }
        var names: Set<String> = [Self.fileName]
        for file in files {
            guard RemoteFile.isSafe(file.name), !file.name.contains("/"), !file.name.hasPrefix("."),
                names.insert(file.name).inserted
            else {
                throw failure(
                    "lists \"\(file.name.prefix(200))\", which is not a file name, or is listed twice; cut the checkpoint again"
                )
            }
            guard (0...StatedSizes.most).contains(file.byteCount) else {
                throw failure(
                    "gives \(file.name) \(file.byteCount) bytes; 0 through \(StatedSizes.most) are allowed, so cut the checkpoint "
                        + "again"
                )
            }
            guard case .sha256? = Checksum(hexadecimal: file.sha256) else {
                throw failure("has no SHA-256 for \(file.name); cut the checkpoint again")
            }
        }
        guard let byteCount = StatedSizes.total(files.map(\.byteCount)) else {
            throw failure(
                "lists files of more than \(StatedSizes.most) bytes in all, the limit of a shard; cut the checkpoint into more"
            )
        }
        self.byteCount = byteCount
        self.name = String(document.name.prefix(80))
        self.files = files
    }
}
