// SPDX-License-Identifier: Apache-2.0

internal import DoorPage
internal import RPCCore

/// What an address of the door does.
enum DoorAction: Sendable, Hashable {
    case completions, chatCompletions, embeddings, models, model
    case textGeneration, textGenerationStream, textGenerationRoot, info, health
    case generate, generateStream, score, encode, cluster, describe
    case tokenize, detokenize, tokenizerInfo
    case inferenceServer, inferenceLive, inferenceReady, inferenceModel, inferenceModelReady, infer
    case document
    case page, pageStyle, pageScript

    /// Whether its requests wait for a place in the engine.
    var isQueued: Bool {
        switch self {
        case .completions, .embeddings, .textGeneration, .textGenerationStream, .textGenerationRoot, .generate,
            .generateStream, .score, .encode, .infer:
            true
        case .chatCompletions, .models, .model, .info, .health, .cluster, .describe, .document, .page, .pageStyle,
            .pageScript, .tokenize, .detokenize, .tokenizerInfo, .inferenceServer, .inferenceLive, .inferenceReady,
            .inferenceModel, .inferenceModelReady:
            false
        }
    }

    /// Whether it answers without a token, where others need one.
    func isOpen(coversHealth: Bool) -> Bool {
        switch self {
        case .document, .page, .pageStyle, .pageScript: true
        case .health, .inferenceLive, .inferenceReady: !coversHealth
        default: false
        }
    }

    /// Whether a request has a body.
    var hasBody: Bool { self.isQueued || [.chatCompletions, .tokenize, .detokenize].contains(self) }
}

/// Where a request goes: an address and what follows from it.
struct DoorRoute: Sendable, Hashable {
    /// Whose way of answering it follows.
    var dialect: Dialect
    /// What it does.
    var action: DoorAction
    /// The address in the table, with `{model}` in place of a name.
    var template: String
    /// The model's name in the address; empty where it has none.
    var model = ""
    /// The model's version in the address; empty where it has none.
    var version = ""

    /// An address of the table.
    struct Entry: Sendable {
        var method: String
        var path: String
        var dialect: Dialect
        var action: DoorAction

        init(_ method: String, _ path: String, _ dialect: Dialect, _ action: DoorAction) {
            self.method = method
            self.path = path
            self.dialect = dialect
            self.action = action
        }

        /// Whether it answers a method: HEAD asks for what GET would answer.
        func answers(_ method: String) -> Bool { self.method == method || self.method == "GET" && method == "HEAD" }
    }

    /// All addresses, in the order of the OpenAPI document.
    static let table: [Entry] = [
        Entry("POST", "/v1/completions", .openAI, .completions),
        Entry("POST", "/v1/embeddings", .openAI, .embeddings),
        Entry("GET", "/v1/models", .openAI, .models),
        Entry("GET", "/v1/models/{model}", .openAI, .model),
        Entry("POST", "/v1/chat/completions", .openAI, .chatCompletions),
        Entry("POST", "/generate", .textGeneration, .textGeneration),
        Entry("POST", "/generate_stream", .textGeneration, .textGenerationStream),
        Entry("POST", "/", .textGeneration, .textGenerationRoot),
        Entry("GET", "/info", .textGeneration, .info),
        Entry("GET", "/health", .textGeneration, .health),
        Entry("POST", "/v1/generate", .own, .generate),
        Entry("POST", "/v1/generate_stream", .own, .generateStream),
        Entry("POST", "/v1/score", .own, .score),
        Entry("POST", "/v1/encode", .own, .encode),
        Entry("GET", "/v1/cluster", .own, .cluster),
        Entry("GET", "/v1/model", .own, .describe),
        Entry("POST", "/tokenize", .openAI, .tokenize),
        Entry("POST", "/detokenize", .openAI, .detokenize),
        Entry("GET", "/tokenizer_info", .openAI, .tokenizerInfo),
        Entry("GET", "/v2", .openInference, .inferenceServer),
        Entry("GET", "/v2/health/live", .openInference, .inferenceLive),
        Entry("GET", "/v2/health/ready", .openInference, .inferenceReady),
        // A name may hold slashes, so addresses with more after it come first.
        Entry("POST", "/v2/models/{model}/versions/{version}/infer", .openInference, .infer),
        Entry("POST", "/v2/models/{model}/infer", .openInference, .infer),
        Entry("GET", "/v2/models/{model}/versions/{version}/ready", .openInference, .inferenceModelReady),
        Entry("GET", "/v2/models/{model}/ready", .openInference, .inferenceModelReady),
        Entry("GET", "/v2/models/{model}/versions/{version}", .openInference, .inferenceModel),
        Entry("GET", "/v2/models/{model}", .openInference, .inferenceModel),
        Entry("GET", "/openapi.json", .own, .document),
        Entry("GET", DoorPage.document.path, .own, .page),
        Entry("GET", DoorPage.style.path, .own, .pageStyle),
        Entry("GET", DoorPage.script.path, .own, .pageScript),
    ]

    /// The addresses without names, by path.
    private static let plain = Dictionary(grouping: Self.table.filter { !$0.path.contains("{") }, by: \.path)

    /// Finds what answers a request.
    ///
    /// - Parameters:
    ///   - method: The method; HEAD asks for what GET would answer.
    ///   - target: The path, with a query that is ignored nowhere: no address has one.
    /// - Returns: The route.
    /// - Throws: ``Missing`` where nothing answers.
    static func find(_ method: String, _ target: String) throws(Missing) -> DoorRoute {
        // No address with a name in it means one of these too.
        for entry in Self.plain[target] ?? [] where entry.answers(method) {
            return DoorRoute(dialect: entry.dialect, action: entry.action, template: entry.path)
        }
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
        var found: (path: String, dialect: Dialect)?
        for entry in Self.table where found == nil || found?.path == entry.path {
            guard let names = Self.match(entry.path, path) else { continue }
            if entry.answers(method) {
                return DoorRoute(
                    dialect: entry.dialect,
                    action: entry.action,
                    template: entry.path,
                    model: names["model"] ?? "",
                    version: names["version"] ?? ""
                )
            }
            methods.append(entry.method)
            found = (entry.path, entry.dialect)
        }
        guard let dialect = found?.dialect else {
            let fault = DoorFault(404, .notFound, "there is nothing at this address; GET /openapi.json lists all")
            let dialect: Dialect =
                path.hasPrefix("/v1/") ? .openAI : path.hasPrefix("/v2/") ? .openInference : .own
            throw Missing(dialect: dialect, fault: fault)
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

    /// What a path has in place of a template's `{names}`; nil if the path is another.
    private static func match(_ template: String, _ path: Substring) -> [String: String]? {
        var names: [String: String] = [:]
        var template = template[...]
        var path = path
        while let open = template.firstIndex(of: "{"), let close = template[open...].firstIndex(of: "}") {
            let before = template[..<open]
            guard path.hasPrefix(before) else { return nil }
            path = path.dropFirst(before.count)
            let name = String(template[template.index(after: open)..<close])
            template = template[template.index(after: close)...]
            // What follows the name, up to the next one; the last of such places counts, since names may hold slashes.
            let after = template.prefix { $0 != "{" }
            let end: Substring.Index?
            if after.isEmpty {
                end = path.endIndex
            } else if after.count == template.count {
                end = path.hasSuffix(after) ? path.index(path.endIndex, offsetBy: -after.count) : nil
            } else {
                end = path.ranges(of: after).last?.lowerBound
            }
            guard let end, end > path.startIndex, let value = PercentCoding.decoded(path[..<end]) else { return nil }
            names[name] = value
            path = path[end...]
        }
        return path == template ? names : nil
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
