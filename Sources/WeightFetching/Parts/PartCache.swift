// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// Parts of models that were fetched, on the disk: each under the checksum of its manifest, which holds the checksums
/// of its files.
///
/// A folder under `parts` is complete and verified; parts being fetched are under `incomplete`. `sources` remembers the
/// last part of each address, for starts when its server does not answer.
struct PartCache: Sendable {
    private let root: String

    init(_ root: String) {
        self.root = root
    }

    /// The folder of a part, whole.
    func part(_ digest: String) -> String { "\(self.root)/parts/\(digest)" }

    /// The folder of a part that is being fetched.
    func incomplete(_ digest: String) -> String { "\(self.root)/incomplete/\(digest)" }

    /// The lock of a part.
    func lock(_ digest: String) -> String { "\(self.root)/locks/\(digest).lock" }

    private func source(_ address: RemoteAddress) throws(FetchError) -> String {
        // A signature changes while the folder stays the same, so the query does not count.
        "\(self.root)/sources/" + (try RunningChecksum.sha256(Array("\(address)".utf8)))
    }

    /// Makes the folders.
    func prepare() throws(FetchError) {
        for name in ["parts", "incomplete", "locks", "sources"] { try Files.createDirectories("\(self.root)/\(name)") }
    }

    /// The cheap check at a start: whether a part is there, with files of the right sizes.
    func isPresent(_ digest: String, _ manifest: PartManifest) -> Bool {
        let folder = self.part(digest)
        return Files.byteCount("\(folder)/\(PartManifest.fileName)") != nil
            && manifest.files.allSatisfy { Files.byteCount("\(folder)/\($0.name)") == $0.byteCount }
    }

    /// The part that an address last named, if it is still there.
    func remembered(_ address: RemoteAddress) throws(FetchError) -> (digest: String, manifest: PartManifest)? {
        guard let text = Files.read(try self.source(address), most: 64),
            case .sha256(let digest)? = Checksum(hexadecimal: String(decoding: text, as: UTF8.self)),
            let bytes = Files.read("\(self.part(digest))/\(PartManifest.fileName)", most: PartManifest.mostBytes),
            try RunningChecksum.sha256(bytes) == digest,
            let manifest = try? PartManifest(parsing: bytes, from: address), self.isPresent(digest, manifest)
        else { return nil }
        return (digest, manifest)
    }

    /// Remembers what an address names.
    func remember(_ digest: String, at address: RemoteAddress) throws(FetchError) {
        try Files.write(Array(digest.utf8), to: try self.source(address))
    }

    /// Moves a complete part into place.
    func commit(_ digest: String, manifest: [UInt8]) throws(FetchError) {
        let folder = self.incomplete(digest)
        try Files.write(manifest, to: "\(folder)/\(PartManifest.fileName)")
        try Files.synchronize("\(folder)/\(PartManifest.fileName)")
        try Files.synchronize(folder)
        let place = self.part(digest)
        if Files.isDirectory(place) {
            // Files have been removed since, so it cannot be served.
            let old = "\(folder).damaged-\(UInt32.random(in: 0...UInt32.max))"
            guard rename(place, old) == 0 else { throw Files.failure("cannot be replaced", place) }
            try? FileManager.default.removeItem(atPath: old)
        }
        guard rename(folder, place) == 0 else { throw Files.failure("cannot be renamed from \(folder)", place) }
    }

    /// Reads a part from its first byte to its last, and removes the files that differ from its manifest.
    ///
    /// What is whole goes back to `incomplete`, so that the next fetch brings the rest alone. A process that still maps a
    /// removed file keeps it.
    ///
    /// - Parameters:
    ///   - digest: The checksum of the part's manifest.
    ///   - address: Where the part came from, for messages.
    /// - Returns: The names of the removed files; empty where the part is whole.
    /// - Throws: ``FetchError`` where a file cannot be read or moved.
    func removeDamaged(_ digest: String, from address: RemoteAddress) throws(FetchError) -> [String] {
        let folder = self.part(digest)
        guard Files.isDirectory(folder) else { return [] }
        var damaged: [String] = []
        let path = "\(folder)/\(PartManifest.fileName)"
        if let bytes = Files.read(path, most: PartManifest.mostBytes), try RunningChecksum.sha256(bytes) == digest {
            for file in try PartManifest(parsing: bytes, from: address).files {
                guard try RunningChecksum.sha256(contentsOf: "\(folder)/\(file.name)") != file.sha256.lowercased()
                else {
                    continue
                }
                damaged.append(file.name)
            }
        } else {
            damaged.append(PartManifest.fileName)
        }
        guard !damaged.isEmpty else { return [] }
        for name in damaged { unlink("\(folder)/\(name)") }
        let incomplete = self.incomplete(digest)
        try? FileManager.default.removeItem(atPath: incomplete)
        guard rename(folder, incomplete) == 0 else {
            throw Files.failure("cannot be renamed from \(folder)", incomplete)
        }
        return damaged
    }
}
