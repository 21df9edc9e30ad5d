// SPDX-License-Identifier: Apache-2.0

internal import DoorPage
internal import RPCCore

/// What an address of the door does.
enum DoorAction: Sendable, Hashable {
    case completions, chatCompletions, embeddings, models, model
    case textGeneration, textGenerationStream, textGenerationRoot, info, health
    case generate, generateStream, score, encode, cluster, describe
    case document
    case page, pageStyle, pageScript

    /// Whether its requests wait for a place in the engine.
    var isQueued: Bool {
        switch self {
        case .completions, .embeddings, .textGeneration, .textGenerationStream, .textGenerationRoot, .generate,
            .generateStream, .score, .encode:
            true
        case .chatCompletions, .models, .model, .info, .health, .cluster, .describe, .document, .page, .pageStyle,
            .pageScript:
            false
        }
    }

    /// Whether it answers without a token, where others need one.
    func isOpen(coversHealth: Bool) -> Bool {
        switch self {
        case .document, .page, .pageStyle, .pageScript: true
        case .health: !coversHealth
        default: false
        }
    }

    /// Whether it is a file of the page, which no program asks for.
    var isPage: Bool { [.page, .pageStyle, .pageScript].contains(self) }

    /// Whether a request has a body.
    var hasBody: Bool { self.isQueued || self == .chatCompletions }
}

/// Where a request goes: an address and what follows from it.
struct DoorRoute: Sendable, Hashable {
    /// Whose way of answering it follows.
    var dialect: Dialect
    /// What it does.
    var action: DoorAction
    /// What is left of the address: the model's name at `/v1/models/NAME`.
    var rest = ""

    /// The address in the table, with `{model}` in place of a name.
    var template: String { Self.table.first { $0.action == self.action }?.path ?? "unknown" }

    /// All addresses: method, path, dialect and action, in the order of the OpenAPI document.
    static let table: [(method: String, path: String, dialect: Dialect, action: DoorAction)] = [
        ("POST", "/v1/completions", .openAI, .completions), ("POST", "/v1/embeddings", .openAI, .embeddings),
        ("GET", "/v1/models", .openAI, .models), ("GET", "/v1/models/{model}", .openAI, .model),
        ("POST", "/v1/chat/completions", .openAI, .chatCompletions),
        ("POST", "/generate", .textGeneration, .textGeneration),
        ("POST", "/generate_stream", .textGeneration, .textGenerationStream),
        ("POST", "/", .textGeneration, .textGenerationRoot), ("GET", "/info", .textGeneration, .info),
        ("GET", "/health", .textGeneration, .health), ("POST", "/v1/generate", .own, .generate),
        ("POST", "/v1/generate_stream", .own, .generateStream), ("POST", "/v1/score", .own, .score),
        ("POST", "/v1/encode", .own, .encode), ("GET", "/v1/cluster", .own, .cluster),
        ("GET", "/v1/model", .own, .describe), ("GET", "/openapi.json", .own, .document),
        ("GET", DoorPage.document.path, .own, .page), ("GET", DoorPage.style.path, .own, .pageStyle),
        ("GET", DoorPage.script.path, .own, .pageScript),
    ]

    /// Finds what answers a request.
    ///
    /// - Parameters:
    ///   - method: The method; HEAD asks for what GET would answer.
    ///   - target: The path, with a query that is ignored nowhere: no address has one.
    /// - Returns: The route.
    /// - Throws: ``Missing`` where nothing answers.
    static func find(_ method: String, _ target: String) throws(Missing) -> DoorRoute {
        let path = target.prefix { $0 != "?" && $0 != "#" }
        guard path.utf8.count == target.utf8.count else {
            let known = Self.table.first { Self.match($0.path, path) != nil }
            throw Missing(
                dialect: known?.dialect ?? .own,
                fault: DoorFault(
                    400,
                    .invalidArgument,
                    "\(path.prefix(200)) takes no query; leave out what follows the path"
                )
            )
        }
        var methods: [String] = []
        var dialect = Dialect.own
        for entry in Self.table {
            guard let rest = Self.match(entry.path, path) else { continue }
            if entry.method == method || entry.method == "GET" && method == "HEAD" {
                return DoorRoute(dialect: entry.dialect, action: entry.action, rest: rest)
            }
            methods.append(entry.method)
            dialect = entry.dialect
        }
        guard !methods.isEmpty else {
            let fault = DoorFault(404, .notFound, "there is nothing at this address; GET /openapi.json lists all")
            throw Missing(dialect: path.hasPrefix("/v1/") ? .openAI : .own, fault: fault)
        }
        if methods.contains("GET") { methods.append("HEAD") }
        let allowed = methods.joined(separator: ", ")
        throw Missing(
            dialect: dialect,
            fault: DoorFault(405, .unimplemented, "this address takes \(allowed); use that"),
            allowed: allowed
        )
    }

    /// Why nothing answers a request.
    struct Missing: Error, Hashable {
        var dialect: Dialect
        var fault: DoorFault
        /// Methods that the address takes, for the header `allow`.
        var allowed: String?

        static func == (one: Missing, other: Missing) -> Bool { one.fault == other.fault }
        func hash(into hasher: inout Hasher) { hasher.combine(self.fault.status) }
    }

    /// What a path has in place of a template's `{name}`; nil if the path is another.
    private static func match(_ template: String, _ path: Substring) -> String? {
        guard let brace = template.firstIndex(of: "{") else { return path == template ? "" : nil }
        let prefix = template[..<brace]
        guard path.hasPrefix(prefix), path.utf8.count > prefix.utf8.count else { return nil }
        // A model's name may hold slashes, as hub ids do.
        return PercentCoding.decoded(path.dropFirst(prefix.count))
    }
}

/// Percent-encoding in paths (RFC 3986, section 2.1).
enum PercentCoding {
    /// The text that a part of a path means; nil if it is malformed or no UTF-8.
    static func decoded(_ text: Substring) -> String? {
        var bytes: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap(Self.digit), let low = rest.popFirst().flatMap(Self.digit) else {
                return nil
            }
            bytes.append(high << 4 | low)
        }
        return String(validating: bytes, as: UTF8.self)
    }

    private static func digit(_ byte: UInt8) -> UInt8? {
        Character(UnicodeScalar(byte)).hexDigitValue.flatMap { UInt8(exactly: $0) }
    }
}
