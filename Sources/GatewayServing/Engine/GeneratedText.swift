// SPDX-License-Identifier: Apache-2.0

internal import SwitchyardTypes
internal import Tokenization

/// The text of one sequence while it is generated.
struct GeneratedText: Sendable {
    /// The text that one more token adds.
    struct Piece: Sendable, Equatable {
        /// Text that can be shown.
        var text: String
        /// Whether the text now ends, at a stop string.
        var isStopped: Bool
    }

    private var decoder: IncrementalDecoder?
    private var matcher: StopMatcher

    /// The text so far, without the held-back part that may start a stop string.
    private(set) var text = ""

    /// Whether a stop string ended the text.
    private(set) var isStopped = false

    /// Creates an empty text.
    ///
    /// - Parameters:
    ///   - tokenizer: Turns ids into text; nil leaves the text empty.
    ///   - stops: The stop strings.
    init(tokenizer: Tokenizer?, stops: [String]) {
        self.decoder = tokenizer?.makeDecoder()
        self.matcher = StopMatcher(stops: stops)
    }

    /// Adds the next token.
    ///
    /// - Parameters:
    ///   - id: The token's id.
    ///   - isLast: Whether it is the sequence's last token, so that nothing needs to be held back.
    /// - Returns: The text that the token adds.
    mutating func append(_ id: Int32, isLast: Bool) -> Piece {
        var decoded = self.decoder?.append(id) ?? ""
        // Held back until now: where the tokenizer cleans up spaces, the end of a text depends on what follows.
        if isLast { decoded += self.decoder?.finish() ?? "" }
        let output = self.matcher.feed(decoded)
        var piece = Piece(text: output.text, isStopped: output.isStopped)
        if isLast, !output.isStopped {
            piece.text += self.matcher.finish()
        }
        self.text += piece.text
        self.isStopped = output.isStopped
        return piece
    }
}
