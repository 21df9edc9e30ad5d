// SPDX-License-Identifier: Apache-2.0

internal import JSONValues

extension TokenizerSettings {
    /// The files that settings are read from.
    struct Files {
        /// `tokenizer_config.json`.
        var configuration: [String: JSON] = [:]

        /// `special_tokens_map.json`.
        var specialTokens: [String: JSON]?

        /// `added_tokens.json`.
        var addedTokens: [String: JSON]?

        /// The added tokens of `tokenizer.json`.
        var fileTokens: [(id: Int, token: AddedToken)] = []
    }

    /// Puts the files' settings together.
    ///
    /// - Parameter files: The files.
    /// - Throws: `TokenizerFileFault` that names file, key and value.
    init(_ files: Files) throws(TokenizerFileFault) {
        self.init()
        let configuration = files.configuration
        try self.readOptions(configuration)
        try self.readNames(configuration)
        try self.readLists(configuration)
        if let value = configuration["added_tokens_decoder"] {
            try self.readDecoder(value)
        } else {
            if let map = files.specialTokens {
                try Self.naming("special_tokens_map.json") { () throws(TokenizerFileFault) in try self.readMap(map) }
            }
            // The names that T5 has by default do not count here.
            var given = Set(configuration.keys)
            if let map = files.specialTokens { given.formUnion(map.keys) }
            if let added = files.addedTokens {
                try Self.naming("added_tokens.json") { () throws(TokenizerFileFault) in
                    try self.readAdded(added, given: given)
                }
            }
            for (id, token) in files.fileTokens { self.decoder[id] = token }
        }
        for (key, name) in self.named {
            guard let text = name?.text, name != nil else { continue }
            let matches = self.decoder.sorted { $0.key < $1.key }.map(\.value)
                .filter { Name.token($0).isText(text) }
            if let token = matches.last { self.named[key] = .some(.token(token)) }
        }
        guard case .some(.some) = self.named["eos_token"] else {
            throw .init("eos_token is null, but a T5 tokenizer ends every text with it; name it")
        }
    }

    private static func naming(
        _ file: String,
        _ read: () throws(TokenizerFileFault) -> Void
    ) throws(TokenizerFileFault) {
        do {
            try read()
        } catch {
            throw TokenizerFileFault(error.message, file: file)
        }
    }

    private mutating func readOptions(_ configuration: [String: JSON]) throws(TokenizerFileFault) {
        if let value = configuration["extra_ids"] {
            guard let number = value.double, let count = Int(exactly: number), (0...100_000).contains(count)
            else {
                throw .init("extra_ids is \(JSON.text(value)), which is not within 0...100000")
            }
            self.sentinelCount = count
        }
        self.splitsSpecialTokens = !(configuration["split_special_tokens"] ?? .null).isFalse
        self.cleansUpSpaces = !(configuration["clean_up_tokenization_spaces"] ?? .null).isFalse
        if case .object(let map) = configuration["auto_map"], let value = map["AutoTokenizer"], !value.isFalse {
            throw .init(
                "auto_map names a tokenizer that is the checkpoint's own Python code, which cannot"
                    + " run here; save the tokenizer as a T5Tokenizer"
            )
        }
    }

    /// Reads `eos_token` and the like, and the tokens with other names.
    private mutating func readNames(_ fields: [String: JSON], isMap: Bool = false) throws(TokenizerFileFault) {
        for (key, value) in fields where key.hasSuffix("_token") {
            let isAttribute = Self.attributes.contains(key)
            switch value {
            case .null where isAttribute:
                self.named.updateValue(nil, forKey: key)
            case .string, .object:
                let name = try Self.name(value, "\(key)", isMap: isMap)
                if isAttribute { self.named[key] = .some(name) } else { self.others[key] = name }
            default:
                guard isAttribute else { continue }
                throw .init("\(key) is \(JSON.text(value)), where a token is needed")
            }
        }
    }

    /// Reads `extra_special_tokens` and the name that it had before.
    private mutating func readLists(_ configuration: [String: JSON]) throws(TokenizerFileFault) {
        var extra = configuration["extra_special_tokens"]
        if let additional = configuration["additional_special_tokens"] {
            if (extra ?? .null).isFalse {
                extra = additional
            } else {
                self.additional = try Self.list(additional, "additional_special_tokens")
            }
        }
        if case .object(let fields) = extra {
            for (key, value) in fields { self.others[key] = try Self.name(value, "extra_special_tokens.\(key)") }
        } else if let extra {
            // A null is there as well: it keeps the sentinels from being added.
            self.extra = try Self.list(extra, "extra_special_tokens") ?? []
        }
    }

    private mutating func readDecoder(_ value: JSON) throws(TokenizerFileFault) {
        guard case .object(let fields) = value else {
            throw .init("added_tokens_decoder is \(JSON.text(value)), where an object is needed")
        }
        for (key, value) in fields {
            let name = "added_tokens_decoder[\"\(key)\"]"
            guard let id = Int(key), id >= 0 else {
                throw .init("\(name) is not the id of a token")
            }
            guard case .object(let object) = value else {
                throw .init("\(name) is \(JSON.text(value)), where an object is needed")
            }
            self.decoder[id] = try AddedToken(object, key: name)
        }
    }

    private mutating func readMap(_ map: [String: JSON]) throws(TokenizerFileFault) {
        try self.readNames(map, isMap: true)
        if let value = map["additional_special_tokens"] {
            self.additional = try Self.list(value, "additional_special_tokens")
        }
        switch map["extra_special_tokens"] {
        case nil: break
        case .object(let fields):
            self.extra = nil
            for (key, value) in fields {
                self.others[key] = try Self.name(value, "extra_special_tokens.\(key)")
            }
        case .some(let value):
            let names = try Self.list(value, "extra_special_tokens", isMap: true) ?? []
            let known = self.extra ?? []
            self.extra = known + names.filter { !known.contains($0) }
        }
    }

    private mutating func readAdded(
        _ added: [String: JSON],
        given: Set<String>
    ) throws(TokenizerFileFault) {
        let names = Self.attributes.filter(given.contains).compactMap { self.named[$0] ?? nil } + (self.extra ?? [])
        for (text, value) in added {
            guard let number = value.double, let id = Int(exactly: number), id >= 0 else {
                throw .init("the id of \"\(text)\" is \(JSON.text(value)), where a number is needed")
            }
            if let other = self.decoder[id] {
                throw .init("\"\(text)\" and \"\(other.content)\" have the same id \(id)")
            }
            let isSpecial = names.contains { $0.isText(text) }
            self.decoder[id] = AddedToken(content: text, normalized: !isSpecial, isSpecial: isSpecial)
        }
    }

    /// Reads a token's name or object.
    private static func name(_ value: JSON, _ key: String, isMap: Bool = false) throws(TokenizerFileFault) -> Name {
        switch value {
        case .string(let text):
            return .plain(text)
        case .object(let fields):
            if isMap {
                var token = try AddedToken(fields, key: key)
                token.isSpecial = true
                return .token(token)
            }
            guard case .string("AddedToken") = fields["__type"] else {
                throw .init("\(key) is an object without \"__type\": \"AddedToken\", which transformers refuses")
            }
            return .token(try AddedToken(fields, key: key))
        default:
            throw .init("\(key) is \(JSON.text(value)), where a token is needed")
        }
    }

    /// Reads a list of tokens; nil for null.
    private static func list(_ value: JSON, _ key: String, isMap: Bool = false) throws(TokenizerFileFault) -> [Name]? {
        switch value {
        case .null:
            return nil
        case .array(let values):
            var names: [Name] = []
            for (index, value) in values.enumerated() {
                names.append(try Self.name(value, "\(key), place \(index),", isMap: isMap))
            }
            return names
        default:
            throw .init("\(key) is \(JSON.text(value)), where a list of tokens is needed")
        }
    }
}
