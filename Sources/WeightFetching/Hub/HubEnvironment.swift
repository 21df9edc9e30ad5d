// SPDX-License-Identifier: Apache-2.0

internal import Foundation

/// The hub's settings from the environment, in the variables of the hub's own tools.
///
/// https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
public struct HubEnvironment: Sendable {
    /// The hub, or a mirror of it.
    public var endpoint: RemoteAddress
    /// The token; nil for none.
    public var token: String?
    /// The folder with all models.
    public var cache: String

    private static let longestToken = 4096

    /// Reads the environment.
    ///
    /// The endpoint is `HF_ENDPOINT`. The token is `HF_TOKEN`, `HUGGING_FACE_HUB_TOKEN` or the content of the file
    /// `HF_TOKEN_PATH`, by default `token` in the hub's home. The cache is `HF_HUB_CACHE`, `HUGGINGFACE_HUB_CACHE` or
    /// `hub` in that home, which is `HF_HOME`, or `huggingface` in `XDG_CACHE_HOME`, or in `.cache` of `HOME`.
    ///
    /// - Parameters:
    ///   - environment: The process's environment.
    ///   - endpoint: The hub to use instead of the environment's.
    /// - Throws: ``FetchError`` for an endpoint or a token that cannot be used, and where no variable leads to a cache.
    public init(_ environment: [String: String], endpoint: String? = nil) throws(FetchError) {
        func value(_ key: String) -> String? {
            environment[key].flatMap { $0.isEmpty ? nil : $0 }
        }
        func path(_ text: String) -> String {
            text.hasPrefix("~/") ? (environment["HOME"] ?? "~") + text.dropFirst() : text
        }
        self.endpoint = try RemoteAddress(parsing: endpoint ?? value("HF_ENDPOINT") ?? "https://huggingface.co")
        let home =
            value("HF_HOME") ?? value("XDG_CACHE_HOME").map { "\($0)/huggingface" }
            ?? value("HOME").map { "\($0)/.cache/huggingface" }
        guard
            let cache = value("HF_HUB_CACHE") ?? value("HUGGINGFACE_HUB_CACHE") ?? home.map({ "\($0)/hub" })
        else {
            throw FetchError(.invalidArgument, "there is no HOME to keep models in; set HF_HUB_CACHE to a folder")
        }
        self.cache = path(cache)
        if let text = value("HF_TOKEN") ?? value("HUGGING_FACE_HUB_TOKEN") {
            self.token = try Self.token(text, from: "HF_TOKEN")
        } else if !["1", "ON", "YES", "TRUE"].contains(value("HF_HUB_DISABLE_IMPLICIT_TOKEN")?.uppercased() ?? ""),
            let file = (value("HF_TOKEN_PATH") ?? home.map { "\($0)/token" }).map({ path($0) }),
            let bytes = Files.read(file, most: Self.longestToken)
        {
            self.token = try Self.token(String(decoding: bytes, as: UTF8.self), from: file)
        } else {
            self.token = nil
        }
    }

    private static func token(_ text: String, from source: String) throws(FetchError) -> String? {
        let token = text.trimmingCharacters(in: .whitespacesAndNewlines)
        guard !token.isEmpty else { return nil }
        guard token.utf8.count <= self.longestToken, token.utf8.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else {
            throw FetchError(
                .invalidArgument,
                "\(source) holds no token: it must be up to \(self.longestToken) visible ASCII characters; make one in the "
                    + "hub's settings"
            )
        }
        return token
    }

    /// The value of the `authorization` header for the endpoint.
    var authorization: String? { self.token.map { "Bearer \($0)" } ?? self.endpoint.authorization }
}
