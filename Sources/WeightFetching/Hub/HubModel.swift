// SPDX-License-Identifier: Apache-2.0

/// A model on the hub, at a revision.
public struct HubModel: Sendable, Hashable {
    /// `org/name`, or only a name.
    public let name: String
    /// A branch, a tag or a commit.
    public let revision: String

    /// Reads a model's name.
    ///
    /// - Parameters:
    ///   - text: `org/name`, optionally with `@revision`.
    ///   - revision: The revision, where the text has none; `main` by default.
    /// - Throws: ``FetchError`` for what cannot be a name or a revision, and for two revisions.
    public init(parsing text: String, revision: String? = nil) throws(FetchError) {
        let sides = text.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)
        let name = String(sides[0])
        let pieces = name.split(separator: "/", omittingEmptySubsequences: false)
        guard (1...2).contains(pieces.count), pieces.allSatisfy({ Self.isPlain($0) }), name.utf8.count <= 200 else {
            throw FetchError(
                .invalidArgument,
                "\"\(name.prefix(200))\" is not a model's name; give ORG/NAME, such as google/switch-base-8"
            )
        }
        if sides.count == 2, let revision, revision != sides[1] {
            throw FetchError(
                .invalidArgument,
                "the revision is \(sides[1]) in the model's name and \(revision) in --revision; give one of them"
            )
        }
        let chosen = sides.count == 2 ? String(sides[1]) : revision ?? "main"
        guard chosen.split(separator: "/", omittingEmptySubsequences: false).allSatisfy({ Self.isPlain($0) }),
            chosen.utf8.count <= 200
        else {
            throw FetchError(
                .invalidArgument,
                "\"\(chosen.prefix(200))\" is not a revision; give a branch, a tag or a commit, such as main"
            )
        }
        self.name = name
        self.revision = chosen
    }

    private static func isPlain(_ piece: Substring) -> Bool {
        !piece.isEmpty && !piece.hasPrefix(".")
            && piece.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
    }

    /// The address of the hub's description of the model and its files.
    func listing(at endpoint: RemoteAddress) -> RemoteAddress {
        let revision = RemoteAddress.escaped(self.revision)
        return endpoint.appending("api/models/\(self.name)/revision").appendingEscaped(revision)
            .with(query: "blobs=true")
    }

    /// A file of a commit.
    func file(_ path: String, commit: String, at endpoint: RemoteAddress) -> RemoteAddress {
        endpoint.appending("\(self.name)/resolve/\(commit)/\(path)")
    }

    /// The model's page for people.
    func page(at endpoint: RemoteAddress) -> String { "\(endpoint.appending(self.name))" }
}
