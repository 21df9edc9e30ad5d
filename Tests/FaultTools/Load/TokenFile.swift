// SPDX-License-Identifier: Apache-2.0

internal import Foundation
internal import SwitchyardClient

/// The tokens of two callers.
struct TokenFile: Sendable {
    /// Who calls.
    enum Caller: String, CaseIterable, Sendable {
        case good
        case greedy
    }

    private let path: String

    /// Writes the file.
    ///
    /// - Parameter folder: Where it is written.
    /// - Throws: Errors of writing.
    init(in folder: String) throws {
        self.path = "\(folder)/tokens"
        let lines = Caller.allCases.map { "\($0.rawValue):\(Self.secret(of: $0))\n" }
        try lines.joined().write(toFile: self.path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: self.path)
    }

    /// The gateway's arguments.
    var arguments: [String] { ["--tokens", self.path] }

    /// How a caller calls.
    ///
    /// - Throws: `GatewayError` for a token that is none.
    func configuration(of caller: Caller) throws -> GatewayClientConfiguration {
        GatewayClientConfiguration(token: try BearerToken(Self.secret(of: caller)))
    }

    /// What a caller's calls carry in the metadata `authorization`.
    static func authorization(of caller: Caller) -> String { "Bearer \(Self.secret(of: caller))" }

    private static func secret(of caller: Caller) -> String {
        "\(caller.rawValue)-" + String(repeating: "0123456789abcdef", count: 2)
    }
}
