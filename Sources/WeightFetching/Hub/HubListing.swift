// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import SwitchyardTypes

/// What the hub says about a model's files at a revision.
package struct HubListing: Sendable, Hashable {
    /// A file of a model.
    package struct File: Sendable, Hashable {
        /// Its path in the model.
        package var path: String
        /// Its size in bytes.
        package var byteCount: Int
        /// Its checksum, whose digits are the name of the file in the cache.
        package var checksum: Checksum
    }

    static let mostBytes = 16 << 20
    private static let mostFiles = 100_000

    /// The commit that the revision means.
    package var commit: String
    /// The files that can be fetched.
    package var files: [File]

    private struct Answer: Decodable {
        var sha: String
        var siblings: [Sibling]
    }

    private struct Sibling: Decodable {
        var rfilename: String
        var size: Int?
        var blobId: String?
        var lfs: LargeFile?
    }

    private struct LargeFile: Decodable {
        var sha256: String?
        var oid: String?
        var size: Int?
    }

    /// Reads the answer to `GET /api/models/NAME/revision/REVISION?blobs=true`.
    ///
    /// - Parameters:
    ///   - bytes: The answer.
    ///   - address: Where it came from.
    /// - Throws: ``FetchError`` for an invalid answer, or one that names a file outside the model.
    package init(parsing bytes: [UInt8], from address: RemoteAddress) throws(FetchError) {
        func failure(_ complaint: String) -> FetchError {
            FetchError(
                .badAnswer,
                "\(address): the list of files \(complaint); check that this is a hub's address (--endpoint, HF_ENDPOINT)"
            )
        }
        let answer: Answer
        do {
            answer = try AnswerJSON.decode(Answer.self, from: bytes)
        } catch {
            throw failure("is none: it has \(error.message)")
        }
        guard answer.siblings.count <= Self.mostFiles else {
            throw failure("has \(answer.siblings.count) entries; the limit is \(Self.mostFiles)")
        }
        guard case .gitBlob(let commit)? = Checksum(hexadecimal: answer.sha) else {
            throw failure("names the commit \"\(answer.sha.prefix(80))\", which is not 40 hexadecimal digits")
        }
        self.commit = commit
        self.files = []
        for sibling in answer.siblings {
            guard RemoteFile.isSafe(sibling.rfilename) else {
                throw failure("names \"\(sibling.rfilename.prefix(200))\", which is not a path inside a model")
            }
            let digits = sibling.lfs.map { $0.sha256 ?? $0.oid ?? "" } ?? sibling.blobId ?? ""
            guard let size = sibling.lfs?.size ?? sibling.size, size >= 0, let checksum = Checksum(hexadecimal: digits)
            else {
                throw failure("gives no size or no checksum for \(sibling.rfilename)")
            }
            guard size <= StatedSizes.most else {
                throw failure("gives \(sibling.rfilename) \(size) bytes; the limit is \(StatedSizes.most)")
            }
            self.files.append(File(path: sibling.rfilename, byteCount: size, checksum: checksum))
        }
        guard StatedSizes.total(self.files.map(\.byteCount)) != nil else {
            throw failure("gives all files together more than \(StatedSizes.most) bytes, the limit of a model")
        }
    }
}
