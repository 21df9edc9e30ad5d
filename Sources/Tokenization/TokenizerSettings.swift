// SPDX-License-Identifier: Apache-2.0

/// What the files beside a tokenizer's pieces say: `tokenizer_config.json` and, where that has no
/// `added_tokens_decoder`, `special_tokens_map.json`, `added_tokens.json` and the added tokens of `tokenizer.json`.
///
/// The order of the steps is that of `_from_pretrained`
/// (https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_base.py) and of the
/// initializers of `T5Tokenizer` and `TokenizersBackend`; so is the order in which tokens get ids: an id in a file only
/// says where in that order a token comes.
struct TokenizerSettings: Sendable {
    /// A token that a file names, with or without its flags.
    enum Name: Sendable, Equatable {
        case plain(String)
        case token(AddedToken)

        /// The token's text.
        var text: String {
            switch self {
            case .plain(let text): text
            case .token(let token): token.content
            }
        }

        /// Whether two texts are the same bytes.
        func isText(_ other: String) -> Bool {
            self.text.utf8.elementsEqual(other.utf8)
        }
    }

    /// The names of the tokens that every tokenizer of transformers can have, in the order in which they are added.
    static let attributes = [
        "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    ]

    /// How many sentinels a tokenizer has by default.
    static let defaultSentinelCount = 100

    /// How many sentinels there are.
    var sentinelCount = Self.defaultSentinelCount

    /// `extra_special_tokens`, or `additional_special_tokens` of `tokenizer_config.json`; nil where neither is there.
    var extra: [Name]?

    /// `additional_special_tokens` where it comes from elsewhere.
    var additional: [Name]?

    /// The named tokens of ``attributes``; nil means that there is none.
    var named: [String: Name?] = [
        "eos_token": .plain("</s>"), "unk_token": .plain("<unk>"), "pad_token": .plain("<pad>"),
    ]

    /// Tokens with other names, by name.
    var others: [String: Name] = [:]

    /// The added tokens by the ids in the files.
    var decoder: [Int: AddedToken] = [:]

    /// Whether special tokens in a text are plain text.
    var splitsSpecialTokens = false

    /// Whether decoding takes out spaces in front of punctuation.
    var cleansUpSpaces = false

    /// The text of the token that ends every text.
    var endText: String { (self.named["eos_token"] ?? nil)?.text ?? "</s>" }

    /// The text of a sentinel.
    ///
    /// - Parameter number: The sentinel's number.
    /// - Returns: The text.
    static func sentinel(_ number: Int) -> String { "<extra_id_\(number)>" }

    /// Lists the added tokens in the order in which they get ids.
    ///
    /// - Parameter given: `additional_special_tokens`, or the control and user-defined pieces of a `spiece.model`.
    /// - Returns: The tokens.
    /// - Throws: `TokenizerFileFault` where the sentinels contradict `extra_ids`, or the order cannot be known.
    func addedTokens(additional given: [Name]?) throws(TokenizerFileFault) -> [AddedToken] {
        let sentinels = (0..<self.sentinelCount).map { Name.plain(Self.sentinel($0)) }
        var additional = given ?? sentinels
        if given != nil {
            let present = additional.count { $0.text.contains("<extra_id_") }
            if present == 0 {
                additional += sentinels
            } else if self.sentinelCount > 0, present != self.sentinelCount {
                throw .init(
                    "extra_ids is \(self.sentinelCount), but \(present) tokens are named <extra_id_...>, which transformers"
                        + " refuses; set extra_ids in tokenizer_config.json to \(present)"
                )
            }
        }
        let names = Self.attributes.compactMap { self.named[$0] ?? nil }
        var list = self.decoder.sorted { $0.key < $1.key }.map { Name.token($0.value) }
        let present = Set(list.map { Array($0.text.utf8) })
        let others = self.others.sorted { $0.key < $1.key }.map(\.value)
        let missing = others.filter { !present.contains(Array($0.text.utf8)) }
        guard missing.count <= 1 else {
            throw .init(
                "the tokens \(missing.map { "\"\($0.text)\"" }.joined(separator: ", ")) have no ids in added_tokens_decoder;"
                    + " save the tokenizer with a current transformers, which writes them down"
            )
        }
        for name in names + others + (self.extra ?? additional) {
            if !present.contains(Array(name.text.utf8)), !list.contains(name) { list.append(name) }
        }
        let all = names + others
        return list.map { name in
            switch name {
            case .plain(let text):
                return AddedToken(content: text, isSpecial: true)
            case .token(var token):
                token.isSpecial = token.isSpecial || all.contains { $0.isText(token.content) }
                return token
            }
        }
    }
}
