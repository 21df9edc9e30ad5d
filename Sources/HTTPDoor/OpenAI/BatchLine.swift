// SPDX-License-Identifier: Apache-2.0

internal import JSONValues
internal import MessageJSON
package import RPCCore
package import SwitchyardProtos
internal import SwitchyardTypes

/// Reads lines of OpenAI's batch format: what would be sent to an address of the API, and a name for the answer.
///
/// Source: `BatchRequestInput` and `BatchRequestOutput` in https://github.com/openai/openai-openapi/blob/2.3.0/openapi.yaml.
/// Deviations: lines of one file may go to both addresses; and nothing is checked before the batch begins but that names differ,
/// so a wrong line is a line with an error.
package struct OpenAIBatchReader: Sendable {
    /// The served model.
    package let model: ModelDescription
    /// The texts of tokens, which log-probabilities name; nil where there is no tokenizer at hand.
    package let texts: (any TokenTexts)?
    /// The seed of the first line; each has its index added.
    package let seed: UInt64
    /// When the batch began, in seconds since 1970.
    package let created: Int
    /// Lines whose name an earlier line has, and the first line with it; both from 0.
    package let repeated: [Int: Int]
    /// What holds for lines that do not say otherwise.
    package let dropPolicy: DropPolicy
    /// The priority of lines that name none.
    package let priority: Priority
    /// The longest wait for batch slots of lines that name none, in milliseconds; 0 is unlimited.
    package let queueTimeoutMilliseconds: UInt32

    /// Describes how to read.
    ///
    /// - Parameters:
    ///   - model: The served model.
    ///   - texts: The texts of tokens; nil where there is no tokenizer at hand.
    ///   - seed: The seed of the first line.
    ///   - created: When the batch began, in seconds since 1970.
    ///   - repeated: Lines whose name an earlier line has, and the first line with it.
    ///   - dropPolicy: The drop policy of lines that name none.
    ///   - priority: The priority of lines that name none.
    ///   - queueTimeoutMilliseconds: The longest wait for batch slots of lines that name none.
    package init(
        model: ModelDescription,
        texts: (any TokenTexts)?,
        seed: UInt64,
        created: Int,
        repeated: [Int: Int],
        dropPolicy: DropPolicy,
        priority: Priority,
        queueTimeoutMilliseconds: UInt32
    ) {
        self.model = model
        self.texts = texts
        self.seed = seed
        self.created = created
        self.repeated = repeated
        self.dropPolicy = dropPolicy
        self.priority = priority
        self.queueTimeoutMilliseconds = queueTimeoutMilliseconds
    }

    private static let addresses = ["/v1/completions", "/v1/embeddings"]

    /// The name of a line; nil for a line without one.
    ///
    /// - Parameter bytes: The line without its end.
    /// - Returns: The name.
    package static func name(in bytes: [UInt8]) -> String? {
        guard case .object(let members)? = try? DoorResponder.parse(bytes) else { return nil }
        guard case .string(let name)? = members["custom_id"] else { return nil }
        return name
    }

    /// Reads a line.
    ///
    /// - Parameters:
    ///   - bytes: The line without its end.
    ///   - index: Its index, from 0.
    /// - Returns: The line, with what is to be asked or the answer that is known already.
    package func line(_ bytes: [UInt8], index: Int) -> OpenAIBatchLine {
        var line = OpenAIBatchLine(id: self.number(index), created: self.created, model: self.model)
        do throws(BatchLineFault) {
            let body = try self.body(of: bytes, index: index, &line)
            do throws(DoorFault) {
                try self.read(body, index: index, &line)
            } catch {
                line.work = .refused(error)
            }
        } catch {
            line.work = .malformed(error)
        }
        return line
    }

    /// A line that is longer than lines may be.
    ///
    /// - Parameters:
    ///   - limit: The longest line, in bytes.
    ///   - index: The line's index, from 0.
    /// - Returns: The line, which asks for nothing.
    package func tooLong(_ limit: Int, index: Int) -> OpenAIBatchLine {
        var line = OpenAIBatchLine(id: self.number(index), created: self.created, model: self.model)
        line.work = .malformed(BatchLineFault("invalid_request", "the line has more than \(limit) bytes"))
        return line
    }

    /// A line's own number, the same in each run of the batch.
    private func number(_ index: Int) -> String {
        // The finalizer of https://prng.di.unimi.it/splitmix64.c: different for each index.
        var mixed = self.seed &+ UInt64(index) &* 0x9E37_79B9_7F4A_7C15
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return OwnForm.hexadecimal(mixed ^ (mixed >> 31))
    }

    private func body(
        of bytes: [UInt8],
        index: Int,
        _ line: inout OpenAIBatchLine
    ) throws(BatchLineFault) -> JSONValue {
        let value: JSONValue
        do throws(DoorFault) {
            value = try DoorResponder.parse(bytes)
        } catch {
            let words = error.message.replacing("the body is", with: "the line is", maxReplacements: 1)
            throw BatchLineFault("invalid_json_line", words)
        }
        guard case .object(var members) = value else {
            throw BatchLineFault("invalid_json_line", "the line is \(value.kind); it must be an object")
        }
        guard case .string(let name)? = members.removeValue(forKey: "custom_id") else {
            throw BatchLineFault("missing_required_parameter", "custom_id is missing or no text; give each line one")
        }
        line.customID = name
        if let first = self.repeated[index] {
            throw BatchLineFault(
                "duplicate_custom_id",
                "custom_id is that of line \(first + 1) too; give each line one of its own"
            )
        }
        guard case .string(let method)? = members.removeValue(forKey: "method") else {
            throw BatchLineFault("missing_required_parameter", "method is missing or no text; it must be POST")
        }
        guard method == "POST" else {
            throw BatchLineFault("invalid_method", "method is \"\(Self.shown(method))\"; it must be POST")
        }
        let known = Self.addresses.joined(separator: " or ")
        guard case .string(let url)? = members.removeValue(forKey: "url") else {
            throw BatchLineFault("missing_required_parameter", "url is missing or no text; it must be \(known)")
        }
        guard Self.addresses.contains(url) else {
            let why =
                url == "/v1/chat/completions"
                ? "\(self.model.name) is no chat model" : "this model answers at no such address"
            throw BatchLineFault("invalid_url", "url is \"\(Self.shown(url))\", but \(why); it must be \(known)")
        }
        line.isEmbedding = url == "/v1/embeddings"
        guard let body = members.removeValue(forKey: "body") else {
            throw BatchLineFault("missing_required_parameter", "body is missing; give what is sent to \(url)")
        }
        if let unknown = members.keys.min() {
            throw BatchLineFault(
                "invalid_request",
                "\(Self.shown(unknown)) is not a field of a line; leave it out (it may have custom_id, method, url, body)"
            )
        }
        return body
    }

    private func read(_ body: JSONValue, index: Int, _ line: inout OpenAIBatchLine) throws(DoorFault) {
        guard !line.isEmbedding else {
            var embeddings = try EmbeddingsRequest(body, model: self.model)
            embeddings.request.dropPolicy = self.dropPolicy
            embeddings.request.priority = self.priority
            embeddings.request.queueTimeoutMilliseconds = self.queueTimeoutMilliseconds
            line.work = .embeddings(embeddings)
            return
        }
        // The gateway knows how many stop texts there may be, and says so.
        var completion = try CompletionRequest(body, model: self.model, maxStops: .max)
        guard !completion.streams else {
            throw .invalid("stream", "is true, but the answers of a batch are whole; leave it out")
        }
        guard !completion.echoes else {
            throw .invalid(
                "echo",
                "is true, which lines of a batch cannot have; use --task score, or send it over HTTP"
            )
        }
        guard completion.logprobs == nil || self.texts != nil else {
            throw .invalid(
                "logprobs",
                "is set, but the texts of tokens do not come over gRPC; send the line to the gateway over HTTP, or use --local"
            )
        }
        for prompt in completion.requests.indices {
            var request = completion.requests[prompt]
            if request.dropPolicy == nil { request.dropPolicy = self.dropPolicy }
            if request.priority == .unspecified { request.priority = self.priority }
            if request.queueTimeoutMilliseconds == nil {
                request.queueTimeoutMilliseconds = self.queueTimeoutMilliseconds
            }
            // With seeds of their own prompts have the same answers whenever they are asked.
            if request.parameters?.seed == nil {
                request.parameters?.seed = self.seed &+ UInt64(index) &+ UInt64(prompt) << 32
            }
            completion.requests[prompt] = request
        }
        line.work = .completion(
            CompletionAnswer(
                texts: self.texts ?? NoTexts(),
                model: self.model,
                request: completion,
                id: "cmpl-" + line.id,
                created: self.created
            )
        )
    }

    private static func shown(_ text: String) -> String { ErrorText.shown(String(text.prefix(200))) }
}

/// Why a line is no request of the format.
struct BatchLineFault: Error, Sendable {
    /// OpenAI's word for it.
    var code: String
    /// What is wrong.
    var message: String

    init(_ code: String, _ message: String) {
        self.code = code
        self.message = message
    }
}

/// Texts for answers that name no token.
private struct NoTexts: TokenTexts {
    func texts(of ids: [UInt32]) -> [String] { ids.map { _ in "" } }
    func text(of id: UInt32) -> String { "" }
    func isSpecial(_ id: UInt32) -> Bool { false }
}

/// A line of OpenAI's batch format, and the line that answers it.
package struct OpenAIBatchLine: Sendable {
    /// What is to be asked for a line, prompt by prompt.
    package enum Question: Sendable {
        /// Nothing: the answer is known, see ``OpenAIBatchLine/refusal``.
        case none
        /// Generated texts, for ``OpenAIBatchLine/answer(_:)-([GenerateResponse])``.
        case generate([GenerateRequest])
        /// Hidden states, for ``OpenAIBatchLine/answer(_:)-(EncodeResponse)``.
        case encode(EncodeRequest)
    }

    enum Work: Sendable {
        case malformed(BatchLineFault)
        case refused(DoorFault)
        case completion(CompletionAnswer)
        case embeddings(EmbeddingsRequest)
    }

    let id: String
    let created: Int
    let model: ModelDescription
    var customID: String?
    var isEmbedding = false
    var work = Work.malformed(BatchLineFault("invalid_request", "the line was not read"))

    init(id: String, created: Int, model: ModelDescription) {
        self.id = id
        self.created = created
        self.model = model
    }

    /// What is to be asked.
    package var question: Question {
        switch self.work {
        case .malformed, .refused: .none
        case .completion(let answer): .generate(answer.request.requests)
        case .embeddings(let embeddings): .encode(embeddings.request)
        }
    }

    /// The answer of a line that asks for nothing, without its end.
    package var refusal: [UInt8] {
        switch self.work {
        case .malformed(let fault):
            self.line(nil, error: ["code": .string(fault.code), "message": .string(fault.message)])
        case .refused(let fault): self.failed(fault)
        case .completion, .embeddings:
            self.failed(DoorFault(500, .internal, "the line was not asked"))
        }
    }

    /// The answer to prompts.
    ///
    /// - Parameter responses: The gateway's answer to each prompt.
    /// - Returns: The line to write, without its end.
    package func answer(_ responses: [GenerateResponse]) -> [UInt8] {
        guard case .completion(let answer) = self.work else { return self.refusal }
        // Times would differ from run to run.
        let lasting = responses.map { response in
            var response = response
            response.usage?.queueMicroseconds = 0
            response.usage?.encodeMicroseconds = 0
            response.usage?.decodeMicroseconds = 0
            return response
        }
        return self.line(self.response(200, answer.whole(lasting)), error: nil)
    }

    /// The answer to inputs.
    ///
    /// - Parameter response: The gateway's answer.
    /// - Returns: The line to write, without its end, and whether it is an answer.
    package func answer(_ response: EncodeResponse) -> (line: [UInt8], isAnswer: Bool) {
        guard case .embeddings(let embeddings) = self.work else { return (self.refusal, false) }
        do throws(DoorFault) {
            let body = try embeddings.answer(response, model: self.model)
            return (self.line(self.response(200, body), error: nil), true)
        } catch {
            return (self.failed(error), false)
        }
    }

    /// The answer to a request that failed.
    ///
    /// - Parameter error: Why.
    /// - Returns: The line to write, without its end.
    package func answer(_ error: RPCError) -> [UInt8] { self.failed(DoorFault(error).renamed(OpenAIForm.names)) }

    private func failed(_ fault: DoorFault) -> [UInt8] {
        self.line(self.response(fault.status, OpenAIForm.body(of: fault)), error: nil)
    }

    private func response(_ status: Int, _ body: JSONOutput) -> JSONOutput {
        ["status_code": .integer(status), "request_id": .string("req_" + self.id), "body": body]
    }

    private func line(_ response: JSONOutput?, error: JSONOutput?) -> [UInt8] {
        let line: JSONOutput = [
            "id": .string("batch_req_" + self.id), "custom_id": JSONOutput(self.customID),
            "response": response ?? .null, "error": error ?? .null,
        ]
        return Array(line.text.utf8)
    }
}
